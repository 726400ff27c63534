"""A search space: which ops, on which edges of which cell."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from math import comb
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

Selection = Literal["two_edges", "two_ops", "every_edge", "one_edge"]


class Edge(NamedTuple):
    """A directed edge of a cell; nodes are numbered from the inputs on."""

    source: int
    target: int


def third_reductions(layers: int) -> tuple[int, ...]:
    """Indices of the reduction cells of a network of `layers` cells: {L//3, 2L//3} (DARTS, section 3.1)."""
    if layers < 1:
        raise ValueError(f"reductions: layers must be >= 1, got {layers}")
    return tuple(sorted({layers // 3, 2 * layers // 3}))


@dataclass(frozen=True)
class Space:
    """A cell with every op on every edge.

    `inputs` input nodes (0 ...) are followed by `steps` intermediate nodes, each with one edge from every earlier
    node. The cell's output concatenates the last `multiplier` nodes. `selection` says what one architecture of the
    space is: per node one op on each of two incoming edges (`two_edges`, DARTS), any two (edge, op) pairs
    (`two_ops`, IS-DARTS), one op on every edge (`every_edge`, NAS-Bench-201), or one op on one edge (`one_edge`, DARTS'
    recurrent cell).
    """

    name: str
    ops: tuple[str, ...]
    steps: int = 4
    multiplier: int = 4
    inputs: int = 2
    selection: Selection = "two_edges"
    pool_norm: bool = True
    """Pools of the search network are followed by an affine-free batch norm (DARTS) or not (AutoDL, IS-DARTS)."""
    conv_bias: bool = False
    """Convolutions of the search network have a bias (AutoDL: iff their norm is not affine)."""
    track_statistics: bool = True
    """Norms of the search network's cells keep running statistics for evaluation (AutoDL: none, always the batch's)."""
    final_norm: bool = False
    """The search network ends its features with batch norm and ReLU (AutoDL) before it pools them."""
    evaluation_ops: tuple[str, ...] = ()
    """The name of each op in the genotype and the evaluation network; `ops` itself when left out."""

    def __post_init__(self) -> None:
        if not self.ops or len(set(self.ops)) != len(self.ops):
            raise ValueError(f"space {self.name}: ops must be distinct and at least one, got {self.ops}")
        if self.evaluation_ops and len(self.evaluation_ops) != len(self.ops):
            raise ValueError(
                f"space {self.name}: evaluation_ops must name all {len(self.ops)} ops, got {len(self.evaluation_ops)}"
            )
        if self.inputs < 1 or self.steps < 1:
            raise ValueError(
                f"space {self.name}: inputs and steps must be >= 1, got inputs={self.inputs}, steps={self.steps}"
            )
        if not 1 <= self.multiplier <= self.steps:
            raise ValueError(f"space {self.name}: multiplier must be in 1..steps={self.steps}, got {self.multiplier}")

    @property
    def recurrent(self) -> bool:
        """Whether the cell is that of a recurrent network, which is searched on text."""
        return self.selection == "one_edge"

    @cached_property
    def nodes(self) -> tuple[int, ...]:
        """The intermediate nodes."""
        return tuple(range(self.inputs, self.inputs + self.steps))

    @cached_property
    def concat(self) -> tuple[int, ...]:
        """The nodes whose outputs, concatenated, are the output of the cell."""
        return self.nodes[-self.multiplier :]

    @cached_property
    def edges(self) -> tuple[Edge, ...]:
        """All edges, by target node, then by source node: the order of every [edges, ops] table."""
        return tuple(Edge(source, target) for target in self.nodes for source in range(target))

    @cached_property
    def genotype_ops(self) -> tuple[str, ...]:
        """The op names as a genotype has them, in the order of `ops`."""
        return self.evaluation_ops or self.ops

    @cached_property
    def choices(self) -> tuple[int, ...]:
        """Indices of the ops that can be chosen, that is, all but `none`."""
        return tuple(k for k, op in enumerate(self.ops) if op != "none")

    def edge_index(self, target: int, source: int) -> int:
        """The row of edge source -> target in an [edges, ops] table."""
        if target not in self.nodes:
            raise ValueError(
                f"space {self.name}: target must be a node in {self.nodes[0]}..{self.nodes[-1]}, got {target}"
            )
        if not 0 <= source < target:
            raise ValueError(f"space {self.name}: source must be in 0..{target - 1} for target {target}, got {source}")
        return sum(range(self.inputs, target)) + source

    def op_index(self, op: str) -> int:
        """The column of `op` (its search or its genotype name) in an [edges, ops] table."""
        if op in self.ops:
            return self.ops.index(op)
        if op in self.genotype_ops:
            return self.genotype_ops.index(op)
        raise ValueError(f"space {self.name}: op must be one of {', '.join(self.ops)}, got {op!r}")

    def incoming(self, target: int) -> tuple[int, ...]:
        """Indices of the edges into node `target`, by source."""
        first = self.edge_index(target, 0)
        return tuple(range(first, first + target))

    def leaving(self, source: int) -> tuple[int, ...]:
        """Indices of the edges out of node `source`, by target."""
        if not 0 <= source < self.inputs + self.steps:
            raise ValueError(f"space {self.name}: source must be in 0..{self.inputs + self.steps - 1}, got {source}")
        return tuple(self.edge_index(target, source) for target in self.nodes if target > source)

    def stride(self, edge: Edge, reduction: bool) -> int:
        """2 on the edges that start at an input of a reduction cell, else 1."""
        return 2 if reduction and edge.source < self.inputs else 1

    def reductions(self, layers: int) -> tuple[int, ...]:
        """Where a network of `layers` cells has its reduction cells.

        NAS-Bench-201 has none: residual blocks between its stages reduce. A recurrent network is one cell.
        """
        return () if self.selection in ("every_edge", "one_edge") else third_reductions(layers)

    def size(self, cells: int = 1) -> int:
        """How many architectures of `cells` individual cells there are, exactly.

        For `two_edges` the count of DARTS and D-DARTS (Eq. 6): prod over nodes of C(incoming, 2) * p^2, with p the
        ops other than `none`; to the power of `cells`. A node with one incoming edge keeps that one.
        """
        if cells < 1:
            raise ValueError(f"space {self.name}: cells must be >= 1, got {cells}")
        p, total = len(self.choices), 1
        for node in self.nodes:
            if self.selection == "every_edge":
                total *= len(self.ops) ** node
            elif self.selection == "two_ops":
                total *= comb(node * p, min(2, node * p))
            elif self.selection == "one_edge":
                total *= node * p
            else:
                total *= comb(node, min(2, node)) * p ** min(2, node)
        return int(total**cells)

    def table(self, genes: Sequence[tuple[str, int, int]]) -> npt.NDArray[np.bool_]:
        """The cell `genes`, entries (op, target, source), as a table [edges, ops]: true where the op is present."""
        present = np.zeros((len(self.edges), len(self.ops)), dtype=np.bool_)
        for op, target, source in genes:
            present[self.edge_index(target, source), self.op_index(op)] = True
        return present

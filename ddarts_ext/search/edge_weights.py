"""How the edges into a node are weighted against each other: parameters of their own, beside the alphas of the ops."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ddarts_ext.genotype.configuration import Configuration
from ddarts_ext.spaces import Space


@dataclass(frozen=True)
class EdgeRelaxation:
    """How betas become weights: a softmax of ``before`` over the edges into a node.

    normalised: as PC-DARTS has it: all edges compete, their weights sum to one, betas start at noise and rest as long
    as the alphas, and an op's weight times its edge's is what the result is read from. Else as DA2S has it, see
    :class:`EdgeWeights`.
    """

    before: Callable[[Tensor], Tensor]
    normalised: bool


EDGE_RELAXATIONS = {
    "clamped_softmax": EdgeRelaxation(lambda b: b.clamp(max=1.0), normalised=False),
    "softmax": EdgeRelaxation(lambda b: b, normalised=True),
}
"""clamped_softmax: of min(b, 1), without gradient above 1 (DA2S). softmax: edge normalisation (PC-DARTS)."""


class EdgeWeights:
    """Weights of edges from a table of betas [rows, E].

    The edges into a node compete where the target configuration lets some of them go: q = softmax(g(b)) over the n
    edges into the node. Edge i then weighs n q_i, so that equal edges weigh 1 as in a plain sum. Edges into other nodes
    weigh 1, and their betas are 0 and stay so. With edge normalisation all edges compete, and edge i weighs q_i.
    """

    def __init__(self, space: Space, configuration: Configuration, relaxation: str) -> None:
        if relaxation not in EDGE_RELAXATIONS:
            known = ", ".join(EDGE_RELAXATIONS)
            raise ValueError(f"search: edge_relaxation must be one of {known}, got {relaxation!r}")
        configuration.check(space, "search")
        kind = EDGE_RELAXATIONS[relaxation]
        self.relax, self.normalised = kind.before, kind.normalised
        self.competing = tuple(space.nodes) if kind.normalised else configuration.competing(space)
        self._nodes = [(node, space.incoming(node)) for node in space.nodes]
        kept = dict(zip(space.nodes, configuration.kept(space), strict=True))
        self.targets = tuple(float(kept[node]) for node in self.competing)
        """How many edges of each competing node stay."""
        self.whole: float | None = None
        """With a target for the cell: how many edges of all competing nodes stay."""
        if configuration.edges_per_cell:
            fixed = sum(len(edges) for node, edges in self._nodes if node not in self.competing)
            self.whole = float(configuration.edges_per_cell - fixed)

    @property
    def slices(self) -> list[slice]:
        """Per competing node its columns of the table."""
        return [slice(edges[0], edges[-1] + 1) for node, edges in self._nodes if node in self.competing]

    def start(self, rows: int, scale: float, generator: torch.Generator | None, dtype: torch.dtype) -> Tensor:
        """Betas [rows, E]: around the part of the edges that stays, so that their sum is the target from the start."""
        edges = self._nodes[-1][1][-1] + 1
        table = torch.zeros(rows, edges, dtype=dtype)
        noise = torch.randn(rows, edges, generator=generator, dtype=dtype) * scale
        if self.normalised:
            return noise
        total = sum(part.stop - part.start for part in self.slices)
        for part, target in zip(self.slices, self.targets, strict=True):
            share = target / (part.stop - part.start) if self.whole is None else self.whole / total
            table[:, part] = share + noise[:, part]
        return table

    def shares(self, table: Tensor) -> list[Tensor]:
        """Per competing node q [rows, n]."""
        clamped = self.relax(table)
        return [torch.softmax(clamped[:, part], -1) for part in self.slices]

    def weights(self, table: Tensor) -> Tensor:
        """What every edge is multiplied by [rows, E]."""
        shares = iter(self.shares(table))
        parts = []
        for node, edges in self._nodes:
            part = slice(edges[0], edges[-1] + 1)
            scale = 1 if self.normalised else len(edges)
            parts.append(scale * next(shares) if node in self.competing else torch.ones_like(table[:, part]))
        return torch.cat(parts, 1)

    def count(self, table: Tensor) -> Tensor:
        """[rows]: the squared distance of the sum of all positive g(b) from the number of edges that stay, summed over
        the competing nodes (or of the whole cell). As g is at most 1, it is 0 where so many betas are 1 and the others
        below 0."""
        positive = self.relax(table).relu()
        sums = [positive[:, part].sum(-1) for part in self.slices]
        if not sums:
            return torch.zeros_like(table[:, 0])
        if self.whole is not None:
            return (torch.stack(sums).sum(0) - self.whole).square()
        return torch.stack([(s - k).square() for s, k in zip(sums, self.targets, strict=True)]).sum(0)

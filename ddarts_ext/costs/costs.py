"""What every op on every edge costs, and what a whole architecture does."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ddarts_ext.costs.sizes import NetworkSizes, OpPlace
from ddarts_ext.genotype import Gene, Genotype
from ddarts_ext.genotype.configuration import Configuration
from ddarts_ext.genotype.discretisation import THRESHOLDS, Rule, discretize
from ddarts_ext.nn.cell import Normed
from ddarts_ext.nn.count import count_multiply_adds, count_parameters
from ddarts_ext.nn.forward_pass import Pass
from ddarts_ext.nn.primitives import EVALUATION, primitive


@dataclass(frozen=True)
class Costs:
    """Costs of one kind in networks of one size.

    table: float64 [rows, E, O], on the CPU: what an op on an edge costs in all cells of a row together. constant: all
    else (stem, preprocessing, head, sums), in a network whose cells have all their nodes. exact: the cost of one
    architecture; where a node has no ops, less than :meth:`linear` says, as what reads it is narrower.
    """

    kind: str
    sizes: NetworkSizes
    table: Tensor
    constant: float
    exact: Callable[[Genotype], float] = field(repr=False, compare=False)

    def linear(self, genotype: Genotype) -> float:
        """The constant and the cost of every op of an architecture: its cost, where every node has one."""
        return self.constant + sum(
            float(self.table[row, self.sizes.space.edge_index(gene.target, gene.source), self._column(gene.op)])
            for row, cell in enumerate(genotype.genes)
            for gene in cell
        )

    def _column(self, op: str) -> int:
        return self.sizes.space.op_index(op)

    def of(self, genotype: Genotype) -> float:
        """What an architecture costs. Raises ValueError for one with a cell without path."""
        return self.exact(genotype)

    def range(self, rule: Rule, configuration: Configuration) -> tuple[float, float]:
        """The least and the most that an architecture read by ``rule`` can cost."""
        if self.sizes.space.selection == "two_ops":
            return self.of(self._two_ops(-self.table)), self.of(self._two_ops(self.table))

        def read(table: Tensor) -> float:
            found = discretize(
                table,
                self.sizes.space,
                rule,
                threshold=-torch.inf,
                seq=self.sizes.order,
                reductions=self.sizes.reductions,
                configuration=configuration,
            )
            return self.of(found)

        narrow = rule in THRESHOLDS and self.sizes.space.selection != "every_edge"
        return self.of(self._narrowest()) if narrow else read(-self.table), read(self.table)

    def _two_ops(self, table: Tensor) -> Genotype:
        """Per node the two ops on any edges of the largest values (IS-DARTS)."""
        space, genes = self.sizes.space, []
        for row in table.tolist():
            gene: list[Gene] = []
            for node in space.nodes:
                pairs = [(edge, op) for edge in space.incoming(node) for op in space.choices]
                best = sorted(pairs, key=lambda pair: -row[pair[0]][pair[1]])[:2]
                gene += [Gene(space.genotype_ops[op], node, space.edges[edge].source) for edge, op in best]
            genes.append(tuple(gene))
        return self.sizes.genotype(genes)

    def _narrowest(self) -> Genotype:
        """One op in every cell, the cheapest one on the output of the cell before."""
        space = self.sizes.space
        node, source = space.nodes[0], space.inputs - 1
        edge = space.edge_index(node, source)
        found = [min(space.choices, key=row[edge].tolist().__getitem__) for row in self.table]
        return self.sizes.genotype([(Gene(space.genotype_ops[op], node, source),) for op in found])


def of_every_op(sizes: NetworkSizes, cost: Callable[[OpPlace], float]) -> Tensor:
    """:attr:`Costs.table`, from what an op costs at its place; ``none`` costs nothing."""
    space = sizes.space
    table = torch.zeros(max(sizes.owner) + 1, len(space.edges), len(space.ops), dtype=torch.float64)
    for cell, row in enumerate(sizes.owner):
        for edge in range(len(space.edges)):
            for op, name in enumerate(space.ops):
                if name != "none":
                    table[row, edge, op] += cost(sizes.place(cell, edge, op))
    return table


def counted_costs(kind: str, sizes: NetworkSizes) -> Costs:
    """Parameters (``params``) or multiply-adds of one image (``macs``), both as ``ddarts describe`` counts them."""
    which = {"params": 0, "macs": 1}[kind]

    @functools.lru_cache(maxsize=4096)
    def exact(genotype: Genotype) -> float:
        network = sizes.build(genotype)
        if kind == "params":
            return float(count_parameters(network, auxiliary=False))
        return float(count_multiply_adds(network, sizes.image).convolutions)

    table = of_every_op(sizes, lambda place: float(_counted(place)[which]))
    return Costs(kind, sizes, table, _rest(sizes, table, exact), exact)


def _rest(sizes: NetworkSizes, table: Tensor, exact: Callable[[Genotype], float]) -> float:
    """What is left of the cost of a network with all its nodes without that of its ops."""
    anything = discretize(table, sizes.space, "darts", seq=sizes.order, reductions=sizes.reductions)
    return exact(anything) - Costs("", sizes, table, 0.0, exact).linear(anything)


@functools.lru_cache(maxsize=4096)
def _counted(place: OpPlace) -> tuple[int, int]:
    """Parameters and multiply-adds of an op with its norm."""
    with torch.device("meta"):
        op = primitive(place.op, place.channels, place.stride, EVALUATION)
        assert op is not None
        normed = Normed(op, place.channels, EVALUATION)
    adds = count_multiply_adds(normed, (place.channels, place.height, place.width), Pass.default(training=False))
    return count_parameters(normed), adds.convolutions

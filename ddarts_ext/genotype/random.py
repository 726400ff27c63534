"""Architectures drawn at random: uniformly over what a rule of discretisation can produce."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from math import comb
from typing import TypeVar

import torch

from ddarts_ext.genotype.cell import Cell, Gene
from ddarts_ext.genotype.configuration import Configuration
from ddarts_ext.genotype.discretisation import Rule
from ddarts_ext.genotype.value import Genotype
from ddarts_ext.spaces import Space

_TRIES = 10_000
Item = TypeVar("Item")


def random_genotype(
    space: Space,
    seq: Sequence[int],
    rule: Rule = "darts",
    *,
    generator: torch.Generator,
    reductions: Sequence[int] | None = None,
    configuration: Configuration | None = None,
) -> Genotype:
    """A connected architecture, uniform over those that ``rule`` can read from op weights; see :func:`.discretize`.

    seq: the gene of each cell; ``range(n)`` for individual cells. ``darts``: per node an op on each of two edges;
    ``sparse``: on at most two; ``edge``: at most two ops on each edge; ``complete``: any ops on any edge;
    ``configuration``: on as many edges, and as many ops on each, as that says. In a space that keeps every edge, an op
    on each; where a node keeps two ops of any edges, two. Architectures with a cell without op, or one that no later
    cell reads, are drawn again. generator: on the CPU.
    """
    seq = tuple(seq)
    if reductions is None and not space.reductions(len(seq)):
        reductions = ()
    fixed = None if reductions is None else tuple(reductions)
    target = Configuration() if configuration is None else configuration
    target.check(space, "random")
    for _ in range(_TRIES):
        genes = tuple(_cell(space, rule, target, generator) for _ in range(max(seq) + 1))
        found = Genotype(genes, seq, space.concat, fixed, space.inputs)
        if all(found.live(cell) for cell in range(found.layers)) and not found.dead_cells():
            return found
    raise ValueError(f"random: rule must leave connected architectures of {len(seq)} cells, {rule!r} leaves too few")


def _cell(space: Space, rule: Rule, target: Configuration, generator: torch.Generator) -> Cell:
    if space.selection == "every_edge":
        return tuple(
            Gene(space.genotype_ops[below(len(space.ops), generator)], edge.target, edge.source) for edge in space.edges
        )
    if rule == "configuration":
        return _configured(space, target, generator)
    entries: list[Gene] = []
    for node in space.nodes:
        entries += _node(space, node, rule, generator)
    return tuple(entries)


def _configured(space: Space, target: Configuration, generator: torch.Generator) -> Cell:
    if target.edges_per_cell:
        edges = list(range(len(space.edges)))
        chosen: list[int] = []
        while {space.edges[edge].target for edge in chosen} != {*space.nodes}:
            chosen = _drawn(edges, target.edges_per_cell, target.edges_per_cell, generator)
    else:
        chosen = []
        for node, kept in zip(space.nodes, target.kept(space), strict=True):
            chosen += _drawn(space.incoming(node), kept, kept, generator)
    ops = [space.genotype_ops[k] for k in space.choices]
    return tuple(
        Gene(op, space.edges[edge].target, space.edges[edge].source)
        for edge in chosen
        for op in _drawn(ops, target.ops_per_edge, target.ops_per_edge, generator)
    )


def _node(space: Space, node: int, rule: Rule, generator: torch.Generator) -> list[Gene]:
    sources, ops = range(node), [space.genotype_ops[k] for k in space.choices]
    pairs = [Gene(op, node, source) for source in sources for op in ops]
    if space.selection == "two_ops":
        return _drawn(pairs, min(2, len(pairs)), min(2, len(pairs)), generator)
    if rule in ("edge", "complete"):
        most = 2 if rule == "edge" else len(ops)
        return [
            gene for source in sources for gene in _drawn([Gene(op, node, source) for op in ops], 0, most, generator)
        ]
    edges = 1 if space.recurrent else min(2, node)
    sizes = [edges] if rule == "darts" else range(edges + 1)
    # So many choices there are with each number of edges: of the edges, times an op on each.
    choices = [(chosen, size) for size in sizes for chosen in combinations(sources, size)]
    weights = torch.tensor([float(len(ops)) ** size for _, size in choices], dtype=torch.float64)
    chosen, _ = choices[int(torch.multinomial(weights, 1, generator=generator))]
    return [Gene(ops[below(len(ops), generator)], node, source) for source in chosen]


def _drawn(items: Sequence[Item], least: int, most: int, generator: torch.Generator) -> list[Item]:
    """A subset of ``least`` to ``most`` items, uniform over all such subsets, in their order."""
    subsets = torch.tensor([float(comb(len(items), size)) for size in range(least, most + 1)], dtype=torch.float64)
    size = least + int(torch.multinomial(subsets, 1, generator=generator))
    kept = torch.randperm(len(items), generator=generator)[:size].sort().values
    return [items[i] for i in kept.tolist()]


def below(count: int, generator: torch.Generator) -> int:
    return int(torch.randint(count, (), generator=generator))

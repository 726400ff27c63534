"""The cells of a genotype as graphs to draw: nodes of the cell, and every op as a box on the way between two."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from ddarts_ext.drawing import Drawing, Graph, Layout, Link, Node, lay_out, stacked
from ddarts_ext.genotype.cell import Cell

MAX_DRAWN = 300
"""Ops of a cell: more can be laid out by nobody, nor looked at."""


class Pictured(Protocol):
    """What is asked of a genotype."""

    @property
    def genes(self) -> tuple[Cell, ...]: ...
    @property
    def seq(self) -> tuple[int, ...]: ...
    @property
    def inputs(self) -> int: ...
    @property
    def layers(self) -> int: ...
    @property
    def reduction_cells(self) -> tuple[int, ...]: ...
    def used(self, index: int) -> Cell: ...
    def joined(self, index: int) -> tuple[int, ...]: ...


def groups(genotype: Pictured) -> dict[str, list[int]]:
    """The cells that are the same, by what they are called: ``cells 0-5, 7 (normal)``."""
    found: dict[tuple[int, bool], list[int]] = {}
    reductions = genotype.reduction_cells
    for index, gene in enumerate(genotype.seq):
        found.setdefault((gene, index in reductions), []).append(index)
    return {
        f"{'cell' if len(places) == 1 else 'cells'} {ranges(places)} ({'reduction' if reduction else 'normal'})": places
        for (_, reduction), places in found.items()
    }


def ranges(numbers: Sequence[int]) -> str:
    """Rising numbers as ``0-5, 7``."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and runs[-1][-1] == number - 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return ", ".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs)


def cell_drawings(genotype: Pictured, layout: Layout = "own") -> list[Drawing]:
    """One drawing for each kind of cell, in the order of the network."""
    single = len(genotype.genes) == 1 and genotype.layers == 1
    return [
        lay_out(cell_graph(genotype, places[0], "" if single else title), layout)
        for title, places in groups(genotype).items()
    ]


def draw(genotype: Pictured, layout: Layout = "own") -> Drawing:
    """All kinds of cells, one below the other."""
    return stacked(cell_drawings(genotype, layout))


def cell_graph(genotype: Pictured, index: int, title: str) -> Graph:
    """Cell ``index``. What has no part in its output is faded; ops ``none`` are left out."""
    inputs = genotype.inputs
    entries = [entry for entry in genotype.genes[genotype.seq[index]] if entry.op != "none"]
    if len(entries) > MAX_DRAWN:
        raise ValueError(f"plot: a cell must have at most {MAX_DRAWN} ops to be drawn, got {len(entries)}")
    used, joined = set(genotype.used(index)), genotype.joined(index)
    live = {entry.target for entry in used} | {entry.source for entry in used}
    numbers = sorted({*range(inputs), *(n for entry in entries for n in (entry.target, entry.source))})
    place = {number: at for at, number in enumerate(numbers)}
    nodes = [Node(_name(n, inputs), "input" if n < inputs else "node", faded=n not in live) for n in numbers]
    links: list[Link] = []
    for entry in entries:
        faded = entry not in used
        links += [Link(place[entry.source], len(nodes), faded), Link(len(nodes), place[entry.target], faded)]
        nodes.append(Node(entry.op, _kind(entry.op), between=True, faded=faded))
    output = len(nodes)
    nodes.append(Node("output", "output", faded=not joined))
    links += [Link(place[node], output) for node in joined]
    return Graph(title, tuple(nodes), tuple(links), tuple(range(inputs)), (output,))


def _name(number: int, inputs: int) -> str:
    """Node 0 is the output of the cell before last, node 1 that of the last one."""
    if number >= inputs:
        return str(number)
    before = inputs - number
    return f"{number}: input" if inputs == 1 else f"{number}: cell k-{before}"


def _kind(op: str) -> str:
    name = op.lower()
    for kind, parts in (("pooling", ("pool",)), ("skip", ("skip", "identity")), ("convolution", ("conv", "block"))):
        if any(part in name for part in parts):
            return kind
    return "other"

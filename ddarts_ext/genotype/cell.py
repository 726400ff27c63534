"""One cell of an architecture: entries of ops, and which of them can be computed and reach the output."""

from collections.abc import Collection
from typing import NamedTuple


class Gene(NamedTuple):
    """One op of a cell: `op` applied to node `source`, added into node `target`."""

    op: str
    target: int
    source: int

    def __str__(self) -> str:
        return f"{self.op}:{self.target}<-{self.source}"


Cell = tuple[Gene, ...]


def computable(cell: Cell, inputs: int) -> Cell:
    """The entries that can be computed, in order.

    A node without entries does not exist; entries that read it are dropped, and so on until none does. Entries of op
    `none` do not make a node exist.
    """
    exist = set(range(inputs))
    entries = [entry for entry in cell if entry.op != "none"]
    # A source is always the smaller node, so that one pass in the order of targets settles every node.
    for entry in sorted(entries, key=lambda entry: entry.target):
        if entry.source in exist:
            exist.add(entry.target)
    return tuple(entry for entry in entries if entry.source in exist)


def reaching(entries: Cell, output: Collection[int]) -> Cell:
    """The entries whose result is part of the nodes `output`, directly or through other entries, in order."""
    needed = set(output)
    for entry in sorted(entries, key=lambda entry: -entry.target):
        if entry.target in needed:
            needed.add(entry.source)
    return tuple(entry for entry in entries if entry.target in needed)

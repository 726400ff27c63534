"""What every genotype must be: known ops, no cycles, and within stated sizes, so that no text can ask for the world."""

import reprlib
from collections.abc import Sequence
from numbers import Integral

from ddarts_ext import spaces
from ddarts_ext.genotype.cell import Cell

MAX_LAYERS = 10_000
MAX_NODES = 1_000
MAX_ENTRIES = 100_000
MAX_EDGES = 1_000_000
"""Of all distinct cells together, counted in the space: every node reads every earlier one."""


def check_layers(layers: int, name: str = "genotype: layers") -> None:
    """Raise ValueError or TypeError for a number of cells that no network has, before anything is built of it."""
    if isinstance(layers, bool) or not isinstance(layers, Integral):
        raise TypeError(f"{name} must be a whole number, got {layers!r}")
    if not 1 <= layers <= MAX_LAYERS:
        raise ValueError(f"{name} must be in 1..{MAX_LAYERS}, got {layers}")


def check_entries(genes: Sequence[Sequence[object]]) -> None:
    """Raise ValueError for more entries than any genotype has, before they are looked at one by one."""
    entries = sum(map(len, genes))
    if entries > MAX_ENTRIES:
        raise ValueError(f"genotype: genes must hold at most {MAX_ENTRIES} entries together, got {entries}")


def check_genotype(
    genes: Sequence[Cell],
    seq: Sequence[int],
    concats: Sequence[Sequence[int]],
    reductions: Sequence[int] | None,
    inputs: int,
    steps: int,
) -> None:
    """Raise ValueError that names the first place where a genotype is wrong.

    concats: one per gene, or one for all. steps: intermediate nodes of a cell.
    """
    if not genes:
        raise ValueError("genotype: genes must hold at least one cell, got none")
    if inputs < 1:
        raise ValueError(f"genotype: inputs must be >= 1, got {inputs}")
    _check_concats(concats, inputs, inputs + steps)
    _check_sizes(genes, seq, inputs, steps)
    for i, index in enumerate(seq):
        if not 0 <= index < len(genes):
            raise ValueError(f"genotype: seq[{i}] must be in 0..{len(genes) - 1}, got {index}")
    for i, cell in enumerate(reductions or ()):
        if not 0 <= cell < len(seq):
            raise ValueError(f"genotype: reductions[{i}] must be in 0..{len(seq) - 1}, got {cell}")
    for c, entries in enumerate(genes):
        _check_cell(f"genotype: genes[{c}]", entries, inputs, inputs + steps - 1)


def _check_concats(concats: Sequence[Sequence[int]], inputs: int, end: int) -> None:
    for c, concat in enumerate(concats):
        place = "genotype: concat" + (f" of genes[{c}]" if len(concats) > 1 else "")
        if not concat or len(set(concat)) != len(concat):
            raise ValueError(f"{place} must be distinct nodes, at least one, got {list(concat)[:20]}")
        for i, node in enumerate(concat):
            if not inputs <= node < MAX_NODES:
                raise ValueError(f"{place}[{i}]: node must be in {inputs}..{MAX_NODES - 1}, got {node}")
            if node >= end:
                raise ValueError(f"{place}[{i}]: node must be one of the {end - inputs} steps, got {node}")


def _check_sizes(genes: Sequence[Cell], seq: Sequence[int], inputs: int, steps: int) -> None:
    check_layers(len(seq))
    if not 1 <= steps <= MAX_NODES - inputs:
        raise ValueError(f"genotype: steps must be in 1..{MAX_NODES - inputs}, got {steps}")
    edges = len(genes) * sum(range(inputs, inputs + steps))
    if edges > MAX_EDGES:
        raise ValueError(
            f"genotype: genes must have at most {MAX_EDGES} edges together, got {edges} in {len(genes)} cells of "
            f"{steps} nodes"
        )


def _check_cell(place: str, cell: Cell, first: int, last: int) -> None:
    known = spaces.known_ops()
    seen = set()
    for i, entry in enumerate(cell):
        op, target, source = entry
        if op not in known:
            raise ValueError(f"{place}[{i}]: op must be one of {', '.join(sorted(known))}, got {op[:60]!r}")
        if not first <= target <= last:
            raise ValueError(f"{place}[{i}]: target must be a node in {first}..{last}, got {target}")
        if not 0 <= source <= last:
            raise ValueError(f"{place}[{i}]: source must be a node in 0..{last}, got {source}")
        if source >= target:
            raise ValueError(f"{place}[{i}]: source must be < target {target} (no cycles), got {source}")
        if entry in seen:
            raise ValueError(f"{place}: entries must be distinct, got {entry} twice")
        seen.add(entry)


class _Shown(reprlib.Repr):
    def __init__(self) -> None:
        super().__init__()
        self.maxlevel, self.maxlist, self.maxdict, self.maxstring, self.maxlong, self.maxother = 3, 6, 6, 60, 40, 60


def shown(value: object) -> str:
    """A value for an error message, however large or deep it is."""
    return _Shown().repr(value)[:200]

"""Larger networks from searched cells (D-DARTS, Algorithm 1)."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal, get_args

from ddarts_ext.genotype.checks import check_layers
from ddarts_ext.genotype.value import Genotype
from ddarts_ext.spaces import third_reductions

Index = Literal["reference", "cycle"]
Reductions = Literal["thirds", "from_file"]


def derive(
    genotype: Genotype, cells: int = 14, index: Index = "reference", reductions: Reductions = "thirds"
) -> Genotype:
    """A network of `cells` cells from the n cells of `genotype`; its seq says which searched cell each one is.

    The target has its reduction cells at thirds and they are the source's; the normal cells before, between and after
    them reuse those of their block in turn. A network of as many cells as there are is the genotype itself.

    index: `cycle` repeats every block from its start (the paper's intent); `reference` has the index arithmetic with
    which the published networks were made. reductions: `thirds` as said; `from_file` does as the reference
    implementation, which picks cells as if both networks reduced at thirds and then reduces where the genotype says.

    Raises ValueError for a genotype whose number of reduction cells is not two, where a target block has cells and its
    source block none, and where the reference index runs out of its block.
    """
    if not isinstance(genotype, Genotype):
        raise TypeError(
            f"derive: genotype must be a Genotype, as Genotype.load reads it, got {type(genotype).__name__}"
        )
    if index not in get_args(Index):
        raise ValueError(f"derive: index must be one of {', '.join(get_args(Index))}, got {index!r}")
    if reductions not in get_args(Reductions):
        raise ValueError(f"derive: reductions must be one of {', '.join(get_args(Reductions))}, got {reductions!r}")
    check_layers(cells, "derive: cells")
    if cells == genotype.layers:
        return genotype
    own = genotype.reduction_cells
    if len(own) != 2:
        raise ValueError(
            f"derive: genotype must have 2 reduction cells, got {len(own)} in {genotype.layers} cells: {list(own)}"
        )
    thirds = reductions == "thirds"
    try:
        sequence = cell_sequence(genotype.layers, cells, index, own if thirds else None)
    except ValueError as error:
        raise ValueError(f"{error}; {_what_works(genotype.layers, cells, index, own if thirds else None)}") from None
    seq = tuple(genotype.seq[i] for i in sequence)
    return replace(genotype, seq=seq, reductions=None if thirds else own)


def _what_works(n: int, cells: int, index: Index, source: Sequence[int] | None) -> str:
    """Which lengths there are instead of ``cells``, or how many cells a search needs for them."""

    def works(searched: int, length: int, reductions: Sequence[int] | None) -> bool:
        try:
            cell_sequence(searched, length, index, reductions)
        except ValueError:
            return False
        return True

    lengths = range(2, n + 1) if cells < n else range(n + 1, max(2 * cells, 2 * n))
    others = [length for length in lengths if works(n, length, source)]
    if others:
        return f"cells can be {', '.join(map(str, others[:8]))}{' ...' if len(others) > 8 else ''}"
    enough = next((searched for searched in range(n + 1, cells) if works(searched, cells, None)), None)
    more = "" if enough is None else f"; of {enough} searched cells it can be {cells}"
    return f"of these {n} cells no longer network can be made{more}"


def cell_sequence(
    n: int, cells: int, index: Index = "reference", source: Sequence[int] | None = None
) -> tuple[int, ...]:
    """Which of n searched cells each of `cells` cells is; source: the two searched reduction cells, else thirds."""
    if cells == n:
        return tuple(range(n))
    r1, r2 = _two("genotype", n, third_reductions(n) if source is None else source)
    first, second = _two("cells", cells, third_reductions(cells))
    starts = (0, r1 + 1, r2 + 1)
    sizes = (r1, r2 - 1 - r1, n - 1 - r2)
    sequence = []
    for i in range(cells):
        block = int(i > first) + int(i > second)
        if i in (first, second):
            sequence.append(r1 if i == first else r2)
        elif not sizes[block]:
            raise ValueError(
                f"derive: genotype must have a normal cell in block {block} for cell {i} of {cells}, "
                f"got {n} cells with reductions {[r1, r2]}"
            )
        elif index == "cycle":
            offset = (i - (0, first + 1, second + 1)[block]) % sizes[block]
            sequence.append(starts[block] + offset)
        else:
            # Not block-relative, and a precedence slip in block 0: as the published networks have it.
            sequence.append(i % sizes[block] + starts[block] if block else _first_block(i, n, r1))
    return tuple(sequence)


def _first_block(i: int, n: int, r1: int) -> int:
    picked = i % n // 3
    if picked >= r1:
        raise ValueError(
            f"derive: index must be 'cycle' here, as 'reference' picks cell {picked} for cell {i}, beyond the {r1} "
            "before the first reduction"
        )
    return picked


def _two(argument: str, layers: int, reductions: Sequence[int]) -> tuple[int, int]:
    if len(reductions) != 2:
        raise ValueError(f"derive: {argument} must have room for 2 reduction cells, got {layers} cells")
    return reductions[0], reductions[1]

"""The cells of a genotype for a person: equal ones together, in lines that fit a terminal."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ddarts_ext.genotype import Genotype

_WIDTH = 80


def cells_text(genotype: Genotype) -> str:
    """``cells 0-5, 7 (normal): op:target<-source ...``, each kind of cell once, nodes that it joins after an arrow."""
    if genotype.recurrent:
        entries = " ".join(str(entry) for entry in genotype.genes[0])
        text = f"recurrent cell: {entries} -> mean of {', '.join(map(str, genotype.concat))}"
        return textwrap.fill(text, _WIDTH, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False)
    reductions = genotype.reduction_cells
    found: dict[tuple[int, bool], list[int]] = {}
    for index, gene in enumerate(genotype.seq):
        found.setdefault((gene, index in reductions), []).append(index)
    blocks = [f"{genotype.layers} cells, reductions {list(reductions)}"]
    for (gene, reduction), places in found.items():
        what = f"{'cell' if len(places) == 1 else 'cells'} {ranges(places)} ({'reduction' if reduction else 'normal'})"
        entries = " ".join(str(entry) for entry in genotype.genes[gene])
        joined = ", ".join(map(str, genotype.joined(places[0]))) or "none"
        text = f"{what}: {entries} -> {joined}"
        blocks.append(
            textwrap.fill(text, _WIDTH, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False)
        )
    return "\n".join(blocks)


def ranges(numbers: Sequence[int]) -> str:
    """Rising numbers as ``0-5, 7``."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and runs[-1][-1] == number - 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return ", ".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs)

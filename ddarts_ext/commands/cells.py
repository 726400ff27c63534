"""The cells of a genotype for a person: equal ones together, in lines that fit a terminal."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ddarts_ext.genotype import Genotype

_WIDTH = 80


def cells_text(genotype: Genotype) -> str:
    """``cells 0-5, 7 (normal): op:target<-source ...``, each kind of cell once, nodes that it joins after an arrow."""
    from ddarts_ext.genotype.pictures import groups

    if genotype.recurrent:
        entries = " ".join(str(entry) for entry in genotype.genes[0])
        text = f"recurrent cell: {entries} -> mean of {', '.join(map(str, genotype.concat))}"
        return textwrap.fill(text, _WIDTH, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False)
    blocks = [f"{genotype.layers} cells, reductions {list(genotype.reduction_cells)}"]
    for title, places in groups(genotype).items():
        entries = " ".join(str(entry) for entry in genotype.cells[places[0]])
        joined = ", ".join(map(str, genotype.joined(places[0]))) or "none"
        text = f"{title}: {entries} -> {joined}"
        blocks.append(
            textwrap.fill(text, _WIDTH, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False)
        )
    return "\n".join(blocks)

"""One small change of an architecture, at random: the mutation of regularised evolution (1802.01548)."""

from __future__ import annotations

from dataclasses import replace

import torch

from ddarts_ext.genotype.cell import Gene
from ddarts_ext.genotype.random import below
from ddarts_ext.genotype.value import Genotype
from ddarts_ext.spaces import Space

_TRIES = 10_000


def mutated(genotype: Genotype, space: Space, *, generator: torch.Generator) -> Genotype:
    """The architecture with another op in one place, or with one op on another edge into the same node.

    Which gene, which of its ops and which of both is drawn uniformly; where a space keeps every edge (NAS-Bench-201) it
    is always the op. Changes that leave a cell without a path, or one that no later cell reads, are drawn again.
    generator: on the CPU. Raises ValueError where no change is possible.
    """
    every = space.selection == "every_edge"
    names = space.genotype_ops if every else tuple(space.genotype_ops[k] for k in space.choices)
    for _ in range(_TRIES):
        number = below(len(genotype.genes), generator)
        cell = list(genotype.genes[number])
        place = below(len(cell), generator)
        old = cell[place]
        others = [Gene(name, old.target, old.source) for name in names if name != old.op]
        if not every and below(2, generator):
            used = {entry.source for entry in cell if entry.target == old.target}
            others = [Gene(old.op, old.target, source) for source in range(old.target) if source not in used]
        others = [entry for entry in others if entry not in cell]
        if not others:
            continue
        cell[place] = others[below(len(others), generator)]
        genes = tuple(tuple(cell) if i == number else gene for i, gene in enumerate(genotype.genes))
        found = replace(genotype, genes=genes)
        if every or (all(found.live(one) for one in range(found.layers)) and not found.dead_cells()):
            return found
    raise ValueError(f"evolution: space {space.name} must have another architecture, got one alone")

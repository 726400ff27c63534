"""Architectures at random: uniform over what a rule can produce, and connected."""

from __future__ import annotations

from collections import Counter
from math import comb
from typing import Any

import pytest
import torch
from scipy.stats import chisquare

from ddarts_ext import Genotype, spaces
from ddarts_ext.genotype import discretize
from ddarts_ext.genotype.random import random_genotype


def draw(space: str, cells: int, rule: Any, seed: int, **options: Any) -> Genotype:
    generator = torch.Generator().manual_seed(seed)
    return random_genotype(spaces.get(space, **options), range(cells), rule, generator=generator)


@pytest.mark.parametrize("rule", ["darts", "sparse", "edge", "complete"])
def test_connected_and_of_the_rule(rule: str) -> None:
    space = spaces.get("darts")
    for seed in range(20):
        genotype = draw("darts", 4, rule, seed)
        assert genotype == draw("darts", 4, rule, seed)
        assert not genotype.dead_cells()
        assert all(genotype.live(cell) for cell in range(4))
        for cell in genotype.cells:
            per_node = Counter(entry.target for entry in cell)
            per_edge = Counter((entry.target, entry.source) for entry in cell)
            if rule == "darts":
                assert set(per_node.values()) == {2}
            if rule in ("darts", "sparse"):
                assert set(per_edge.values()) == {1}
                assert max(per_node.values()) <= 2
            if rule == "edge":
                assert max(per_edge.values()) <= 2
            # The rule reads it back from weights that are 1 where it has an op.
            weights = space.table(cell)[None].astype(float)
            assert set(discretize(weights, space, rule).genes[0]) == set(cell)


@pytest.mark.parametrize(("rule", "count"), [("darts", comb(2, 2) * 49), ("sparse", 14 + 49)])
def test_uniform_over_one_node(rule: str, count: int) -> None:
    """With one node and one cell there are few architectures: all come, equally often. Both inputs are the stem's."""
    drawn = Counter(draw("darts", 1, rule, seed, steps=1).genes[0] for seed in range(count * 40))
    assert len(drawn) == count
    assert chisquare(list(drawn.values())).pvalue > 1e-4


def test_other_spaces() -> None:
    nasbench = draw("nasbench201", 1, "darts", 3)
    assert nasbench == Genotype.from_nb201(nasbench.to_nb201())
    two = draw("isdarts", 3, "darts", 1)
    assert all(set(Counter(entry.target for entry in cell).values()) == {2} for cell in two.cells)

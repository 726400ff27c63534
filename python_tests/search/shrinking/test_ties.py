"""Of ops that tell as much, the dearer goes first."""

from __future__ import annotations

import torch

from ddarts_ext import spaces
from ddarts_ext.search.shrinking.steps import shrink

SPACE = spaces.get("nasbench201")


def removed(badness: list[float], costs: list[float], tolerance: float) -> int:
    """Which op of every edge goes in a step of one."""
    every = torch.tensor(badness, dtype=torch.float64).expand(1, 6, 5)
    mask = torch.ones(1, 6, 5, dtype=torch.bool)
    prices = torch.tensor(costs, dtype=torch.float64).expand(1, 6, 5)
    gone = mask & ~shrink(mask, every, SPACE, 4, costs=prices, tolerance=tolerance)
    columns = {int(column) for column in gone.nonzero()[:, 2]}
    assert len(columns) == 1
    assert int(gone.sum()) == 6
    return columns.pop()


def test_the_dearest_of_those_within_the_tolerance() -> None:
    bad, costs = [1.0, 10.0, 9.6, 9.4, 0.0], [0.0, 1.0, 2.0, 3.0, 9.0]
    assert removed(bad, costs, 0.0) == 1
    assert removed(bad, costs, 0.05) == 2
    assert removed(bad, costs, 0.07) == 3
    assert removed(bad, costs, 1.0) == 4
    assert removed([-value for value in bad], costs, 0.0) == 4


def test_infinite_ones_are_equal_to_each_other_alone() -> None:
    infinite = float("inf")
    assert removed([infinite, 10.0, infinite, 9.4, 0.0], [0.0, 9.0, 2.0, 3.0, 9.0], 0.05) == 2
    assert removed([infinite, 10.0, 1.0, 9.4, 0.0], [0.0, 9.0, 2.0, 3.0, 9.0], 0.5) == 0


def test_without_costs_it_is_as_before() -> None:
    generator = torch.Generator().manual_seed(0)
    mask = torch.ones(2, 6, 5, dtype=torch.bool)
    bad = torch.rand(2, 6, 5, generator=generator, dtype=torch.float64)
    prices = torch.rand(2, 6, 5, generator=generator, dtype=torch.float64)
    assert torch.equal(shrink(mask, bad, SPACE, 2), shrink(mask, bad, SPACE, 2, costs=prices, tolerance=0.0))

"""Op weights that are moved while the weights of the network train: how far they may come, and to where."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from ddarts_ext.search.perturbation import onto_simplex, perturbed_against, perturbed_at_random


def weights(rows: int = 400, ops: int = 7) -> Tensor:
    table = 2 * torch.randn(rows, ops, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return table.softmax(-1)


def assert_from_the_box(moved: Tensor, centre: Tensor, radius: float) -> None:
    """moved is v / sum(v) for some v with |v - centre| <= radius: for some factor s, |s moved - centre| <= radius."""
    assert bool((moved >= 0).all())
    torch.testing.assert_close(moved.sum(-1), torch.ones(len(moved), dtype=moved.dtype))
    scale = moved.clamp_min(1e-300)
    least = ((centre - radius) / scale).masked_fill(moved == 0, -torch.inf).amax(-1)
    most = ((centre + radius) / scale).masked_fill(moved == 0, torch.inf).amin(-1)
    assert bool((least <= most + 1e-9).all())
    # What was cut to 0 was within reach of 0.
    assert bool((centre[moved == 0] <= radius).all())


@pytest.mark.parametrize("radius", [0.03, 0.3])
def test_random_perturbations_stay_in_the_box_and_on_the_simplex(radius: float) -> None:
    centre = weights()
    moved = perturbed_at_random(centre, torch.tensor(radius, dtype=centre.dtype), torch.Generator().manual_seed(1))
    assert_from_the_box(moved, centre, radius)
    # Twice as far is not the same box.
    with pytest.raises(AssertionError):
        assert_from_the_box(moved, centre, radius / 4)


def test_the_draw_is_uniform_where_nothing_is_cut() -> None:
    """Of two ops that weigh 1/2 each, w1 = (1/2 + d1) / (1 + d1 + d2)."""
    radius = torch.tensor(0.1, dtype=torch.float64)
    centre = torch.full((100_000, 2), 0.5, dtype=torch.float64)
    moved = perturbed_at_random(centre, radius, torch.Generator().manual_seed(0))
    draw = torch.rand(centre.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    one, two = (0.2 * draw - 0.1).unbind(-1)
    torch.testing.assert_close(moved[:, 0], (0.5 + one) / (1 + one + two))
    assert float(moved[:, 0].min()) >= 0.4
    assert float(moved[:, 0].max()) <= 0.6


def test_onto_the_simplex() -> None:
    found = onto_simplex(torch.tensor([[0.2, 0.6, -0.5], [-0.1, -0.3, -0.2], [2.0, 0.5, 0.5], [0.2, 0.3, 0.5]]))
    expected = torch.tensor([[0.25, 0.75, 0.0], [1.0, 0.0, 0.0], [0.5, 0.25, 0.25], [0.2, 0.3, 0.5]])
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("radius", [0.03, 0.3])
def test_adversarial_perturbations_stay_in_the_box_and_raise_the_loss(radius: float) -> None:
    centre = weights()
    target = torch.randn(centre.shape, generator=torch.Generator().manual_seed(2), dtype=centre.dtype)

    def loss(moved: Tensor) -> Tensor:
        return (moved * target).sum() + moved.square().sum()

    size = torch.tensor(radius, dtype=centre.dtype)
    worst = perturbed_against(centre, size, loss, 7, torch.Generator().manual_seed(1))
    assert_from_the_box(worst, centre, radius)
    by_chance = perturbed_at_random(centre, size, torch.Generator().manual_seed(1))
    assert float(loss(worst)) > max(float(loss(by_chance)), float(loss(centre)))
    assert not worst.requires_grad


def test_what_does_not_raise_the_loss_is_left() -> None:
    """A loss that is largest where the weights are."""
    centre = weights(5)
    size = torch.tensor(0.1, dtype=centre.dtype)
    found = perturbed_against(
        centre, size, lambda moved: -(moved - centre).square().sum(), 3, torch.Generator().manual_seed(0)
    )
    assert torch.equal(found, centre)


def test_the_steps_by_hand() -> None:
    """One op against another, a linear loss: one step of 2 radius from the first draw, cut at the radius."""
    centre = torch.tensor([[0.5, 0.5]], dtype=torch.float64)
    size = torch.tensor(0.1, dtype=torch.float64)
    found = perturbed_against(centre, size, lambda w: (w * torch.tensor([1.0, -1.0])).sum(), 1, torch.Generator())
    torch.testing.assert_close(found, torch.tensor([[0.6, 0.4]], dtype=torch.float64))

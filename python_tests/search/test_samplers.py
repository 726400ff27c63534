"""Samplers of op weights: how often they draw what, and the gradient that they give, against closed forms."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.distributions import Dirichlet, kl_divergence

from ddarts_ext.search.architecture import ArchitectureParameters
from ddarts_ext.search.samplers import (
    SAMPLERS,
    anchor_divergence,
    concentration,
    concrete,
    dirichlet,
    gumbel_hard,
    mean_of_dirichlet,
    mode,
    reinmax,
)

DRAWS = 100_000
ALPHAS = torch.tensor([0.9, -0.6, 0.2, -1.5], dtype=torch.float64)
VECTOR = torch.tensor([1.0, -2.0, 0.5, 3.0], dtype=torch.float64)
MATRIX = torch.tensor(
    [[2, 1, 0, -1], [1, -1, 0.5, 0], [0, 0.5, 3, 1], [-1, 0, 1, -2]], dtype=torch.float64
)  # symmetric
ONE = torch.ones((), dtype=torch.float64)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def linear(weights: Tensor) -> Tensor:
    return weights @ VECTOR


def quadratic(weights: Tensor) -> Tensor:
    return ((weights @ MATRIX) * weights).sum(-1) + weights @ VECTOR


def many(draw: Callable[..., Tensor], loss: Callable[[Tensor], Tensor], temperature: Tensor = ONE) -> Tensor:
    """The gradients [DRAWS, O] that as many draws give."""
    table = ALPHAS.expand(DRAWS, -1).clone().requires_grad_(True)
    return torch.autograd.grad(loss(draw(table, temperature, seeded())).sum(), table)[0]


def assert_mean(found: Tensor, expected: Tensor) -> None:
    """Within five standard errors of the mean."""
    error = found.std(0) / len(found) ** 0.5
    assert bool(((found.mean(0) - expected).abs() < 5 * error + 1e-9).all()), (found.mean(0), expected, error)


@pytest.mark.parametrize("draw", [gumbel_hard, reinmax])
def test_one_op_is_drawn_as_often_as_its_softmax_says(draw: Callable[..., Tensor]) -> None:
    found = draw(ALPHAS.expand(DRAWS, -1), 3 * ONE, seeded())
    assert torch.equal(found.sum(-1), torch.ones(DRAWS, dtype=torch.float64))
    assert bool(((found == 0) | (found == 1)).all())
    assert_mean(found, ALPHAS.softmax(-1))


def test_the_hard_draw_has_the_gradient_of_the_soft_one() -> None:
    for temperature in (0.1 * ONE, ONE, 10 * ONE):
        found = many(gumbel_hard, linear, temperature)
        torch.testing.assert_close(found, many(concrete, linear, temperature))
        assert bool(found.isfinite().all())


def test_a_cold_concrete_draw_is_the_hard_one_and_a_hot_one_is_flat() -> None:
    table = ALPHAS.expand(1000, -1)
    hard = gumbel_hard(table, ONE, seeded())
    assert bool(((concrete(table, 1e-4 * ONE, seeded()) - hard).abs().amax(-1) < 1e-6).double().mean() > 0.99)
    torch.testing.assert_close(concrete(table, 1e6 * ONE, seeded()), torch.full_like(table, 0.25), rtol=0, atol=1e-4)


def test_the_gradient_of_concrete_is_that_of_its_mean() -> None:
    """By central differences of the mean loss over the same draws."""
    temperature, step = 0.7 * ONE, 1e-5
    means = []
    for sign in (1, -1):
        moved = ALPHAS + sign * step * torch.eye(4, dtype=torch.float64)
        means.append(
            torch.stack([quadratic(concrete(row.expand(DRAWS, -1), temperature, seeded())).mean() for row in moved])
        )
    expected = (means[0] - means[1]) / (2 * step)
    torch.testing.assert_close(many(concrete, quadratic, temperature).mean(0), expected, rtol=1e-6, atol=1e-8)


def expected_gradient_over_ops(loss: Callable[[Tensor], Tensor]) -> Tensor:
    """d/da sum_k softmax(a)_k loss(e_k)."""
    table = ALPHAS.clone().requires_grad_(True)
    mean = table.softmax(-1) @ loss(torch.eye(4, dtype=torch.float64))
    return torch.autograd.grad(mean, table)[0]


def test_reinmax_is_exact_in_the_mean_for_a_quadratic_loss_where_straight_through_is_not() -> None:
    expected = expected_gradient_over_ops(quadratic)
    assert_mean(many(reinmax, quadratic), expected)

    def straight_through(table: Tensor, temperature: Tensor, generator: torch.Generator) -> Tensor:
        soft = table.softmax(-1)
        return reinmax(table, temperature, generator).detach() + soft - soft.detach()

    other = many(straight_through, quadratic)
    assert bool(((other.mean(0) - expected).abs() > 20 * other.std(0) / DRAWS**0.5).any())


def test_reinmax_is_its_formula() -> None:
    """g at the draw D: 2 J(q) g - J(p) g / 2 with J(s) g = s (g - s.g), at a temperature other than 1 too."""
    for temperature in (ONE, 2.5 * ONE):
        table = ALPHAS.expand(50, -1).clone().requires_grad_(True)
        draw = reinmax(table, temperature, seeded())
        (found,) = torch.autograd.grad(quadratic(draw).sum(), table)
        leaf = draw.detach().requires_grad_(True)
        (g,) = torch.autograd.grad(quadratic(leaf).sum(), leaf)
        p, q = ALPHAS.softmax(-1), (draw.detach() + (ALPHAS / temperature).softmax(-1)) / 2
        expected = 2 * q * (g - (q * g).sum(-1, keepdim=True)) - 0.5 * p * (g - (p * g).sum(-1, keepdim=True))
        torch.testing.assert_close(found, expected)


def dirichlet_mean(loss: str) -> Tensor:
    """Gradient of the mean of a linear loss, or of a quadratic one, from the moments of the distribution."""
    table = ALPHAS.clone().requires_grad_(True)
    c = concentration(table)
    total = c.sum()
    mean = c @ VECTOR / total
    if loss == "quadratic":
        second = (torch.outer(c, c) + torch.diag(c)) / (total * (total + 1))
        mean = mean + (second * MATRIX).sum()
    return torch.autograd.grad(mean, table)[0]


@pytest.mark.parametrize(("name", "loss"), [("linear", linear), ("quadratic", quadratic)])
def test_the_gradient_of_dirichlet_draws_is_that_of_the_moments(name: str, loss: Callable[[Tensor], Tensor]) -> None:
    assert_mean(many(dirichlet, loss), dirichlet_mean(name))


def test_dirichlet_draws_are_the_distribution_s() -> None:
    found = dirichlet(ALPHAS.expand(DRAWS, -1), ONE, seeded())
    torch.testing.assert_close(found.sum(-1), torch.ones(DRAWS, dtype=torch.float64))
    expected = Dirichlet(torch.nn.functional.elu(ALPHAS) + 1)
    assert_mean(found, expected.mean)
    assert_mean((found - expected.mean).square(), expected.variance)
    torch.testing.assert_close(mean_of_dirichlet(ALPHAS), expected.mean)


def test_the_anchor_is_the_divergence_from_the_uniform_distribution() -> None:
    table = torch.randn(2, 5, 7, generator=seeded(), dtype=torch.float64).requires_grad_(True)
    q = Dirichlet(torch.nn.functional.elu(table) + 1)
    expected = kl_divergence(q, Dirichlet(torch.ones(2, 5, 7, dtype=torch.float64))).sum(-1)
    found = anchor_divergence(table)
    torch.testing.assert_close(found, expected)
    one, other = (torch.autograd.grad(value.sum(), table, retain_graph=True)[0] for value in (found, expected))
    torch.testing.assert_close(one, other)
    assert float(anchor_divergence(torch.zeros(1, 5, 7)).abs().max()) < 1e-5


@pytest.mark.parametrize("name", SAMPLERS)
def test_alphas_that_have_decided_give_finite_weights_and_gradients(name: str) -> None:
    table = torch.tensor([[60.0, -60.0, 0.0], [-90.0, -90.0, -90.0], [0.0, 1e-3, 200.0]]).repeat(200, 1)
    table.requires_grad_(True)
    for temperature in (1.0, 0.1) if name != "reinmax" else (1.0,):
        drawn = SAMPLERS[name].draw(table, torch.tensor(temperature), seeded())
        assert bool(drawn.isfinite().all())
        (gradient,) = torch.autograd.grad((drawn * torch.arange(3)).sum(), table)
        assert bool(gradient.isfinite().all())
        torch.testing.assert_close(drawn.sum(-1), torch.ones(600), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", SAMPLERS)
def test_one_draw_for_all_cells_of_a_row_and_judged_without_chance(name: str) -> None:
    owner = (0, 1, 0)
    found = ArchitectureParameters(5, 7, owner, "softmax", initial_scale=0.5, generator=seeded(), sampler=name)
    one, two = (found.drawn(found.leaf(), seeded(3)) for _ in range(2))
    assert torch.equal(one, two)
    assert torch.equal(one[0], one[2])
    assert not torch.equal(one[0], one[1])
    assert not torch.equal(one, found.drawn(found.leaf(), seeded(4)))
    judged = {"gumbel_hard": mode, "reinmax": mode, "dirichlet": mean_of_dirichlet}.get(name, lambda t: t.softmax(-1))
    torch.testing.assert_close(found.weights()[1], judged(found.table.detach())[1])
    torch.testing.assert_close(found.op_weights(), found.table.detach().softmax(-1))

"""The unrolled gradient on the one-dimensional problem of the DARTS paper, and Adam over the rows of one table."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from ddarts_ext.search.architect import unrolled_gradient
from ddarts_ext.search.architecture import ArchitectureParameters, owners

W, A = torch.tensor([-2.0], dtype=torch.float64), torch.tensor([2.0], dtype=torch.float64)


def valid_loss(weights: Sequence[Tensor], alpha: Tensor) -> Tensor:
    return (alpha * weights[0] - 2 * alpha + 1).sum()


def train_loss(weights: Sequence[Tensor], alpha: Tensor) -> Tensor:
    return ((weights[0] - alpha) ** 2).sum()


@pytest.mark.parametrize("hessian", ["fd", "exact"])
@pytest.mark.parametrize(
    ("learning_rate", "buffer", "decay", "expected"),
    [(0.1, None, 0.0, -2.8), (0.1, 0.5, 3e-4, -2.84494), (0.0, None, 0.0, -4.0)],
)
def test_toy_problem(hessian: str, learning_rate: float, buffer: float | None, decay: float, expected: float) -> None:
    gradient, _ = unrolled_gradient(
        train_loss,
        valid_loss,
        [W],
        A,
        learning_rate=learning_rate,
        weight_decay=decay,
        buffers=None if buffer is None else [torch.full_like(W, buffer)],
        hessian=hessian,
    )
    assert float(gradient) == pytest.approx(expected, abs=1e-9)
    assert float(W) == -2.0


def test_difference_approaches_the_exact_product_on_a_smooth_problem() -> None:
    generator = torch.Generator().manual_seed(0)
    weights = [torch.randn(4, 3, generator=generator, dtype=torch.float64) for _ in range(2)]
    table = torch.randn(3, 3, generator=generator, dtype=torch.float64)

    def loss(w: Sequence[Tensor], a: Tensor) -> Tensor:
        return ((w[0] @ a).tanh() * w[1].sin()).square().sum()

    fd, exact = (
        unrolled_gradient(loss, loss, weights, table, learning_rate=0.1, hessian=h)[0] for h in ("fd", "exact")
    )
    torch.testing.assert_close(fd, exact, rtol=1e-3, atol=1e-5)


def test_one_adam_over_the_table_is_one_adam_per_row() -> None:
    generator = torch.Generator().manual_seed(0)
    table = torch.nn.Parameter(torch.randn(3, 4, 5, generator=generator))
    rows = [torch.nn.Parameter(row.clone()) for row in table.detach()]
    settings = {"lr": 3e-3, "betas": (0.9, 0.999), "weight_decay": 1e-3}
    fused = torch.optim.Adam([table], **settings)
    separate = [torch.optim.Adam([row], **settings) for row in rows]
    for _ in range(20):
        table.grad = torch.randn(table.shape, generator=generator)
        for row, gradient, optimizer in zip(rows, table.grad, separate, strict=True):
            row.grad = gradient.clone()
            optimizer.step()
        fused.step()
    assert torch.equal(table.detach(), torch.stack([row.detach() for row in rows]))


def test_owners_of_the_three_sharings() -> None:
    assert owners("individual", 4, (1, 2)) == (0, 1, 2, 3)
    assert owners("normal_reduction", 6, (2, 4)) == (0, 0, 1, 0, 1, 0)
    assert owners("sequence", 4, (), (7, 1, 7, 0)) == (0, 1, 0, 2)
    with pytest.raises(ValueError, match="sequence must have one number for each of 4 cells"):
        owners("sequence", 4, (), (0, 1))
    with pytest.raises(ValueError, match="sharing must be one of"):
        owners("all", 4, ())


def test_cells_that_share_a_row_share_its_gradient() -> None:
    architecture = ArchitectureParameters(2, 3, (0, 1, 0), "softmax", initial_scale=1.0)
    weights = architecture.weights()
    assert weights.shape == (3, 2, 3)
    assert torch.equal(weights[0], weights[2])
    torch.testing.assert_close(weights.sum(-1), torch.ones(3, 2))
    (gradient,) = torch.autograd.grad(weights[0, 0, 0] + weights[2, 0, 0], architecture.table)
    (single,) = torch.autograd.grad(architecture.relax(architecture.table)[0, 0, 0], architecture.table)
    torch.testing.assert_close(gradient, 2 * single)

"""Gradients of the validation loss with respect to the architecture: at the current weights, or at unrolled ones.

The losses come as functions of all weights and the table, so that unrolled weights are passed in and the network itself
is never written to: there is nothing to restore, and nothing can leak into the weight step.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

Loss = Callable[[Sequence[Tensor], Tensor], Tensor]
FINITE_DIFFERENCE = 0.01
HESSIANS = ("fd", "exact")


def unrolled_gradient(
    train_loss: Loss,
    valid_loss: Loss,
    weights: Sequence[Tensor],
    table: Tensor,
    *,
    learning_rate: float | Tensor,
    momentum: float = 0.9,
    weight_decay: float = 3e-4,
    buffers: Sequence[Tensor | None] | None = None,
    hessian: str = "fd",
) -> tuple[Tensor, Tensor]:
    """Second-order gradient of DARTS (Eqs. 6 to 8): (gradient as table, validation loss [] at the unrolled weights).

    One step of SGD is looked ahead: w' = w - lr (momentum * buffer + grad L_train(w) + weight_decay * w). With
    v = grad_w' L_val(w') the gradient is grad_table L_val(w') - lr * d/dtable [grad_w L_train(w) . v].
    learning_rate: a number, or a tensor [] on the device.
    hessian: ``fd`` takes the product by a central difference with step 0.01 / |v| over all weights (as published);
    ``exact`` differentiates twice.
    """
    if hessian not in HESSIANS:
        raise ValueError(f"architect: hessian must be one of {', '.join(HESSIANS)}, got {hessian!r}")
    leaf = table.detach().requires_grad_(True)
    current = [w.detach().requires_grad_(True) for w in weights]
    exact = hessian == "exact"
    with torch.enable_grad():
        slopes = torch.autograd.grad(train_loss(current, leaf), current, create_graph=exact, allow_unused=True)
        steps = [
            _direction(*each, momentum, weight_decay)
            for each in zip(current, slopes, _given(buffers, current), strict=True)
        ]
        ahead = [w - learning_rate * step for w, step in zip(current, steps, strict=True)]
        if exact:
            loss = valid_loss(ahead, leaf)
            return torch.autograd.grad(loss, leaf)[0], loss.detach()
        ahead = [w.detach().requires_grad_(True) for w in ahead]
        loss = valid_loss(ahead, leaf)
        direct, *found = torch.autograd.grad(loss, [leaf, *ahead], allow_unused=True)
        implicit = _hessian_product(train_loss, weights, found, table)
    return direct - learning_rate * implicit, loss.detach()


def _given(buffers: Sequence[Tensor | None] | None, weights: Sequence[Tensor]) -> Sequence[Tensor | None]:
    return buffers if buffers is not None else [None] * len(weights)


def _direction(
    weight: Tensor, slope: Tensor | None, buffer: Tensor | None, momentum: float, weight_decay: float
) -> Tensor:
    step = weight_decay * weight
    if slope is not None:
        step = step + slope
    return step if buffer is None else step + momentum * buffer


def _hessian_product(
    train_loss: Loss, weights: Sequence[Tensor], vector: Sequence[Tensor | None], table: Tensor
) -> Tensor:
    """d/dtable of grad_w L_train(w) . vector, by a central difference."""
    present = [v for v in vector if v is not None]
    # A zero vector has a zero product; the tiny floor keeps its step finite.
    norm = torch.stack([v.float().norm() if v.dtype != torch.float64 else v.norm() for v in present]).norm()
    epsilon = FINITE_DIFFERENCE / norm.clamp_min(1e-30)

    def slope(sign: float) -> Tensor:
        moved = [
            w.detach() if v is None else w.detach() + (sign * epsilon).to(w.dtype) * v
            for w, v in zip(weights, vector, strict=True)
        ]
        leaf = table.detach().requires_grad_(True)
        return torch.autograd.grad(train_loss(moved, leaf), leaf)[0]

    product: Tensor = (slope(1.0) - slope(-1.0)) / (2 * epsilon).to(table.dtype)
    return product

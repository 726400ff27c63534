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
    clip: float = 0.0,
    reference: bool = False,
) -> tuple[Tensor, Tensor]:
    """Second-order gradient of DARTS (Eqs. 6 to 8): (gradient as table, validation loss [] at the unrolled weights).

    One step of SGD is looked ahead: w' = w - lr (momentum * buffer + grad L_train(w) + weight_decay * w). With
    v = grad_w' L_val(w') the gradient is grad_table L_val(w') - lr * d/dtable [grad_w L_train(w) . v].
    learning_rate: a number, or a tensor [] on the device.
    hessian: ``fd`` takes the product by a central difference with step 0.01 / |v| over all weights (as published);
    ``exact`` differentiates twice.
    clip: bounds the global norm of grad L_train before the step, by a factor k = clip / (norm + 1e-6) where that is
    below 1, and in ``fd`` that of v; the product then counts k times as much (DARTS' recurrent search). reference: k
    counts also where it is above 1 and nothing was clipped, as in the published code; with ``fd`` alone.
    """
    if hessian not in HESSIANS:
        raise ValueError(f"architect: hessian must be one of {', '.join(HESSIANS)}, got {hessian!r}")
    leaf = table.detach().requires_grad_(True)
    current = [w.detach().requires_grad_(True) for w in weights]
    exact = hessian == "exact"
    with torch.enable_grad():
        found = torch.autograd.grad(train_loss(current, leaf), current, create_graph=exact, allow_unused=True)
        ratio = _ratio(found, clip)
        slopes = _scaled(found, ratio)
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
        direct, *ahead_slopes = torch.autograd.grad(loss, [leaf, *ahead], allow_unused=True)
        implicit = _hessian_product(train_loss, weights, _scaled(ahead_slopes, _ratio(ahead_slopes, clip)), table)
    if ratio is not None:
        implicit = implicit * (ratio if reference else ratio.clamp_max(1.0))
    return direct - learning_rate * implicit, loss.detach()


def _norm(vectors: Sequence[Tensor | None]) -> Tensor:
    norm: Tensor = torch.stack([v.detach().double().norm() for v in vectors if v is not None]).norm()
    return norm


def _ratio(vectors: Sequence[Tensor | None], clip: float) -> Tensor | None:
    """What the vectors would be scaled by to have the norm ``clip``, [], without gradient; None where none is asked."""
    return clip / (_norm(vectors) + 1e-6) if clip else None


def _scaled(vectors: Sequence[Tensor | None], ratio: Tensor | None) -> tuple[Tensor | None, ...]:
    """The vectors, shortened where the ratio is below 1."""
    if ratio is None:
        return tuple(vectors)
    factor = ratio.clamp_max(1.0)
    return tuple(None if v is None else v * factor.to(v.dtype) for v in vectors)


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

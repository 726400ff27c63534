"""Weights of the network that are trained for op weights around the current ones (SmoothDARTS, 2002.05283)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

PERTURBATIONS = {
    "random": "weights train with op weights drawn from a box around the current ones",
    "adversarial": "weights train with the op weights of a box around the current ones that raise the loss most",
}


def onto_simplex(weights: Tensor) -> Tensor:
    """Cut to [0, 1] and divided by their sum over the last axis; where nothing is left, all goes to the largest."""
    cut = weights.clamp(0, 1)
    total = cut.sum(-1, keepdim=True)
    largest = torch.zeros_like(weights).scatter(-1, weights.argmax(-1, keepdim=True), 1.0)
    return torch.where(total > 0, cut / torch.where(total > 0, total, 1.0), largest)


def perturbed_at_random(weights: Tensor, radius: Tensor, generator: torch.Generator | None) -> Tensor:
    """Op weights [..., O] with sum one, moved by U(-radius, radius) each (SDARTS-RS) and then :func:`onto_simplex`."""
    draw = torch.rand(weights.shape, generator=generator, device=weights.device, dtype=weights.dtype)
    return onto_simplex(weights + (2 * draw - 1) * radius)


def perturbed_against(
    weights: Tensor,
    radius: Tensor,
    loss: Callable[[Tensor], Tensor],
    steps: int,
    generator: torch.Generator | None,
) -> Tensor:
    """Op weights at most ``radius`` away, each, that raise the loss (SDARTS-ADV), by projected gradient steps.

    From :func:`perturbed_at_random` on, ``steps`` times: 2 radius / steps along the sign of the gradient, back into
    the box, :func:`onto_simplex`. The weights as they were, where that does not raise the loss after all.
    """
    moved = perturbed_at_random(weights, radius, generator)
    for _ in range(steps):
        leaf = moved.detach().requires_grad_(True)
        with torch.enable_grad():
            slope = torch.autograd.grad(loss(leaf), leaf)[0]
        away = moved + 2 * radius / steps * slope.sign() - weights
        moved = onto_simplex(weights + torch.clamp(away, -radius, radius))
    with torch.no_grad():
        return torch.where(loss(weights) > loss(moved), weights, moved)

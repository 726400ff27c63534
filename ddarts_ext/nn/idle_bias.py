"""Biases that do nothing: those of convolutions before a norm with the statistics of its batch, which takes them away.

IS-DARTS has them. They remain parameters, of the state dict and for weight decay, and no arithmetic is spent on them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn


class Biased(nn.Module):
    """A module whose convolutions may have biases; ``idle`` names those that do nothing."""

    idle: tuple[str, ...] = ()

    def add_bias(self, name: str, bias: nn.Parameter | None, *, idle: bool) -> None:
        """Register the bias of a convolution, or that it has none."""
        self.register_parameter(name, bias)
        if bias is not None and idle:
            self.idle = (*self.idle, name)

    def acting(self, name: str) -> Tensor | None:
        """The bias that must be added."""
        if name in self.idle:
            return None
        bias: Tensor | None = getattr(self, name)
        return bias


def idle_biases(module: nn.Module) -> list[nn.Parameter]:
    """All that do nothing in ``module``, in the order in which they get their gradients."""
    return [getattr(part, name) for part in module.modules() if isinstance(part, Biased) for name in part.idle]


def with_idle_biases(x: Tensor, module: nn.Module) -> Tensor:
    """``x``, on which the idle biases of all of ``module`` have no influence: their gradient is zero, and not None."""
    if not torch.is_grad_enabled():
        return x
    biases = idle_biases(module)
    if not any(bias.requires_grad for bias in biases):
        return x
    out: Tensor = _WithoutInfluence.apply(x, *biases)  # type: ignore[no-untyped-call]
    return out


class _WithoutInfluence(torch.autograd.Function):
    """(x, *biases) -> x. The gradients of all biases are slices of one tensor of zeros."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, *biases: Tensor) -> Tensor:
        ctx.sizes, ctx.like = [bias.numel() for bias in biases], biases[0].new_empty(0)
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, ...]:
        zeros: Sequence[Tensor] = ctx.like.new_zeros(sum(ctx.sizes)).split(ctx.sizes)
        return grad, *zeros

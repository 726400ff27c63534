"""A state that many ops read: its gradient is the sum of theirs, and where every launch counts, one op takes it."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ddarts_ext import ops
from ddarts_ext.ops import _stacked
from ddarts_ext.ops._pointwise import in_channels_last


def readers(x: Tensor, count: int) -> Sequence[Tensor]:
    """``x`` for each of ``count`` ops that read it. Off the CPU autograd does not add their gradients two by two."""
    plain = x.device.type == "cpu" or not _stacked.stacks(x)
    if count < 2 or plain or not (torch.is_grad_enabled() and x.requires_grad):
        return [x] * count
    return apart(x, count)


def apart(x: Tensor, count: int) -> Sequence[Tensor]:
    """``count`` tensors that are ``x``, and whose gradients are summed at once."""
    found: Sequence[Tensor] = _Readers.apply(x, count)  # type: ignore[no-untyped-call]
    return found


class _Readers(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, count: int) -> tuple[Tensor, ...]:
        ctx.set_materialize_grads(False)
        return x.expand(count, *x.shape).unbind(0)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, None]:
        return _sum([grad for grad in grads if grad is not None]), None


def _sum(grads: Sequence[Tensor]) -> Tensor | None:
    # Of parts of larger images, the op takes some of the channels, as the gradient of a cell's output has them.
    dense = [grad for grad in grads if _is_dense(grad)]
    rest = [grad for grad in grads if not _is_dense(grad)]
    if dense and in_channels_last(dense[0]):
        dense += [grad for grad in rest if _is_part(grad)]
        rest = [grad for grad in rest if not _is_part(grad)]
    if len(dense) > 2:
        dense = [ops.mixed_sum(dense, _ones(len(dense), dense[0].device)).out]
    return functools.reduce(torch.add, (*dense, *rest)) if grads else None


def _is_dense(x: Tensor) -> bool:
    return x.is_contiguous(memory_format=torch.channels_last) or x.is_contiguous()


def _is_part(x: Tensor) -> bool:
    """Whether x is some of the channels of a channels-last image, all of whose pixels it has."""
    _, channels, height, width = x.shape
    pitch = x.stride(3)
    return channels <= pitch and x.stride() == (height * width * pitch, 1, width * pitch, pitch)


@functools.cache
def _ones(count: int, device: torch.device) -> Tensor:
    return torch.ones(count, device=device)

"""A state that many ops read: its gradient is the sum of theirs, and where every launch counts, one op takes it."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ddarts_ext import ops
from ddarts_ext.ops import _stacked
from ddarts_ext.ops._checks import memory_format_of
from ddarts_ext.ops._pointwise import in_channels_last
from ddarts_ext.ops.pool3x3_readers import MOST_READERS, pool3x3_readers_backward


def readers(x: Tensor, count: int) -> Sequence[Tensor]:
    """``x`` for each of ``count`` ops that read it. Off the CPU autograd does not add their gradients two by two."""
    plain = x.device.type == "cpu" or not _stacked.stacks(x)
    if count < 2 or plain or not (torch.is_grad_enabled() and x.requires_grad):
        return [x] * count
    return apart(x, count)


def readers_and_pools(
    x: Tensor, count: int, *, stride: int, maxima: int, averages: int
) -> tuple[Sequence[Tensor], Sequence[Tensor], Sequence[Tensor]] | None:
    """``x`` for each of ``count`` readers, its 3x3 maximum for each of ``maxima`` and its average for each of
    ``averages``; None where that is no better than :func:`readers` and pools one after the other. One launch then
    gives the gradient of ``x``.
    """
    many = max(count, maxima, averages) > MOST_READERS
    plain = x.device.type == "cpu" or not _stacked.stacks(x)
    if many or plain or not (maxima or averages) or not (torch.is_grad_enabled() and x.requires_grad):
        return None
    return pooled_apart(x, count, stride=stride, maxima=maxima, averages=averages)


def pooled_apart(
    x: Tensor, count: int, *, stride: int, maxima: int, averages: int
) -> tuple[Sequence[Tensor], Sequence[Tensor], Sequence[Tensor]]:
    """The three kinds of tensors, whose gradients are summed at once."""
    found: Sequence[Tensor] = _PooledReaders.apply(x, count, stride, maxima, averages)  # type: ignore[no-untyped-call]
    return found[:count], found[count : count + maxima], found[count + maxima :]


def apart(x: Tensor, count: int) -> Sequence[Tensor]:
    """``count`` tensors that are ``x``, and whose gradients are summed at once."""
    found: Sequence[Tensor] = _Readers.apply(x, count)  # type: ignore[no-untyped-call]
    return found


class _Readers(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, count: int) -> tuple[Tensor, ...]:
        ctx.set_materialize_grads(False)
        return tuple(_times(x, count))

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, None]:
        return _sum([grad for grad in grads if grad is not None]), None


class _PooledReaders(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, count: int, stride: int, maxima: int, averages: int) -> tuple[Tensor, ...]:
        ctx.set_materialize_grads(False)
        maximum, average, argmax = torch.ops.ddarts_ext.pool3x3(x, stride, maxima > 0, averages > 0)
        ctx.save_for_backward(argmax)
        ctx.sizes, ctx.settings = (count, maxima), (*x.shape[2:], stride, memory_format_of(x) == torch.channels_last)
        kinds = ((x, count), (maximum, maxima), (average, averages))
        return tuple(part for image, readers in kinds if readers for part in _times(image, readers))

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, None, None, None, None]:
        count, maxima = ctx.sizes
        others, most, mean = (
            [grad for grad in part if grad is not None]
            for part in (grads[:count], grads[count : count + maxima], grads[count + maxima :])
        )
        if not most and not mean:
            return _sum(others), None, None, None, None
        (argmax,) = ctx.saved_tensors
        return pool3x3_readers_backward(most, mean, others, argmax, *ctx.settings), None, None, None, None


def _times(x: Tensor, count: int) -> Sequence[Tensor]:
    return x.expand(count, *x.shape).unbind(0)


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

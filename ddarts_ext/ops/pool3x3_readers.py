"""``pool3x3_readers_backward``: the whole gradient of a state that pools and other ops read, in one launch.

With g_max, g_avg the gradients of the outputs of ``pool3x3``, one for each op that reads them, and r_i those of the ops
that read the state itself::

    dx = pool3x3_backward(sum_i g_max_i, sum_i g_avg_i) + sum_i r_i

Autograd alone would add up the gradients of every output first and those of the state last, a pass over memory each.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ddarts_ext.ops._checks import accumulate_dtype
from ddarts_ext.ops._double_backward import through_reference
from ddarts_ext.ops._library import define_op
from ddarts_ext.ops.pool3x3 import pool3x3_backward_fake, pool3x3_backward_reference

MOST_READERS = 16
"""Gradients of each kind, as csrc/cuda has it: kPoolReaders."""


def pool3x3_readers_backward_reference(
    maxima: list[Tensor],
    averages: list[Tensor],
    others: list[Tensor],
    argmax: Tensor,
    height: int,
    width: int,
    stride: int,
    channels_last: bool,
) -> Tensor:
    """dx [N,C,height,width]. maxima, averages: gradients of the outputs, at least one; others: of the size of dx. All
    have the dtype of dx."""
    _first(maxima, averages)
    pooled = pool3x3_backward_reference(_total(maxima), _total(averages), argmax, height, width, stride, channels_last)
    for other in others:
        pooled = pooled + other.to(pooled.dtype)
    dx = pool3x3_readers_backward_fake(maxima, averages, others, argmax, height, width, stride, channels_last)
    return dx.copy_(pooled)


def pool3x3_readers_backward_fake(
    maxima: list[Tensor],
    averages: list[Tensor],
    others: list[Tensor],
    argmax: Tensor,
    height: int,
    width: int,
    stride: int,
    channels_last: bool,
) -> Tensor:
    first = _first(maxima, averages)
    return pool3x3_backward_fake(first, None, argmax, height, width, stride, channels_last)


def _first(maxima: list[Tensor], averages: list[Tensor]) -> Tensor:
    if not maxima and not averages:
        raise ValueError("pool3x3_readers_backward: maxima or averages must have a gradient, got none")
    return (maxima or averages)[0]


def _total(gradients: list[Tensor]) -> Tensor | None:
    """Their sum, in the dtype of sums; None of none."""
    if not gradients:
        return None
    acc = accumulate_dtype(gradients[0].dtype)
    return torch.stack([gradient.to(acc) for gradient in gradients]).sum(0)


pool3x3_readers_backward = define_op(
    "pool3x3_readers_backward(Tensor[] maxima, Tensor[] averages, Tensor[] others, Tensor argmax, int height, "
    "int width, int stride, bool channels_last) -> Tensor",
    reference=pool3x3_readers_backward_reference,
    fake=pool3x3_readers_backward_fake,
    **through_reference(pool3x3_readers_backward_reference),
)

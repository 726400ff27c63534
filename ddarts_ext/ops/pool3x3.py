"""3x3 pooling with padding 1: the maximum and the average (padding not counted) from one read of the input.

With window W(o) of output pixel o, cut off at the border, and |W(o)| the pixels left in it::

    maximum[o] = max_{p in W(o)} x[p]            dx[p] += sum_{o: argmax(o) = p} g_max[o]
    average[o] = sum_{p in W(o)} x[p] / |W(o)|   dx[p] += sum_{o: p in W(o)} g_avg[o] / |W(o)|

Kept for the backward is one byte an output: the position of the maximum in its window, 3 * row + column. Ties go
to the first pixel in row order and a NaN wins, the last one if there are several, exactly as in ``torch.max_pool2d``.
The backward gathers: every input pixel collects from the windows it lies in, in a fixed order.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ddarts_ext.ops._checks import accumulate_dtype, check_4d, check_flags, memory_format_of, stride_of
from ddarts_ext.ops._double_backward import through_reference
from ddarts_ext.ops._library import define_op

_OP = "pool3x3"


class Pooled(NamedTuple):
    """What :func:`pool3x3` returns; an output that was not asked for is None."""

    maximum: Tensor | None
    average: Tensor | None


def pool3x3(x: Tensor, *, stride: int = 1, maximum: bool = True, average: bool = True) -> Pooled:
    """Max and/or average pooling, kernel 3x3, padding 1 (D-DARTS's and DARTS's pooling candidates).

    x: [N,C,H,W], H and W at least 1, N may be 0; float64, float32, float16 or bfloat16 (sums in float32, or float64).
    stride: 1 or 2. maximum, average: which outputs to compute, at least one.

    Returns :class:`Pooled` of [N,C,ceil(H/stride),ceil(W/stride)] in the dtype and layout of ``x``. Equal to
    ``F.max_pool2d(x, 3, stride, 1)`` and ``F.avg_pool2d(x, 3, stride, 1, count_include_pad=False)``, with the same
    argmax for ties and NaN. Gradients flow to ``x`` from whichever output has one.

    Raises TypeError for a ``x`` that is not floating, ValueError for wrong shapes, another stride, or no output wanted.
    """
    check_4d(_OP, "x", x)
    if x.shape[2] < 1 or x.shape[3] < 1:
        raise ValueError(f"{_OP}: x must have H and W of at least 1, got {list(x.shape)}")
    stride = stride_of(_OP, stride)
    check_flags(_OP, maximum=maximum, average=average)
    if not (maximum or average):
        raise ValueError(f"{_OP}: maximum or average must be True, got False for both")
    max_out, avg_out, _ = _forward(x, stride, maximum, average)
    return Pooled(max_out if maximum else None, avg_out if average else None)


def pool3x3_reference(x: Tensor, stride: int, maximum: bool, average: bool) -> tuple[Tensor, Tensor, Tensor]:
    """(maximum, average, argmax): argmax uint8 of window positions; what was not asked for is an empty tensor."""
    max_out, avg_out, argmax = pool3x3_fake(x, stride, maximum, average)
    if x.numel() == 0:
        return max_out, avg_out, argmax
    if maximum:
        # contiguous: in channels-last, torch on a GPU gives windows of nothing but -inf a position outside of them
        values, flat = F.max_pool2d(x.contiguous(), 3, stride, 1, return_indices=True)
        rows = torch.arange(values.shape[2], device=x.device)[:, None] * stride - 1
        columns = torch.arange(values.shape[3], device=x.device) * stride - 1
        position = (flat // x.shape[3] - rows) * 3 + (flat % x.shape[3] - columns)
        max_out.copy_(values)
        argmax.copy_(position)
    if average:
        wide = x.contiguous().to(accumulate_dtype(x.dtype))
        avg_out.copy_(F.avg_pool2d(wide, 3, stride, 1, count_include_pad=False))
    return max_out, avg_out, argmax


def pool3x3_fake(x: Tensor, stride: int, maximum: bool, average: bool) -> tuple[Tensor, Tensor, Tensor]:
    size = [x.shape[0], x.shape[1], (x.shape[2] - 1) // stride + 1, (x.shape[3] - 1) // stride + 1]

    def like(asked: bool, dtype: torch.dtype) -> Tensor:
        if not asked:
            return torch.empty([0], dtype=dtype, device=x.device)
        return torch.empty(size, dtype=dtype, device=x.device, memory_format=memory_format_of(x))

    return like(maximum, x.dtype), like(average, x.dtype), like(maximum, torch.uint8)


def pool3x3_backward_reference(
    grad_maximum: Tensor | None,
    grad_average: Tensor | None,
    argmax: Tensor,
    height: int,
    width: int,
    stride: int,
    channels_last: bool,
) -> Tensor:
    """dx [N,C,height,width] from the gradients of the outputs, at least one of which is given."""
    grad = _either(grad_maximum, grad_average)
    acc = accumulate_dtype(grad.dtype)
    n, c, rows, columns = grad.shape
    padded = torch.zeros([n, c, height + 2, width + 2], dtype=acc, device=grad.device)
    if grad_average is not None:
        ones = torch.ones([1, 1, height, width], dtype=acc, device=grad.device)
        counts = F.avg_pool2d(ones, 3, stride, 1, divisor_override=1)
        share = grad_average.to(acc) / counts
    for position in range(9):
        row, column = divmod(position, 3)
        there = padded[:, :, row : row + stride * rows : stride, column : column + stride * columns : stride]
        there = there[:, :, :rows, :columns]
        if grad_maximum is not None:
            there += torch.where(argmax == position, grad_maximum.to(acc), 0)
        if grad_average is not None:
            there += share
    dx = pool3x3_backward_fake(grad_maximum, grad_average, argmax, height, width, stride, channels_last)
    return dx.copy_(padded[:, :, 1:-1, 1:-1])


def pool3x3_backward_fake(
    grad_maximum: Tensor | None,
    grad_average: Tensor | None,
    argmax: Tensor,
    height: int,
    width: int,
    stride: int,
    channels_last: bool,
) -> Tensor:
    grad = _either(grad_maximum, grad_average)
    form = torch.channels_last if channels_last else torch.contiguous_format
    return torch.empty([*grad.shape[:2], height, width], dtype=grad.dtype, device=grad.device, memory_format=form)


def _either(grad_maximum: Tensor | None, grad_average: Tensor | None) -> Tensor:
    grad = grad_maximum if grad_maximum is not None else grad_average
    if grad is None:
        raise ValueError(f"{_OP}_backward: grad_maximum or grad_average must be a tensor, got None for both")
    return grad


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
    x, ctx.stride, ctx.maximum, ctx.average = inputs
    ctx.height, ctx.width = x.shape[2], x.shape[3]
    ctx.channels_last = memory_format_of(x) == torch.channels_last
    ctx.save_for_backward(output[2])
    ctx.set_materialize_grads(False)


def _autograd(ctx: Any, grad_maximum: Tensor | None, grad_average: Tensor | None, _: Any) -> tuple[Any, ...]:
    # The empty tensor that stands for an output not asked for may get a gradient of its own: nothing comes from it.
    grad_maximum = grad_maximum if ctx.maximum else None
    grad_average = grad_average if ctx.average else None
    if grad_maximum is None and grad_average is None:
        return None, None, None, None
    (argmax,) = ctx.saved_tensors
    dx = _backward(grad_maximum, grad_average, argmax, ctx.height, ctx.width, ctx.stride, ctx.channels_last)
    return dx, None, None, None


_backward = define_op(
    "pool3x3_backward(Tensor? grad_maximum, Tensor? grad_average, Tensor argmax, int height, int width, "
    "int stride, bool channels_last) -> Tensor",
    reference=pool3x3_backward_reference,
    fake=pool3x3_backward_fake,
    **through_reference(pool3x3_backward_reference),
)
_forward = define_op(
    "pool3x3(Tensor x, int stride, bool maximum, bool average) -> (Tensor, Tensor, Tensor)",
    reference=pool3x3_reference,
    fake=pool3x3_fake,
    backward=_autograd,
    setup_context=_setup_context,
)

"""``relu_pointwise_conv2d``: ReLU, then 1x1 convolutions of every ``stride``-th pixel, side by side.

The preprocessing of a cell's inputs (``ReLUConvBN`` with a 1x1 kernel) and, with two weights at stride 2, the
factorised reduction (DARTS, appendix A.1). The ReLU'd tensor is neither stored by the forward nor kept for
the backward.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ddarts_ext.ops import _checks
from ddarts_ext.ops._double_backward import through_reference
from ddarts_ext.ops._forward_mode import check_composed
from ddarts_ext.ops._library import define_op
from ddarts_ext.ops._pointwise import in_channels_last, in_last, pointwise
from ddarts_ext.ops.relu_depthwise_conv2d import autocast

_OP = "relu_pointwise_conv2d"
WIDEST = 512, 128
"""Channels in and out up to which there is one kernel off the CPU; beyond, the library's products are worth a ReLU."""


def relu_pointwise_conv2d(x: Tensor, weights: Sequence[Tensor], *, stride: int = 1) -> Tensor:
    """``cat([conv2d(relu(x)[:, :, f::stride, f::stride], w) for f, w in enumerate(weights)], 1)``.

    x: [N,C,H,W] of any floating dtype. weights: up to ``stride`` of them, [Co_f,C,1,1]. stride: 1 or 2. Where H or W is
    odd, weight 1 reads zeros past the border (AutoDL's padding of the factorised reduction).

    Returns [N,sum Co_f,ceil(H/stride),ceil(W/stride)] in the dtype and layout of x; sums are in float32 (float64 for
    float64); factors on a GPU as in :func:`relu_separable_conv2d`. Gradients: x and weights, any number of times;
    deterministic. Off the CPU more than 512 channels in or 128 out are the library's ReLU and 1x1 convolution. Raises
    ValueError for shapes and settings outside these, TypeError for dtypes that are not floating.
    """
    weights, stride = _checks.listed(_OP, "weights", weights), _checks.stride_of(_OP, stride)
    _check(x, weights, stride)
    x = autocast(x)
    if x.device.type != "cpu" and (x.shape[1] > WIDEST[0] or max(weight.shape[0] for weight in weights) > WIDEST[1]):
        check_composed(_OP)
        return composed(x, weights, stride)
    out: Tensor = _forward(x, weights, stride, _checks.tf32_allowed(x))
    return out


def composed(x: Tensor, weights: list[Tensor], stride: int) -> Tensor:
    """The same by the library."""
    if in_channels_last(x):  # cut as [N,H,W,C]: the gradient of a slice is dense in the layout of what is cut
        parts = _parts(x.permute(0, 2, 3, 1), weights, stride, channels=3)
        last = [in_last(part, weight) for part, weight in zip(parts, weights, strict=True)]
        return (last[0] if len(last) == 1 else torch.cat(last, 3)).permute(0, 3, 1, 2)
    found = [pointwise(part, weight) for part, weight in zip(_parts(x, weights, stride), weights, strict=True)]
    return found[0] if len(found) == 1 else torch.cat(found, 1)


def _parts(x: Tensor, weights: list[Tensor], stride: int, channels: int = 1) -> list[Tensor]:
    """relu(x) as each weight reads it, all of one size; channels: which axis they are, 1 or 3."""
    if stride == 1:
        return [x.relu()]
    first = 2 if channels == 1 else 1
    rows, columns = (x.shape[first] + 1) // 2, (x.shape[first + 1] + 1) // 2
    parts = []
    for f in range(len(weights)):
        part = (x[:, :, f::2, f::2] if channels == 1 else x[:, f::2, f::2]).relu()
        missing = [0, columns - part.shape[first + 1], 0, rows - part.shape[first]]
        missing = missing if channels == 1 else [0, 0, *missing]
        parts.append(F.pad(part, missing) if any(missing) else part)
    return parts


def relu_pointwise_conv2d_reference(x: Tensor, weights: list[Tensor], stride: int, tf32: bool = False) -> Tensor:
    acc = _checks.accumulate_dtype(x.dtype)
    parts = zip(_parts(x.to(acc), weights, stride), weights, strict=True)
    out = torch.cat([F.conv2d(part, weight.to(acc)) for part, weight in parts], 1).to(x.dtype)
    return out.contiguous(memory_format=_checks.memory_format_of(x))


def relu_pointwise_conv2d_backward_reference(
    grad: Tensor,
    x: Tensor,
    weights: list[Tensor],
    stride: int,
    input_grad: bool,
    weights_grad: bool,
    tf32: bool = False,
) -> list[Tensor]:
    """The gradients of x and of the weights, those that are wanted."""
    acc = _checks.accumulate_dtype(x.dtype)
    incoming = torch.split(grad.to(acc), [weight.shape[0] for weight in weights], 1)
    parts = _parts(x.to(acc), weights, stride)
    found = []
    if input_grad:
        dx = torch.zeros_like(x, dtype=acc)
        for f, (g, weight) in enumerate(zip(incoming, weights, strict=True)):
            there = dx[:, :, f::stride, f::stride]
            there += torch.einsum("nohw,oi->nihw", g, weight.to(acc).flatten(1))[
                :, :, : there.shape[2], : there.shape[3]
            ]
        dx = dx.masked_fill(x <= 0, 0)
        found.append(dx.to(x.dtype).contiguous(memory_format=_checks.memory_format_of(x)))
    if weights_grad:
        for g, part, weight in zip(incoming, parts, weights, strict=True):
            product = torch.einsum("nohw,nihw->oi", g, part)[:, :, None, None]
            found.append(product.to(weight.dtype).contiguous())
    return found


def _fake(x: Tensor, weights: list[Tensor], stride: int, tf32: bool = False) -> Tensor:
    n, _, h, w = x.shape
    size = (n, sum(weight.shape[0] for weight in weights), (h + stride - 1) // stride, (w + stride - 1) // stride)
    return torch.empty(size, dtype=x.dtype, device=x.device, memory_format=_checks.memory_format_of(x))


def _fake_backward(grad: Tensor, x: Tensor, weights: list[Tensor], stride: int, *wanted: bool) -> list[Tensor]:
    input_grad, weights_grad = wanted[:2]
    found = []
    if input_grad:
        found.append(torch.empty(x.shape, dtype=x.dtype, device=x.device, memory_format=_checks.memory_format_of(x)))
    return found + [weight.new_empty(weight.shape) for weight in weights if weights_grad]


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, weights, ctx.stride, ctx.tf32 = inputs
    ctx.save_for_backward(x, *weights)


def _backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    x, *weights = ctx.saved_tensors
    input_grad, weights_grad = ctx.needs_input_grad[0], any(ctx.needs_input_grad[1])
    found = _backward_op(grad, x, weights, ctx.stride, input_grad, weights_grad, ctx.tf32)
    dx = found.pop(0) if input_grad else None
    return dx, found if weights_grad else [None] * len(weights), None, None


def _check(x: Tensor, weights: list[Tensor], stride: int) -> None:
    _checks.check_image(_OP, "x", x)
    c = x.shape[1]
    if not 1 <= len(weights) <= stride:
        raise ValueError(f"{_OP}: weights must be 1 to stride={stride} tensors, got {len(weights)}")
    for f, weight in enumerate(weights):
        _checks.check_floating(_OP, f"weights[{f}]", weight)
        _checks.check_same_device(_OP, f"weights[{f}]", weight, x.device)
        if weight.dim() != 4 or not weight.shape[0] or tuple(weight.shape[1:]) != (c, 1, 1):
            raise ValueError(f"{_OP}: weights[{f}] must be [Co,C,1,1]=[Co,{c},1,1], got {list(weight.shape)}")


_forward = define_op(
    "relu_pointwise_conv2d(Tensor x, Tensor[] weights, int stride, bool tf32=False) -> Tensor",
    reference=relu_pointwise_conv2d_reference,
    fake=_fake,
    backward=_backward,
    setup_context=_setup_context,
)
_backward_op = define_op(
    "relu_pointwise_conv2d_backward(Tensor grad, Tensor x, Tensor[] weights, int stride, bool input_grad, "
    "bool weights_grad, bool tf32=False) -> Tensor[]",
    reference=relu_pointwise_conv2d_backward_reference,
    fake=_fake_backward,
    **through_reference(relu_pointwise_conv2d_backward_reference),
)

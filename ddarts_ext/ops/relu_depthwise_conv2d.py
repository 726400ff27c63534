"""``relu_depthwise_conv2d``: ReLU, or ReLU of a batch norm, then depthwise convolutions of the same input.

The first half of separable and dilated convolutions (DARTS, arXiv:1806.09055, section 3.1): every operation that
reads a
state begins with the ReLU of that state and a depthwise filter of its own, so one call serves all of them from one
read.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ddarts_ext.ops import _checks
from ddarts_ext.ops._double_backward import through_reference
from ddarts_ext.ops._library import define_op
from ddarts_ext.ops.grouped_batch_norm import batch_statistics_of

_OP = "relu_depthwise_conv2d"
KERNEL_SIZES = (3, 5, 7)


class ReluDepthwise(NamedTuple):
    """outputs: one [G*B,C,ceil(H/stride),ceil(W/stride)] per filter. mean, rstd: [G,C], or [0,C] without a norm."""

    outputs: list[Tensor]
    mean: Tensor
    rstd: Tensor


def relu_depthwise_conv2d(
    x: Tensor,
    weights: Sequence[Tensor],
    *,
    dilations: Sequence[int],
    stride: int = 1,
    normalize: bool = False,
    mean: Tensor | None = None,
    rstd: Tensor | None = None,
    groups: int = 1,
    eps: float = 1e-5,
) -> ReluDepthwise:
    """``outputs[f] = conv2d(relu(z), weights[f], stride, padding=d(k-1)/2, dilation=d, groups=C)`` for all filters at
    once.

    z is ``x``, or with ``normalize`` ``(x - mean) * rstd``: the batch norm without affine that precedes the ReLU
    inside a separable convolution. Its statistics are those of each of ``groups`` equal, contiguous parts of the batch,
    unless ``mean`` and ``rstd`` are given (constants: they get no gradient).

    x: [G*B,C,H,W] of any floating dtype and layout; outputs have its dtype, and its layout where that is contiguous or
    channels-last. weights: [C,1,k,k] with k of 3, 5, 7. dilations: 1 or 2, one a filter. stride: 1 or 2. mean, rstd:
    [1 or G,C]. Sums and statistics are in float32 (float64 for float64). Gradients: x (through batch statistics too)
    and weights, any number of times; deterministic. Under autocast x is cast as by
    ``conv2d``; weights are read as they are.

    Raises ValueError for shapes and settings outside these, TypeError for dtypes that are not floating.
    """
    weights, dilations = _checks.listed(_OP, "weights", weights), _checks.integers(_OP, "dilations", dilations)
    stride, groups = _checks.stride_of(_OP, stride), _checks.integer(_OP, "groups", groups)
    check_filters(_OP, "x", x, weights, dilations, groups)
    check_statistics(_OP, x, normalize, mean, rstd, groups, [x.shape[1]], "C")
    _checks.check_eps(_OP, eps)
    return ReluDepthwise(*_forward(autocast(x), weights, dilations, stride, normalize, mean, rstd, groups, eps))


def relu_depthwise_conv2d_reference(
    x: Tensor, weights: list[Tensor], *settings: Any
) -> tuple[list[Tensor], Tensor, Tensor]:
    """:func:`filtered`, rounded to the dtype of x and in its layout."""
    outputs, mean, rstd = filtered(x, weights, *settings)
    layout = _checks.memory_format_of(x)
    return [out.to(x.dtype).contiguous(memory_format=layout) for out in outputs], mean, rstd


def filtered(
    x: Tensor,
    weights: list[Tensor],
    dilations: list[int],
    stride: int,
    normalize: bool,
    mean: Tensor | None,
    rstd: Tensor | None,
    groups: int,
    eps: float,
) -> tuple[list[Tensor], Tensor, Tensor]:
    """The reference before its outputs are rounded to the dtype of x."""
    acc = _checks.accumulate_dtype(x.dtype)
    z = x.to(acc)
    channels = x.shape[1]
    if not normalize:
        mean, rstd = z.new_empty((0, channels)), z.new_empty((0, channels))
    else:
        if mean is None or rstd is None:
            mean, rstd = batch_statistics_of(_grouped(z, groups), eps)
        else:
            mean, rstd = (s.to(acc).expand(groups, channels).clone() for s in (mean, rstd))
        z = _normalized(z, mean, rstd, groups)
    return convolved(z.relu(), weights, dilations, stride), mean, rstd


def convolved(activation: Tensor, weights: list[Tensor], dilations: list[int], stride: int) -> list[Tensor]:
    """The depthwise convolutions of the reference."""
    return [
        F.conv2d(activation, w.to(activation.dtype), None, stride, d * (w.shape[-1] - 1) // 2, d, activation.shape[1])
        for w, d in zip(weights, dilations, strict=True)
    ]


def normalized_input(
    x: Tensor, normalize: bool, mean: Tensor, rstd: Tensor, batch_statistics: bool, groups: int
) -> tuple[Tensor, Tensor]:
    """What the ReLU reads, and rstd, in the accumulation type; in backward, from the statistics of the forward."""
    z = x.to(_checks.accumulate_dtype(x.dtype))
    if not normalize:
        return z, rstd
    if batch_statistics and z.numel() > 0:
        # Functions of x, for the second derivative: same values, eps recovered from rstd.
        variance, mean = torch.var_mean(_grouped(z, groups), (1, 3, 4), correction=0)
        rstd = (variance + (rstd**-2 - variance).detach()).rsqrt()
    return _normalized(z, mean, rstd, groups), rstd


def relu_depthwise_conv2d_backward_reference(
    grads: list[Tensor],
    x: Tensor,
    weights: list[Tensor],
    dilations: list[int],
    stride: int,
    normalize: bool,
    mean: Tensor,
    rstd: Tensor,
    batch_statistics: bool,
    groups: int,
    input_grad: bool,
    weights_grad: bool,
) -> tuple[Tensor, list[Tensor]]:
    acc = _checks.accumulate_dtype(x.dtype)
    z, rstd = normalized_input(x, normalize, mean, rstd, batch_statistics, groups)
    activation = z.relu()
    dz, dweights = torch.zeros_like(z), []
    for grad, w, d in zip(grads, weights, dilations, strict=True):
        padding = d * (w.shape[-1] - 1) // 2
        both = torch.ops.aten.convolution_backward(
            grad.to(acc), activation, w.to(acc), None, [stride] * 2, [padding] * 2, [d] * 2, False, [0, 0], x.shape[1],
            [input_grad, weights_grad, False],
        )  # fmt: skip
        if input_grad:
            dz = dz + both[0]
        if weights_grad:
            dweights.append(both[1].to(w.dtype).contiguous())
    if not input_grad:
        return x.new_empty(0), dweights
    dz = dz.masked_fill(z <= 0, 0)
    if normalize:
        grouped, scale = _grouped(dz, groups), rstd[:, None, :, None, None]
        if batch_statistics:
            xhat = _grouped(z, groups)
            grouped = grouped - grouped.mean((1, 3, 4), True) - xhat * (grouped * xhat).mean((1, 3, 4), True)
        dz = (grouped * scale).flatten(0, 1)
    return dz.to(x.dtype).contiguous(memory_format=_checks.memory_format_of(x)), dweights


def _grouped(x: Tensor, groups: int) -> Tensor:
    grouped: Tensor = x.unflatten(0, (groups, x.shape[0] // groups))  # type: ignore[no-untyped-call]
    return grouped


def _normalized(x: Tensor, mean: Tensor, rstd: Tensor, groups: int) -> Tensor:
    shifted = _grouped(x, groups) - mean[:, None, :, None, None]
    return (shifted * rstd[:, None, :, None, None]).flatten(0, 1)


def _fake(
    x: Tensor,
    weights: list[Tensor],
    dilations: list[int],
    stride: int,
    normalize: bool,
    mean: Tensor | None,
    rstd: Tensor | None,
    groups: int,
    eps: float,
) -> tuple[list[Tensor], Tensor, Tensor]:
    n, c, h, w = x.shape
    size, layout = (n, c, (h + stride - 1) // stride, (w + stride - 1) // stride), _checks.memory_format_of(x)
    outputs = [torch.empty(size, dtype=x.dtype, device=x.device, memory_format=layout) for _ in weights]
    rows = groups if normalize else 0
    statistics = [x.new_empty((rows, c), dtype=_checks.accumulate_dtype(x.dtype)) for _ in range(2)]
    return outputs, statistics[0], statistics[1]


def _fake_backward(grads: list[Tensor], x: Tensor, weights: list[Tensor], *args: Any) -> tuple[Tensor, list[Tensor]]:
    input_grad, weights_grad = args[-2:]
    layout = _checks.memory_format_of(x)
    dx = torch.empty(x.shape, dtype=x.dtype, device=x.device, memory_format=layout) if input_grad else x.new_empty(0)
    return dx, [w.new_empty(w.shape) for w in weights] if weights_grad else []


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    x, weights, ctx.dilations, ctx.stride, ctx.normalize, mean, _, ctx.groups, _ = inputs
    ctx.batch_statistics = ctx.normalize and mean is None
    ctx.mark_non_differentiable(output[1], output[2])
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(x, output[1], output[2], *weights)


def _backward(ctx: Any, grads: list[Tensor | None], *_: Any) -> tuple[Any, ...]:
    x, mean, rstd, *weights = ctx.saved_tensors
    rest = [None] * 7
    used = [f for f, grad in enumerate(grads) if grad is not None]
    dweights: list[Tensor | None] = [None] * len(weights)
    if not used:
        return None, dweights, *rest
    input_grad, weights_grad = ctx.needs_input_grad[0], any(ctx.needs_input_grad[1])
    dx, found = _backward_op(
        [grads[f] for f in used], x, [weights[f] for f in used], [ctx.dilations[f] for f in used],
        ctx.stride, ctx.normalize, mean, rstd, ctx.batch_statistics, ctx.groups, input_grad, weights_grad,
    )  # fmt: skip
    for f, gradient in zip(used, found, strict=False):
        dweights[f] = gradient
    return dx if input_grad else None, dweights, *rest


def check_filters(
    op: str,
    name: str,
    x: Tensor,
    weights: list[Tensor],
    dilations: list[int],
    groups: int,
    filters: str = "weights",
) -> None:
    """Raise unless the depthwise filters can read ``x``; the message calls them ``filters`` and x ``name``."""
    _checks.check_image(op, name, x)
    c = x.shape[1]
    _checks.check_groups(op, name, x.shape[0], groups)
    if not weights:
        raise ValueError(f"{op}: {filters} must be one or more filters, got none")
    device = x.device
    for f, weight in enumerate(weights):
        k = weight.shape[-1] if isinstance(weight, Tensor) and weight.dim() == 4 else 0
        if k in KERNEL_SIZES and _checks.fits(weight, (c, 1, k, k), device):
            continue
        _checks.check_floating(op, f"{filters}[{f}]", weight)
        _checks.check_same_device(op, f"{filters}[{f}]", weight, device)
        expected = f"[C,1,k,k]=[{c},1,k,k] with k of 3, 5, 7"
        raise ValueError(f"{op}: {filters}[{f}] must be {expected}, got {list(weight.shape)}")
    if len(dilations) != len(weights) or not {1, 2}.issuperset(dilations):
        raise ValueError(f"{op}: dilations must be {len(weights)} values of 1 or 2, got {dilations}")


def check_statistics(
    op: str,
    x: Tensor,
    normalize: bool,
    mean: Tensor | None,
    rstd: Tensor | None,
    groups: int,
    rest: Sequence[int],
    letters: str,
) -> None:
    """Raise unless the statistics are those of a norm of ``x``; arguments as of ``check_given_statistics``."""
    _checks.check_flags(op, normalize=normalize)
    if not normalize and (mean is not None or rstd is not None):
        raise ValueError(f"{op}: mean and rstd must be None where normalize is False, got tensors")
    _checks.check_given_statistics(op, mean, rstd, groups, rest, letters)
    for name, statistic in (("mean", mean), ("rstd", rstd)):
        if statistic is not None:
            _checks.check_same_device(op, name, statistic, x.device)
    if normalize and mean is None:
        _checks.check_batch_values(op, x.shape[0] // groups * x.shape[2] * x.shape[3], x.shape)


def autocast(x: Tensor) -> Tensor:
    """An input as autocast hands it to ``conv2d``. Filters are not cast: kernels read them as they are."""
    device = x.device.type
    if not _checks.autocasts(device) or x.dtype == torch.float64:
        return x
    return x.to(torch.get_autocast_dtype(device))


_forward = define_op(
    "relu_depthwise_conv2d(Tensor x, Tensor[] weights, int[] dilations, int stride, bool normalize, Tensor? mean, "
    "Tensor? rstd, int groups, float eps) -> (Tensor[], Tensor, Tensor)",
    reference=relu_depthwise_conv2d_reference,
    fake=_fake,
    backward=_backward,
    setup_context=_setup_context,
)
_backward_op = define_op(
    "relu_depthwise_conv2d_backward(Tensor[] grads, Tensor x, Tensor[] weights, int[] dilations, int stride, "
    "bool normalize, Tensor mean, Tensor rstd, bool batch_statistics, int groups, bool input_grad, "
    "bool weights_grad) -> (Tensor, Tensor[])",
    reference=relu_depthwise_conv2d_backward_reference,
    fake=_fake_backward,
    **through_reference(relu_depthwise_conv2d_backward_reference),
)

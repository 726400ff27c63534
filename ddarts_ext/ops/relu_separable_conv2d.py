"""``relu_separable_conv2d``: ReLU (of a batch norm), depthwise convolutions, and after each a 1x1 convolution.

One stage of the separable and dilated convolutions of DARTS (arXiv:1806.09055, section 3.1; the layers: its code), for
all ops that run at the same moment. What lies between the depthwise and the pointwise convolution is neither stored by
the forward nor kept for the backward, which computes it anew: half of a supernet's activations are of this kind.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ddarts_ext.ops import _checks
from ddarts_ext.ops._double_backward import through_reference
from ddarts_ext.ops._forward_mode import check_composed
from ddarts_ext.ops._library import define_op
from ddarts_ext.ops._pointwise import pointwise as mix
from ddarts_ext.ops.relu_depthwise_conv2d import (
    ReluDepthwise,
    autocast,
    check_filters,
    check_statistics,
    convolved,
    filtered,
    normalized_input,
    relu_depthwise_conv2d,
    relu_depthwise_conv2d_backward_reference,
)

_OP = "relu_separable_conv2d"
WIDEST = 128
"""Channels in or out up to which there is one kernel off the CPU; beyond, the library's products are worth a pass."""


def relu_separable_conv2d(
    inputs: Sequence[Tensor],
    weights: Sequence[Tensor],
    pointwise: Sequence[Tensor],
    *,
    sources: Sequence[int] | None = None,
    dilations: Sequence[int],
    stride: int = 1,
    normalize: bool = False,
    mean: Tensor | None = None,
    rstd: Tensor | None = None,
    groups: int = 1,
    eps: float = 1e-5,
) -> ReluDepthwise:
    """``outputs[f] = conv2d(y, pointwise[f])`` where y is what :func:`relu_depthwise_conv2d` makes of
    ``inputs[sources[f]]`` and ``weights[f]``.

    inputs: I tensors [G*B,C,H,W] of one floating dtype; outputs have their dtype and the layout of the input they come
    from. weights: F depthwise filters [C,1,k,k]. pointwise: F filters [Co,C,1,1] with one Co. sources: which input each
    filter reads; by default all read the only input, or each its own. dilations, stride, normalize, groups, eps: as
    there. mean, rstd: [1 or G,I,C], and [G,I,C] ([0,I,C] without a norm) in the result. Outputs:
    [G*B,Co,ceil(H/stride),ceil(W/stride)].

    Sums are in float32 (float64 for float64), and y is not rounded to the dtype of the inputs. On a GPU factors of
    products over channels (y, pointwise, gradients) are rounded to TF32, ten bits of fraction: for float16 and
    bfloat16, and for float32 if torch is set so for convolutions (``torch.backends.cudnn``). Gradients: inputs, weights
    and pointwise, any number of times; deterministic. Off the CPU images of more than 128 channels go through
    :func:`relu_depthwise_conv2d` and the library's 1x1 convolution. Raises ValueError for shapes and settings outside
    these, TypeError for dtypes that are not floating.
    """
    inputs, weights = _checks.listed(_OP, "inputs", inputs), _checks.listed(_OP, "weights", weights)
    pointwise = _checks.listed(_OP, "pointwise", pointwise)
    if sources is None:
        sources = range(len(weights)) if len(inputs) > 1 else [0] * len(weights)
    sources = _checks.integers(_OP, "sources", sources)
    dilations = _checks.integers(_OP, "dilations", dilations)
    stride, groups = _checks.stride_of(_OP, stride), _checks.integer(_OP, "groups", groups)
    _check(inputs, weights, pointwise, sources, dilations, normalize, mean, rstd, groups)
    _checks.check_eps(_OP, eps)
    if inputs[0].device.type != "cpu" and max(pointwise[0].shape[:2]) > WIDEST:
        check_composed(_OP)
        return composed(inputs, weights, pointwise, sources, dilations, stride, normalize, mean, rstd, groups, eps)
    inputs = [autocast(x) for x in inputs]
    settings = sources, dilations, stride, normalize, mean, rstd, groups, eps, _checks.tf32_allowed(inputs[0])
    return ReluDepthwise(*_forward(inputs, weights, pointwise, *settings))


def composed(
    inputs: list[Tensor],
    weights: list[Tensor],
    pointwise: list[Tensor],
    sources: list[int],
    dilations: list[int],
    stride: int,
    normalize: bool,
    mean: Tensor | None,
    rstd: Tensor | None,
    groups: int,
    eps: float,
) -> ReluDepthwise:
    """The same by :func:`relu_depthwise_conv2d` and the library's 1x1 convolution."""

    def filter_one(x: Tensor, own: list[Tensor], steps: list[int], *statistics: Tensor | None) -> ReluDepthwise:
        return relu_depthwise_conv2d(
            x, own, dilations=steps, stride=stride, normalize=normalize, mean=statistics[0], rstd=statistics[1],
            groups=groups, eps=eps,
        )  # fmt: skip

    found = _each_input(inputs, weights, sources, dilations, mean, rstd, filter_one)
    return found._replace(outputs=[mix(y, weight) for y, weight in zip(found.outputs, pointwise, strict=True)])


def _each_input(
    inputs: list[Tensor],
    weights: list[Tensor],
    sources: list[int],
    dilations: list[int],
    mean: Tensor | None,
    rstd: Tensor | None,
    filter_one: Callable[..., tuple[list[Tensor], Tensor, Tensor]],
) -> ReluDepthwise:
    """What ``filter_one(x, weights, dilations, mean, rstd)`` makes of every input with the filters that read it."""
    outputs: dict[int, Tensor] = {}
    statistics = []
    for i, x in enumerate(inputs):
        read = _readers(sources, i)
        given = [None if table is None else table[:, i] for table in (mean, rstd)]
        found, *rows = filter_one(x, [weights[f] for f in read], [dilations[f] for f in read], *given)
        statistics.append(rows)
        outputs |= zip(read, found, strict=True)
    means, rstds = (torch.stack(rows, 1) for rows in zip(*statistics, strict=True))
    return ReluDepthwise([outputs[f] for f in range(len(weights))], means, rstds)


def _readers(sources: list[int], source: int) -> list[int]:
    """The filters that read an input."""
    return [f for f, index in enumerate(sources) if index == source]


def relu_separable_conv2d_reference(
    inputs: list[Tensor],
    weights: list[Tensor],
    pointwise: list[Tensor],
    sources: list[int],
    dilations: list[int],
    stride: int,
    normalize: bool,
    mean: Tensor | None,
    rstd: Tensor | None,
    groups: int,
    eps: float,
    tf32: bool = False,
) -> tuple[list[Tensor], Tensor, Tensor]:
    def filter_one(x: Tensor, own: list[Tensor], steps: list[int], *statistics: Tensor | None) -> Any:
        return filtered(x, own, steps, stride, normalize, *statistics, groups, eps)  # type: ignore[call-arg, arg-type]

    found = _each_input(inputs, weights, sources, dilations, mean, rstd, filter_one)
    outputs = []
    for y, weight, source in zip(found.outputs, pointwise, sources, strict=True):
        x = inputs[source]
        out = F.conv2d(y, weight.to(y.dtype)).to(x.dtype)
        outputs.append(out.contiguous(memory_format=_checks.memory_format_of(x)))
    return outputs, found.mean, found.rstd


def relu_separable_conv2d_backward_reference(
    grads: list[Tensor],
    inputs: list[Tensor],
    weights: list[Tensor],
    pointwise: list[Tensor],
    sources: list[int],
    dilations: list[int],
    stride: int,
    normalize: bool,
    mean: Tensor,
    rstd: Tensor,
    batch_statistics: bool,
    groups: int,
    input_grad: bool,
    weights_grad: bool,
    tf32: bool = False,
) -> list[Tensor]:
    """The gradients of the inputs, of the depthwise filters and of the pointwise ones, those that are wanted."""
    acc = _checks.accumulate_dtype(inputs[0].dtype)
    # In the accumulation type throughout: what lies between the two convolutions is never rounded.
    outer = [grad.to(acc) for grad in grads]
    inner = [
        torch.einsum("nohw,oi->nihw", g, weight.to(acc).flatten(1)) for g, weight in zip(outer, pointwise, strict=True)
    ]
    filters = [weight.to(acc) for weight in weights]
    d_inputs: list[Tensor] = []
    d_weights: dict[int, Tensor] = {}
    d_pointwise: dict[int, Tensor] = {}
    for i, x in enumerate(inputs):
        read = _readers(sources, i)
        own, steps = [filters[f] for f in read], [dilations[f] for f in read]
        dx, found = relu_depthwise_conv2d_backward_reference(
            [inner[f] for f in read], x.to(acc), own, steps, stride, normalize, mean[:, i], rstd[:, i],
            batch_statistics, groups, input_grad, weights_grad,
        )  # fmt: skip
        if input_grad:
            d_inputs.append(dx.to(x.dtype).contiguous(memory_format=_checks.memory_format_of(x)))
        if weights_grad:
            z, _ = normalized_input(x, normalize, mean[:, i], rstd[:, i], batch_statistics, groups)
            for f, dw, y in zip(read, found, convolved(z.relu(), own, steps, stride), strict=True):
                d_weights[f] = dw.to(weights[f].dtype)
                product = torch.einsum("nohw,nihw->oi", outer[f], y)[:, :, None, None]
                d_pointwise[f] = product.to(pointwise[f].dtype).contiguous()
    return d_inputs + [table[f] for table in (d_weights, d_pointwise) for f in range(len(table))]


def _fake(
    inputs: list[Tensor],
    weights: list[Tensor],
    pointwise: list[Tensor],
    sources: list[int],
    dilations: list[int],
    stride: int,
    normalize: bool,
    mean: Tensor | None,
    rstd: Tensor | None,
    groups: int,
    eps: float,
    tf32: bool = False,
) -> tuple[list[Tensor], Tensor, Tensor]:
    first = inputs[0]
    n, c, h, w = first.shape
    size = (n, pointwise[0].shape[0], (h + stride - 1) // stride, (w + stride - 1) // stride)
    outputs = [
        torch.empty(
            size, dtype=first.dtype, device=first.device, memory_format=_checks.memory_format_of(inputs[source])
        )
        for source in sources
    ]
    shape = (groups if normalize else 0, len(inputs), c)
    statistics = [first.new_empty(shape, dtype=_checks.accumulate_dtype(first.dtype)) for _ in range(2)]
    return outputs, statistics[0], statistics[1]


def _fake_backward(
    grads: list[Tensor], inputs: list[Tensor], weights: list[Tensor], pointwise: list[Tensor], *settings: Any
) -> list[Tensor]:
    input_grad, weights_grad = settings[8:10]
    found = []
    if input_grad:
        for x in inputs:
            layout = _checks.memory_format_of(x)
            found.append(torch.empty(x.shape, dtype=x.dtype, device=x.device, memory_format=layout))
    if weights_grad:
        found += _side_by_side([*weights, *pointwise])
    return found


def _side_by_side(weights: list[Tensor]) -> list[Tensor]:
    """New tensors like these; on a GPU they lie in one piece of memory, as far as that may be told."""
    first = weights[0]
    if type(first) not in (Tensor, torch.nn.Parameter) or any(weight.dtype != first.dtype for weight in weights):
        return [weight.new_empty(weight.shape) for weight in weights]
    sizes = [weight.numel() for weight in weights]
    rows = torch.split(first.new_empty(sum(sizes)), sizes)
    return [row.view(weight.shape) for row, weight in zip(rows, weights, strict=True)]


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    xs, weights, pointwise, ctx.sources, ctx.dilations, ctx.stride, ctx.normalize, mean, *rest = inputs
    _, ctx.groups, _, ctx.tf32 = rest
    ctx.batch_statistics = ctx.normalize and mean is None
    ctx.mark_non_differentiable(output[1], output[2])
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(output[1], output[2], *xs, *weights, *pointwise)


def _backward(ctx: Any, grads: list[Tensor | None], *_: Any) -> tuple[Any, ...]:
    mean, rstd, *saved = ctx.saved_tensors
    filters = len(grads)
    count = len(saved) - 2 * filters
    used = [f for f, grad in enumerate(grads) if grad is not None]
    found: list[Tensor | None] = [None] * len(saved)
    if used:
        input_grad, weights_grad = any(ctx.needs_input_grad[0]), any(map(any, ctx.needs_input_grad[1:3]))
        gradients = _backward_op(
            [grads[f] for f in used], saved[:count], [saved[count + f] for f in used],
            [saved[count + filters + f] for f in used], [ctx.sources[f] for f in used],
            [ctx.dilations[f] for f in used], ctx.stride, ctx.normalize, mean, rstd, ctx.batch_statistics, ctx.groups,
            input_grad, weights_grad, ctx.tf32,
        )  # fmt: skip
        slots = list(range(count)) if input_grad else []
        if weights_grad:
            slots += [count + f for f in used] + [count + filters + f for f in used]
        for slot, gradient in zip(slots, gradients, strict=True):
            found[slot] = gradient
    return found[:count], found[count : count + filters], found[count + filters :], *[None] * 9


def _check(
    inputs: list[Tensor],
    weights: list[Tensor],
    pointwise: list[Tensor],
    sources: list[int],
    dilations: list[int],
    normalize: bool,
    mean: Tensor | None,
    rstd: Tensor | None,
    groups: int,
) -> None:
    if not inputs:
        raise ValueError(f"{_OP}: inputs must have at least one tensor, got none")
    x = inputs[0]
    check_filters(_OP, "inputs[0]", x, weights, dilations, groups)
    for i, other in enumerate(inputs):
        if _checks.fits(other, x.shape, x.device) and other.dtype == x.dtype:
            continue
        _checks.check_floating(_OP, f"inputs[{i}]", other)
        if other.shape != x.shape or other.dtype != x.dtype or other.device != x.device:
            first, got = (f"{list(t.shape)} {_checks.dtype_name(t.dtype)} on {t.device}" for t in (x, other))
            raise ValueError(f"{_OP}: inputs[{i}] must be {first}, got {got}")
    if len(pointwise) != len(weights):
        raise ValueError(f"{_OP}: pointwise must be one a filter, {len(weights)}, got {len(pointwise)}")
    if len(sources) != len(weights) or set(sources) != set(range(len(inputs))):
        raise ValueError(
            f"{_OP}: sources must be {len(weights)} indices that name each of {len(inputs)} inputs, got {sources}"
        )
    _checks.check_floating(_OP, "pointwise[0]", pointwise[0])
    shape = (pointwise[0].shape[0] if pointwise[0].dim() else 0, x.shape[1], 1, 1)
    _checks.check_each(_OP, "pointwise", pointwise, shape, "[Co,C,1,1]", x.device)
    check_statistics(_OP, x, normalize, mean, rstd, groups, [len(inputs), x.shape[1]], "I,C")


_forward = define_op(
    "relu_separable_conv2d(Tensor[] inputs, Tensor[] weights, Tensor[] pointwise, int[] sources, int[] dilations, "
    "int stride, bool normalize, Tensor? mean, Tensor? rstd, int groups, float eps, "
    "bool tf32=False) -> (Tensor[], Tensor, Tensor)",
    reference=relu_separable_conv2d_reference,
    fake=_fake,
    backward=_backward,
    setup_context=_setup_context,
)
_backward_op = define_op(
    "relu_separable_conv2d_backward(Tensor[] grads, Tensor[] inputs, Tensor[] weights, Tensor[] pointwise, "
    "int[] sources, int[] dilations, int stride, bool normalize, Tensor mean, Tensor rstd, bool batch_statistics, "
    "int groups, bool input_grad, bool weights_grad, bool tf32=False) -> Tensor[]",
    reference=relu_separable_conv2d_backward_reference,
    fake=_fake_backward,
    **through_reference(relu_separable_conv2d_backward_reference),
)

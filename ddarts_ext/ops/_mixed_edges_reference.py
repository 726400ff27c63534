"""``mixed_edges`` in plain torch: fallback without a kernel, oracle of the tests, and the way of second derivatives.

Made of the references of the ops that it joins.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ddarts_ext.ops import _checks
from ddarts_ext.ops._edges import AVERAGE, MAXIMUM, SKIP
from ddarts_ext.ops.mixed_sum import mixed_sum_backward_reference, mixed_sum_reference
from ddarts_ext.ops.pool3x3 import pool3x3_backward_reference, pool3x3_reference
from ddarts_ext.ops.relu_depthwise_conv2d import convolved, normalized_input
from ddarts_ext.ops.relu_separable_conv2d import (
    relu_separable_conv2d_backward_reference,
    relu_separable_conv2d_reference,
)


def columns_to(targets: Sequence[int], target: int) -> list[int]:
    """The ops whose edge enters a node."""
    return [k for k, entered in enumerate(targets) if entered == target]


def branch_of(kind: int, x: Tensor, outputs: Sequence[Tensor], pooled: Any) -> Tensor:
    """The output of an op before its norm."""
    if kind >= 0:
        return outputs[kind]
    if kind == SKIP:
        return x
    found: Tensor = pooled[0] if kind == MAXIMUM else pooled[1]
    return found


def mixed_edges_reference(
    x: Tensor,
    previous: list[Tensor],
    depthwise: list[Tensor],
    pointwise: list[Tensor],
    weights: Tensor,
    targets: list[int],
    kinds: list[int],
    dilations: list[int],
    seconds: list[int],
    normalize: list[bool],
    sums: int,
    stride: int,
    mean: Tensor | None,
    rstd: Tensor | None,
    inner_mean: Tensor | None,
    inner_rstd: Tensor | None,
    eps: float,
    tf32: bool = False,
) -> tuple[list[Tensor], Tensor, Tensor, Tensor, Tensor]:
    """(sums, outputs of the convolutions, of first stages before a second, maximum, average and argmax of the pools),
    mean, rstd, inner_mean, inner_rstd."""
    acc, groups, firsts = _checks.accumulate_dtype(x.dtype), weights.shape[0], len(dilations)
    pooled = [x.new_empty(0) for _ in range(3)]
    if MAXIMUM in kinds or AVERAGE in kinds:
        pooled = list(pool3x3_reference(x, stride, MAXIMUM in kinds, AVERAGE in kinds))
    outputs: list[Tensor] = []
    if firsts:
        outputs, _, _ = relu_separable_conv2d_reference(
            [x], depthwise[:firsts], pointwise[:firsts], [0] * firsts, dilations, stride, False, None, None, groups, eps
        )
    inner = [outputs[f] for f in seconds]
    inner_means, inner_rstds = (x.new_empty((groups, 0, x.shape[1]), dtype=acc) for _ in range(2))
    if seconds:
        found, inner_means, inner_rstds = relu_separable_conv2d_reference(
            inner, depthwise[firsts:], pointwise[firsts:], list(range(len(inner))), [1] * len(inner), 1, True,
            inner_mean, inner_rstd, groups, eps,
        )  # fmt: skip
        for f, out in zip(seconds, found, strict=True):
            outputs[f] = out
    means = x.new_empty((groups, len(kinds), x.shape[1]), dtype=acc)
    rstds = torch.empty_like(means)
    totals = []
    for target in range(sums):
        own = columns_to(targets, target)
        branches, table = [branch_of(kinds[k], x, outputs, pooled) for k in own], weights[:, own]
        flags, given = [normalize[k] for k in own], [None if rows is None else rows[:, own] for rows in (mean, rstd)]
        start = 0
        if previous:  # as one more branch: rounded once, as by the kernel
            start = 1
            branches, flags = [previous[target], *branches], [False, *flags]
            table = torch.cat((table.new_ones((groups, 1)), table), 1)
            given = [None if rows is None else torch.cat((rows[:, :1], rows), 1) for rows in given]
        total, found_mean, found_rstd = mixed_sum_reference(branches, table, flags, given[0], given[1], eps)
        totals.append(total.contiguous(memory_format=_checks.memory_format_of(x)))
        means[:, own], rstds[:, own] = found_mean[:, start:], found_rstd[:, start:]
    return [*totals, *outputs, *inner, *pooled], means, rstds, inner_means, inner_rstds


def mixed_edges_backward_reference(
    grads: list[Tensor],
    x: Tensor,
    depthwise: list[Tensor],
    pointwise: list[Tensor],
    weights: Tensor,
    saved: list[Tensor],
    targets: list[int],
    kinds: list[int],
    dilations: list[int],
    seconds: list[int],
    normalize: list[bool],
    stride: int,
    mean: Tensor,
    rstd: Tensor,
    inner_mean: Tensor,
    inner_rstd: Tensor,
    batch_statistics: bool,
    input_grad: bool,
    parameters_grad: bool,
    weights_grad: bool,
    tf32: bool = False,
) -> list[Tensor]:
    """The gradients of x, of the weights, of the depthwise and of the pointwise filters, those that are wanted.

    saved: the tensors of the forward but the sums. Differentiable itself: what is saved is then computed anew from x
    and the filters, for it depends on them.
    """
    groups, firsts, channels_last = (
        weights.shape[0],
        len(dilations),
        _checks.memory_format_of(x) != torch.contiguous_format,
    )
    outputs, inner, pooled = saved[:firsts], saved[firsts : firsts + len(seconds)], saved[firsts + len(seconds) :]
    if torch.is_grad_enabled():
        outputs, inner, pooled = _differentiable(
            x, depthwise, pointwise, kinds, dilations, seconds, stride, inner_mean, inner_rstd, batch_statistics,
            groups, pooled,
        )  # fmt: skip
    d_outputs: dict[int, Tensor] = {}
    d_weights: dict[int, Tensor] = {}
    for target, grad in enumerate(grads):
        own = columns_to(targets, target)
        found, table = mixed_sum_backward_reference(
            grad, [branch_of(kinds[k], x, outputs, pooled) for k in own], weights[:, own], [normalize[k] for k in own],
            mean[:, own], rstd[:, own], batch_statistics, weights_grad,
        )  # fmt: skip
        d_weights |= zip(own, table.unbind(1), strict=True)
        for k, gradient in zip(own, found, strict=True):
            d_outputs[kinds[k]] = d_outputs[kinds[k]] + gradient if kinds[k] in d_outputs else gradient
    d_stages: list[Tensor] = [*depthwise, *pointwise]
    count = len(depthwise)
    if seconds:
        stages = range(firsts, count)
        d_inner = relu_separable_conv2d_backward_reference(
            [d_outputs[f] for f in seconds], inner, [depthwise[i] for i in stages], [pointwise[i] for i in stages],
            list(range(len(seconds))), [1] * len(seconds), 1, True, inner_mean, inner_rstd, batch_statistics, groups,
            True, parameters_grad,
        )  # fmt: skip
        d_outputs |= zip(seconds, d_inner, strict=False)
        for i, gradient in zip(
            (*stages, *(count + i for i in stages)), d_inner[len(seconds) :], strict=parameters_grad
        ):
            d_stages[i] = gradient
    dx = torch.zeros_like(x)
    if firsts:
        none = x.new_empty((0, 1, x.shape[1]))
        stages = range(firsts)
        d_first = relu_separable_conv2d_backward_reference(
            [d_outputs[f] for f in stages], [x], depthwise[:firsts], pointwise[:firsts], [0] * firsts, dilations,
            stride, False, none, none, False, groups, input_grad, parameters_grad,
        )  # fmt: skip
        if input_grad:
            dx = dx + d_first.pop(0)
        for i, gradient in zip((*stages, *(count + i for i in stages)), d_first, strict=parameters_grad):
            d_stages[i] = gradient
    maximum, average = d_outputs.get(MAXIMUM), d_outputs.get(AVERAGE)
    if input_grad and (maximum is not None or average is not None):
        height, width = x.shape[2:]
        dx = dx + pool3x3_backward_reference(maximum, average, pooled[2], height, width, stride, channels_last)
    if SKIP in d_outputs:
        dx = dx + d_outputs[SKIP]
    result = [dx.to(x.dtype).contiguous(memory_format=_checks.memory_format_of(x))] if input_grad else []
    if weights_grad:
        result.append(torch.stack([d_weights[k] for k in range(len(kinds))], 1))
    return result + (d_stages if parameters_grad else [])


def _differentiable(
    x: Tensor,
    depthwise: list[Tensor],
    pointwise: list[Tensor],
    kinds: list[int],
    dilations: list[int],
    seconds: list[int],
    stride: int,
    inner_mean: Tensor,
    inner_rstd: Tensor,
    batch_statistics: bool,
    groups: int,
    pooled: list[Tensor],
) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
    """What the forward saves, as functions of x and the filters. pooled: of it, for the argmax."""
    acc, firsts = _checks.accumulate_dtype(x.dtype), len(dilations)

    def stage(i: int, z: Tensor, dilation: int, step: int) -> Tensor:
        (y,) = convolved(z.relu(), [depthwise[i]], [dilation], step)
        return F.conv2d(y, pointwise[i].to(acc)).to(x.dtype)

    outputs = [stage(f, x.to(acc), dilation, stride) for f, dilation in enumerate(dilations)]
    inner = [outputs[f] for f in seconds]
    for s, f in enumerate(seconds):
        z, _ = normalized_input(inner[s], True, inner_mean[:, s], inner_rstd[:, s], batch_statistics, groups)
        outputs[f] = stage(firsts + s, z, 1, 1)
    maximum, average, argmax = pooled
    if MAXIMUM in kinds:
        maximum = F.max_pool2d(x, 3, stride, 1)
    if AVERAGE in kinds:
        average = F.avg_pool2d(x, 3, stride, 1, count_include_pad=False)
    return outputs, inner, [maximum, average, argmax]

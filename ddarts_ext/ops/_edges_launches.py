"""Launches of ``mixed_edges``, of its arguments; see ``_launches.py``."""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor

from ddarts_ext.ops._checks import accumulate_dtype, memory_format_of
from ddarts_ext.ops._convolution_launches import MOST_INPUTS, MOST_MOMENT_TILES, MOST_SEPARABLE
from ddarts_ext.ops._copies import batches, dense, in_layout
from ddarts_ext.ops._edges import AVERAGE, MAXIMUM, SKIP

MOST_TARGETS = 16
"""Of one launch, as csrc/cuda has it: kEdgesTargets."""


def mixed_edges(
    x: Tensor,
    previous: Sequence[Tensor],
    depthwise_weights: Sequence[Tensor],
    pointwise_weights: Sequence[Tensor],
    weights: Tensor,
    targets: Sequence[int],
    kinds: Sequence[int],
    dilations: Sequence[int],
    seconds: Sequence[int],
    normalize: Sequence[bool],
    sums: int,
    stride: int,
    mean: Tensor | None,
    rstd: Tensor | None,
    inner_mean: Tensor | None,
    inner_rstd: Tensor | None,
    eps: float,
) -> int:
    layout, groups, accumulate = memory_format_of(x), weights.shape[0], accumulate_dtype(x.dtype)
    count = in_layout(x, layout) + dense(weights, accumulate)
    if mean is not None:
        count += dense(mean, accumulate) + dense(rstd, accumulate)
    elif not x.numel():  # mean 0 and variance 0 are filled in, and go the way of given ones
        count += 2 + 2 * int(len(seconds) > 0)
    if mean is not None or not x.numel():
        count += batches(len(kinds), MOST_INPUTS) + 2 * int(len(seconds) > 0)
    if not x.numel():
        return count
    count += sum(in_layout(image, layout) for image in previous)
    count += sum(dense(w, w.dtype) for w in (*depthwise_weights, *pointwise_weights))
    others = [(kind, flag) for kind, flag in zip(kinds, normalize, strict=True) if kind < 0]
    count += int(MAXIMUM in kinds or AVERAGE in kinds)
    count += batches(len(dilations), MOST_SEPARABLE) + batches(len(seconds), MOST_SEPARABLE)
    if mean is None:
        count += int(any(flag for _, flag in others))
        joins = [len(kinds)]
        sides = [weight.shape[-1] for weight in depthwise_weights[: len(dilations)]]
        pad = max((step * (k - 1) // 2 for step, k in zip(dilations, sides, strict=True)), default=0)
        if seconds and _tiles(x, groups, stride, pad) > MOST_MOMENT_TILES:
            before = len(others) + len(dilations) - len(seconds)
            joins = [before + len(seconds), len(seconds)]
        count += sum(batches(entries, MOST_INPUTS) for entries in joins)
    return count + _edges_launches(targets, [True] * len(kinds), sums)


def mixed_edges_backward(
    grads: Sequence[Tensor],
    x: Tensor,
    depthwise_weights: Sequence[Tensor],
    pointwise_weights: Sequence[Tensor],
    weights: Tensor,
    saved: Sequence[Tensor],
    targets: Sequence[int],
    kinds: Sequence[int],
    dilations: Sequence[int],
    seconds: Sequence[int],
    normalize: Sequence[bool],
    stride: int,
    mean: Tensor,
    rstd: Tensor,
    inner_mean: Tensor,
    inner_rstd: Tensor,
    batch_statistics: bool,
    input_grad: bool,
    parameters_grad: bool,
    weights_grad: bool,
) -> int:
    layout, accumulate = memory_format_of(x), accumulate_dtype(x.dtype)
    count = sum(in_layout(image, layout) for image in (x, *grads, *saved) if image.dim() == 4)
    count += sum(dense(table, accumulate) for table in (weights, mean, rstd, inner_mean, inner_rstd))
    back = int(weights_grad and weights.dtype != accumulate)
    filters = (*depthwise_weights, *pointwise_weights)
    if not x.numel():
        return count + back + int(weights_grad) + (len(filters) if parameters_grad else 0)
    summed = [weights_grad or (batch_statistics and flag) for flag in normalize]
    count += _edges_launches(targets, summed, len(grads)) + batches(len(kinds), MOST_INPUTS)
    if input_grad or parameters_grad:
        count += sum(dense(w, w.dtype) for w in filters)
        if seconds:
            count += batches(len(seconds), MOST_SEPARABLE) * (1 + int(parameters_grad or batch_statistics))
        count += batches(len(dilations), MOST_SEPARABLE) * (1 + int(parameters_grad))
    if input_grad and any(kind < 0 for kind in kinds):
        pairs = [(targets[k], kind) for k, kind in enumerate(kinds) if kind < 0]
        entries = sum(
            max(pairs.count((target, kind)) for kind in (SKIP, MAXIMUM, AVERAGE))
            for target in {target for target, _ in pairs}
        )
        count += batches(entries, MOST_INPUTS)
    return count + back


def _tiles(x: Tensor, groups: int, stride: int, pad: int) -> int:
    """Tiles of a group's outputs: as ``output_tiles`` of relu_separable_conv2d_plan.h."""
    height, width = ((n + stride - 1) // stride for n in x.shape[2:])
    narrow, rows = stride == 2 or (width - 1) % 16 < 8 or pad > 4, 4 if stride == 2 and pad > 4 else 8
    return x.shape[0] // groups * math.ceil(height / rows) * math.ceil(width / (8 if narrow else 16))


def _edges_launches(targets: Sequence[int], wanted: Sequence[bool], sums: int) -> int:
    """Launches over the branches that are wanted, target by target: as ``in_launches`` of mixed_edges_call.h."""
    count = entries = entered = 0
    for target in range(sums):
        left = sum(flag for own, flag in zip(targets, wanted, strict=True) if own == target)
        while left:
            if entered == MOST_TARGETS or (left > MOST_INPUTS - entries and entries):
                count, entries, entered = count + 1, 0, 0
            now = min(left, MOST_INPUTS)
            entries, entered, left = entries + now, entered + 1, left - now
    return count + int(entered > 0)

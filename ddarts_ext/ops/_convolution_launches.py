"""Launches of the ops that are convolutions, of their arguments; see ``_launches.py``."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import torch
from torch import Tensor

from ddarts_ext.ops._checks import accumulate_dtype, memory_format_of
from ddarts_ext.ops._copies import batches, dense, in_layout

MOST_FILTERS, MOST_SEPARABLE, MOST_INPUTS = 32, 24, 96
"""Of one launch, as csrc/cuda has them: kDepthwiseFilters, kSeparableFilters, kMixedBranches."""
MOST_MOMENT_TILES, MOST_TARGETS = 128, 16
"""kSeparableMomentTiles, kEdgesTargets."""


def depthwise(
    x: Tensor,
    weights: Sequence[Tensor],
    dilations: Sequence[int],
    stride: int,
    normalize: bool,
    mean: Tensor | None,
    rstd: Tensor | None,
    groups: int,
    eps: float,
) -> int:
    own = batches(len(weights), MOST_FILTERS) if x.shape[0] else 0
    converted = sum(dense(weight, accumulate_dtype(x.dtype)) for weight in weights)
    statistics = 0
    if normalize:
        statistics = int(x.shape[0] > 0) + 1 if mean is None else 2
    return own + converted + statistics


def depthwise_backward(
    grads: Sequence[Tensor],
    x: Tensor,
    weights: Sequence[Tensor],
    dilations: Sequence[int],
    stride: int,
    normalize: bool,
    mean: Tensor,
    rstd: Tensor,
    batch_statistics: bool,
    groups: int,
    input_grad: bool,
    weights_grad: bool,
) -> int:
    accumulate = accumulate_dtype(x.dtype)
    launches = batches(len(weights), MOST_FILTERS)
    count = sum(dense(weight, accumulate) for weight in weights)
    count += dense(mean, mean.dtype) + dense(rstd, rstd.dtype)
    if weights_grad:
        count += 2 * launches
    if input_grad and x.shape[0]:
        count += launches
        if normalize or x.dtype != accumulate:
            count += 1 + int(batch_statistics and normalize)
    return count


def separable(
    inputs: Sequence[Tensor],
    weights: Sequence[Tensor],
    pointwise: Sequence[Tensor],
    sources: Sequence[int],
    dilations: Sequence[int],
    stride: int,
    normalize: bool,
    mean: Tensor | None,
    rstd: Tensor | None,
    groups: int,
    eps: float,
) -> int:
    first = inputs[0]
    layout, batch, side = memory_format_of(first), first.shape[0], [(n + stride - 1) // stride for n in first.shape[2:]]
    count = sum(in_layout(x, layout) for x in inputs) + sum(dense(w, w.dtype) for w in (*weights, *pointwise))
    outputs = (batch, pointwise[0].shape[0], *side)
    count += sum(_relaid(outputs, layout, memory_format_of(inputs[source])) for source in sources)
    if normalize:
        joined = len(inputs) > MOST_INPUTS or _moment_tiles(first, groups) > MOST_MOMENT_TILES
        count += (1 + joined) * batches(len(inputs), MOST_INPUTS) if mean is None and batch else 2
    return count + (len(_separable_launches(len(inputs), sources)) if batch else 0)


def _moment_tiles(x: Tensor, groups: int) -> int:
    """Into how many tiles mixed_sum cuts a group of images: as ``frame_of`` of csrc/cuda/mixed_sum.cu."""
    wide, last = x.dtype == torch.float64, memory_format_of(x) == torch.channels_last
    packet = 2 if wide else 4
    packet = packet if (x.shape[1] if last else x[0, 0].numel()) % packet == 0 else 1
    positions = x.shape[0] // groups * x[0, 0].numel() // (1 if last else packet)
    lanes = min(32, 1 << (math.ceil(x.shape[1] / packet) - 1).bit_length()) if last else 1
    depth, across = 256 // lanes, math.ceil(x.shape[1] / (packet if last else 1) / lanes)
    packets = max(16, math.ceil(positions / (512 * depth)))
    tiles = math.ceil(positions / (packets * depth))
    while packets > 4 and tiles * across * groups < 132:
        more = math.ceil(positions / (packets // 2 * depth))
        if more > MOST_MOMENT_TILES:
            break
        packets, tiles = packets // 2, more
    return tiles


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
        count += dense(mean, accumulate) + dense(rstd, accumulate) + batches(len(kinds), MOST_INPUTS)
        count += 2 * int(len(seconds) > 0)
    if not x.numel():  # NaN in all tables
        return count if mean is not None else count + 2 + 2 * int(len(seconds) > 0)
    count += sum(in_layout(image, layout) for image in previous)
    count += sum(dense(w, w.dtype) for w in (*depthwise_weights, *pointwise_weights))
    others = [(kind, flag) for kind, flag in zip(kinds, normalize, strict=True) if kind < 0]
    count += int(any(kind < -1 for kind, _ in others))
    count += batches(len(dilations), MOST_SEPARABLE) + batches(len(seconds), MOST_SEPARABLE)
    if mean is None:
        count += int(any(flag for _, flag in others))
        joins = [len(kinds)]
        if seconds and _tiles(x, groups, stride) > MOST_MOMENT_TILES:
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
            max(pairs.count((target, kind)) for kind in (-1, -2, -3)) for target in {target for target, _ in pairs}
        )
        count += batches(entries, MOST_INPUTS)
    return count + back


def _tiles(x: Tensor, groups: int, stride: int) -> int:
    """Tiles of a group's outputs: as ``output_tiles`` of relu_separable_conv2d_plan.h, for filters up to 5x5."""
    height, width = ((n + stride - 1) // stride for n in x.shape[2:])
    narrow = stride == 2 or (width - 1) % 16 < 8
    return x.shape[0] // groups * math.ceil(height / 8) * math.ceil(width / (8 if narrow else 16))


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


def separable_backward(
    grads: Sequence[Tensor],
    inputs: Sequence[Tensor],
    weights: Sequence[Tensor],
    pointwise: Sequence[Tensor],
    sources: Sequence[int],
    dilations: Sequence[int],
    stride: int,
    normalize: bool,
    mean: Tensor,
    rstd: Tensor,
    batch_statistics: bool,
    groups: int,
    input_grad: bool,
    weights_grad: bool,
) -> int:
    layout, batch = memory_format_of(inputs[0]), inputs[0].shape[0]
    count = sum(in_layout(x, layout) for x in (*inputs, *grads))
    count += sum(dense(tensor, tensor.dtype) for tensor in (*weights, *pointwise, mean, rstd))
    if input_grad:
        count += sum(_relaid(tuple(x.shape), layout, memory_format_of(x)) for x in inputs)
    of_inputs = input_grad and batch > 0
    finishes = of_inputs and normalize and batch_statistics
    for filters in _separable_launches(len(inputs), sources):
        of_filters = weights_grad and filters > 0
        count += int(of_inputs or of_filters) + int(finishes or of_filters) + int(finishes)
    return count


def _separable_launches(inputs: int, sources: Sequence[int]) -> list[int]:
    """The filters of each launch, source by source: as ``in_launches`` of csrc/cuda/relu_separable_conv2d.cpp."""
    launches, room = [0], MOST_SEPARABLE
    for source in range(inputs):
        left = sources.count(source)
        while True:
            if not room or launches[-1] == MOST_SEPARABLE:
                launches, room = [*launches, 0], MOST_SEPARABLE
            now = min(left, MOST_SEPARABLE - launches[-1])
            launches[-1], room, left = launches[-1] + now, room - 1, left - now
            if not left:
                break
    return launches


def pointwise(x: Tensor, weights: Sequence[Tensor], stride: int) -> int:
    count = in_layout(x, memory_format_of(x)) + sum(dense(weight, weight.dtype) for weight in weights)
    return count + (_runs_alike(weights) if x.shape[0] else 0)


def pointwise_backward(
    grad: Tensor, x: Tensor, weights: Sequence[Tensor], stride: int, input_grad: bool, weights_grad: bool
) -> int:
    layout = memory_format_of(x)
    count = in_layout(x, layout) + in_layout(grad, layout) + sum(dense(weight, weight.dtype) for weight in weights)
    of_inputs = input_grad and x.shape[0] > 0
    return count + _runs_alike(weights) * (int(of_inputs or weights_grad) + int(weights_grad))


def _runs_alike(weights: Sequence[Tensor]) -> int:
    """Runs of weights of one number of channels, which are a launch each."""
    return 1 + sum(a.shape[0] != b.shape[0] for a, b in itertools.pairwise(weights))


def _relaid(shape: tuple[int, ...], made: torch.memory_format, wanted: torch.memory_format) -> int:
    """Copies that bring a new image into another layout."""
    return in_layout(torch.empty(shape, device="meta").contiguous(memory_format=made), wanted)

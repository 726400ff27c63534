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
MOST_MOMENT_TILES = 128
"""kSeparableMomentTiles."""


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

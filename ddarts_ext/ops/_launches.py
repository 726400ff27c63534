"""How many launches every op puts on a CUDA stream: its own kernels, and the copies that it asks torch for.

What stands here is what csrc/cuda does; the tests run the emulated launchers and count. Ops that have no entry are made
of others on CUDA.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from ddarts_ext.ops._checks import accumulate_dtype, memory_format_of

MOST_FILTERS, MOST_SEPARABLE, MOST_BRANCHES, MOST_MAPS = 32, 32, 96, 64
"""Of one launch, as csrc/cuda has them: kDepthwiseFilters, kSeparableFilters, kMixedBranches, kIimMaps."""
MOST_MOMENT_TILES = 128
"""kSeparableMomentTiles."""


def _dense(x: Tensor | None, dtype: torch.dtype) -> int:
    """Copies that make a contiguous tensor of this dtype."""
    if x is None or x.numel() == 0:
        return 0
    return int(x.dtype != dtype) + int(not x.is_contiguous())


def _in_layout(x: Tensor | None, layout: torch.memory_format) -> int:
    """Copies that put an image into a layout."""
    return 0 if x is None or x.numel() == 0 or x.is_contiguous(memory_format=layout) else 1


def _in_pieces(x: Tensor, layout: torch.memory_format) -> int:
    """The same where some of the channels of a channels-last image are read as they are."""
    if layout == torch.channels_last and x.numel() and x[0, 0].numel() > 1:
        c, h, w = x.shape[1:]
        pitch = x.stride(3) if w > 1 else x.stride(2)
        expected = (h * w * pitch, 1, w * pitch, pitch)
        strides = zip(x.shape, x.stride(), expected, strict=True)
        if pitch >= c and all(size == 1 or stride == wanted for size, stride, wanted in strides):
            return 0
    return _in_layout(x, layout)


def _batches(count: int, most: int) -> int:
    return math.ceil(count / most)


def _depthwise(
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
    own = _batches(len(weights), MOST_FILTERS) if x.shape[0] else 0
    converted = sum(_dense(weight, accumulate_dtype(x.dtype)) for weight in weights)
    statistics = 0
    if normalize:
        statistics = int(x.shape[0] > 0) + 1 if mean is None else 2
    return own + converted + statistics


def _depthwise_backward(
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
    batches = _batches(len(weights), MOST_FILTERS)
    count = sum(_dense(weight, accumulate) for weight in weights)
    count += _dense(mean, mean.dtype) + _dense(rstd, rstd.dtype)
    if weights_grad:
        count += 2 * batches
    if input_grad and x.shape[0]:
        count += batches
        if normalize or x.dtype != accumulate:
            count += 1 + int(batch_statistics and normalize)
    return count


def _separable(
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
    count = sum(_in_layout(x, layout) for x in inputs) + sum(_dense(w, w.dtype) for w in (*weights, *pointwise))
    outputs = (batch, pointwise[0].shape[0], *side)
    count += sum(_relaid(outputs, layout, memory_format_of(inputs[source])) for source in sources)
    if normalize:
        joined = len(inputs) > MOST_BRANCHES or _moment_tiles(first, groups) > MOST_MOMENT_TILES
        count += (1 + joined) * _batches(len(inputs), MOST_BRANCHES) if mean is None and batch else 2
    return count + (len(_separable_launches(len(inputs), sources)) if batch else 0)


def _moment_tiles(x: Tensor, groups: int) -> int:
    """Into how many tiles mixed_sum cuts a group of images: as ``frame_of`` of csrc/cuda/mixed_sum.cu."""
    wide, last = x.dtype == torch.float64, memory_format_of(x) == torch.channels_last
    packet = 2 if wide else 4
    packet = packet if (x.shape[1] if last else x[0, 0].numel()) % packet == 0 else 1
    positions = x.shape[0] // groups * x[0, 0].numel() // (1 if last else packet)
    lanes = min(32, 1 << (math.ceil(x.shape[1] / packet) - 1).bit_length()) if last else 1
    tile = max(16, math.ceil(positions / (512 * (256 // lanes)))) * (256 // lanes)
    return math.ceil(positions / tile)


def _separable_backward(
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
    count = sum(_in_layout(x, layout) for x in (*inputs, *grads))
    count += sum(_dense(tensor, tensor.dtype) for tensor in (*weights, *pointwise, mean, rstd))
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


def _pointwise(x: Tensor, weights: Sequence[Tensor], stride: int) -> int:
    count = _in_layout(x, memory_format_of(x)) + sum(_dense(weight, weight.dtype) for weight in weights)
    return count + (_runs_alike(weights) if x.shape[0] else 0)


def _pointwise_backward(
    grad: Tensor, x: Tensor, weights: Sequence[Tensor], stride: int, input_grad: bool, weights_grad: bool
) -> int:
    layout = memory_format_of(x)
    count = _in_layout(x, layout) + _in_layout(grad, layout) + sum(_dense(weight, weight.dtype) for weight in weights)
    of_inputs = input_grad and x.shape[0] > 0
    return count + _runs_alike(weights) * (int(of_inputs or weights_grad) + int(weights_grad))


def _runs_alike(weights: Sequence[Tensor]) -> int:
    """Runs of weights of one number of channels, which are a launch each."""
    return 1 + sum(a.shape[0] != b.shape[0] for a, b in itertools.pairwise(weights))


def _relaid(shape: tuple[int, ...], made: torch.memory_format, wanted: torch.memory_format) -> int:
    """Copies that bring a new image into another layout."""
    return _in_layout(torch.empty(shape, device="meta").contiguous(memory_format=made), wanted)


def _pool(x: Tensor, stride: int, maximum: bool, average: bool) -> int:
    return _in_layout(x, memory_format_of(x)) + int(x.numel() > 0)


def _pool_backward(
    grad_maximum: Tensor | None,
    grad_average: Tensor | None,
    argmax: Tensor,
    height: int,
    width: int,
    stride: int,
    channels_last: bool,
) -> int:
    either = grad_maximum if grad_maximum is not None else grad_average
    assert either is not None
    if either.numel() == 0:
        return 0
    layout = torch.channels_last if channels_last else torch.contiguous_format
    positions = argmax if grad_maximum is not None else None
    return 1 + sum(_in_layout(image, layout) for image in (grad_maximum, grad_average, positions))


def _mixed_sum(
    branches: Sequence[Tensor],
    weights: Tensor,
    normalize: Sequence[bool],
    mean: Tensor | None,
    rstd: Tensor | None,
    eps: float,
) -> int:
    first, sums = branches[0], _sums_of(branches)
    layout = memory_format_of(first)
    count = sum(_in_pieces(branch, layout) for branch in branches) + _dense(weights, sums)
    count += _dense(mean, sums) + _dense(rstd, sums)
    tables, channels = _batches(len(branches), MOST_BRANCHES), first.shape[1]
    if weights.shape[0] and channels:
        if mean is not None or not first.numel():
            count += tables
        if mean is None:
            count += _batches(sum(normalize), MOST_BRANCHES) * (2 if first.numel() else 1)
    return count + (tables if first.numel() else 0)


def _mixed_sum_backward(
    grad: Tensor,
    branches: Sequence[Tensor],
    weights: Tensor,
    normalize: Sequence[bool],
    mean: Tensor,
    rstd: Tensor,
    batch_statistics: bool,
    weights_grad: bool,
) -> int:
    first, sums = branches[0], _sums_of(branches)
    layout = memory_format_of(first)
    count = sum(_in_pieces(image, layout) for image in (*branches, grad))
    count += _dense(weights, sums) + _dense(mean, sums) + _dense(rstd, sums)
    summed = len(branches) if weights_grad else sum(normalize) if batch_statistics else 0
    if not first.numel():  # sums of nothing are zeros
        count += int(weights.shape[0] * (len(branches) + 1) * first.shape[1] > 0)
        return count + int(weights.numel() > 0) * (1 + int(weights.dtype != sums))
    count += 2 * _batches(summed, MOST_BRANCHES) + _batches(len(branches), MOST_BRANCHES)
    return count + int(weights.dtype != sums)


def _sums_of(branches: Sequence[Tensor]) -> torch.dtype:
    return torch.float64 if any(branch.dtype == torch.float64 for branch in branches) else torch.float32


def _norm(
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    mean: Tensor | None,
    rstd: Tensor | None,
    groups: int,
    eps: float,
    relu: bool,
) -> int:
    accumulate = accumulate_dtype(x.dtype)
    count = _in_layout(x, memory_format_of(x)) + _dense(weight, accumulate) + _dense(bias, accumulate)
    return count + (2 if groups * x.shape[1] else 0) + int(x.numel() > 0)


def _norm_backward(
    grad: Tensor,
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    mean: Tensor,
    rstd: Tensor,
    batch_statistics: bool,
    groups: int,
    relu: bool,
) -> int:
    accumulate, layout = accumulate_dtype(x.dtype), memory_format_of(x)
    count = _in_layout(x, layout) + _in_layout(grad, layout)
    count += sum(_dense(row, accumulate) for row in (mean, rstd, weight, bias))
    affine = [row for row in (weight, bias) if row is not None]
    count += sum(int(row.numel() > 0) * (1 + int(row.dtype != accumulate)) for row in affine)  # zeros, and back
    if x.numel():
        count += 1 + (2 if batch_statistics or affine else 0)
    return count


def _iim(
    maps: Sequence[Tensor], mean: Tensor | None, rstd: Tensor | None, normalize: Sequence[bool], paper: bool
) -> int:
    kinds: dict[tuple[torch.dtype, torch.memory_format], int] = {}
    for image in maps:
        kind = image.dtype, memory_format_of(image)
        kinds[kind] = kinds.get(kind, 0) + 1
    count = sum(_in_layout(image, memory_format_of(image)) for image in maps)
    count += sum(_dense(row, row.dtype) for row in (mean, rstd) if row is not None)
    return count + (sum(_batches(n, MOST_MAPS) for n in kinds.values()) if maps[0].shape[0] else 0)


def _spawn(groups: Tensor | None, source: Tensor, copies: int, stride: int, zero: bool) -> int:
    layout = memory_format_of(source)
    if not source.numel():
        return _in_layout(groups, layout)
    return _in_layout(groups, layout) + (0 if zero else _in_layout(source, layout)) + 1


def _spawn_backward(grad: Tensor, height: int, width: int, copies: int, stride: int) -> int:
    return _in_layout(grad, memory_format_of(grad)) + int(grad.numel() > 0)


LAUNCHES: dict[str, Callable[..., Any]] = {
    "relu_depthwise_conv2d": _depthwise,
    "relu_depthwise_conv2d_backward": _depthwise_backward,
    "relu_separable_conv2d": _separable,
    "relu_separable_conv2d_backward": _separable_backward,
    "relu_pointwise_conv2d": _pointwise,
    "relu_pointwise_conv2d_backward": _pointwise_backward,
    "pool3x3": _pool,
    "pool3x3_backward": _pool_backward,
    "mixed_sum": _mixed_sum,
    "mixed_sum_backward": _mixed_sum_backward,
    "grouped_batch_norm": _norm,
    "grouped_batch_norm_backward": _norm_backward,
    "channel_iim": _iim,
    "spawn_group": _spawn,
    "spawn_group_backward": _spawn_backward,
}
"""The launches of every op that has kernels, of the op's arguments."""

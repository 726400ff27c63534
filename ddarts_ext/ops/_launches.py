"""How many launches every op puts on a CUDA stream: its own kernels, and the copies that it asks torch for.

What stands here is what csrc/cuda does; the tests run the emulated launchers and count. Ops that have no entry are made
of others on CUDA.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from ddarts_ext.ops._checks import accumulate_dtype, memory_format_of
from ddarts_ext.ops._convolution_launches import (
    depthwise,
    depthwise_backward,
    pointwise,
    pointwise_backward,
    separable,
    separable_backward,
)
from ddarts_ext.ops._copies import batches, dense, in_layout, in_pieces
from ddarts_ext.ops._edges_launches import mixed_edges, mixed_edges_backward

MOST_BRANCHES, MOST_MAPS = 96, 64
"""Of one launch, as csrc/cuda has them: kMixedBranches, kIimMaps."""


def _pool(x: Tensor, stride: int, maximum: bool, average: bool) -> int:
    return in_layout(x, memory_format_of(x)) + int(x.numel() > 0)


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
    return 1 + sum(in_layout(image, layout) for image in (grad_maximum, grad_average, positions))


def _pool_readers_backward(
    maxima: Sequence[Tensor],
    averages: Sequence[Tensor],
    others: Sequence[Tensor],
    argmax: Tensor,
    height: int,
    width: int,
    stride: int,
    channels_last: bool,
) -> int:
    layout = torch.channels_last if channels_last else torch.contiguous_format
    if (*maxima, *averages)[0].numel() == 0:
        return 0
    copies = sum(in_layout(image, layout) for image in (*maxima, *averages, argmax if maxima else None))
    return 1 + copies + sum(in_pieces(image, layout) for image in others)


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
    count = sum(in_pieces(branch, layout) for branch in branches) + dense(weights, sums)
    count += dense(mean, sums) + dense(rstd, sums)
    tables, channels = batches(len(branches), MOST_BRANCHES), first.shape[1]
    if weights.shape[0] and channels:
        if mean is not None or not first.numel():
            count += tables
        if mean is None:
            count += batches(sum(normalize), MOST_BRANCHES) * (2 if first.numel() else 1)
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
    count = sum(in_pieces(image, layout) for image in (*branches, grad))
    count += dense(weights, sums) + dense(mean, sums) + dense(rstd, sums)
    summed = len(branches) if weights_grad else sum(normalize) if batch_statistics else 0
    if not first.numel():  # sums of nothing are zeros
        count += int(weights.shape[0] * (len(branches) + 1) * first.shape[1] > 0)
        return count + int(weights.numel() > 0) * (1 + int(weights.dtype != sums))
    count += 2 * batches(summed, MOST_BRANCHES) + batches(len(branches), MOST_BRANCHES)
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
    count = in_layout(x, memory_format_of(x)) + dense(weight, accumulate) + dense(bias, accumulate)
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
    count = in_layout(x, layout) + in_layout(grad, layout)
    count += sum(dense(row, accumulate) for row in (mean, rstd, weight, bias))
    affine = [row for row in (weight, bias) if row is not None]
    count += sum(int(row.numel() > 0) * (1 + int(row.dtype != accumulate)) for row in affine)  # zeros, and back
    if x.numel():
        count += 1 + (2 if batch_statistics or affine else 0)
    return count


def _iim(
    maps: Sequence[Tensor], mean: Tensor | None, rstd: Tensor | None, normalize: Sequence[bool], paper: bool
) -> int:
    kinds: dict[tuple[torch.dtype, torch.memory_format], int] = {}
    count = 0
    for image in maps:
        part = not image.is_contiguous() and in_pieces(image, torch.channels_last) == 0
        kind = image.dtype, torch.channels_last if part else memory_format_of(image)
        kinds[kind] = kinds.get(kind, 0) + 1
        count += in_pieces(image, kind[1])
    count += sum(dense(row, row.dtype) for row in (mean, rstd) if row is not None)
    return count + (sum(batches(n, MOST_MAPS) for n in kinds.values()) if maps[0].shape[0] else 0)


def _spawn(groups: Tensor | None, source: Tensor, copies: int, stride: int, zero: bool) -> int:
    layout = memory_format_of(source)
    if not source.numel():
        return in_layout(groups, layout)
    return in_layout(groups, layout) + (0 if zero else in_layout(source, layout)) + 1


def _spawn_backward(grad: Tensor, height: int, width: int, copies: int, stride: int) -> int:
    return in_layout(grad, memory_format_of(grad)) + int(grad.numel() > 0)


def _rows(tensors: Sequence[Tensor]) -> int:
    """Copies that bring the values of every row side by side."""
    return sum(int(x.shape[1] > 1 and x.stride(1) != 1) for x in tensors)


def _node(states: Sequence[Tensor], gates: Sequence[Tensor], weights: Tensor, activations: Sequence[int]) -> int:
    if not states[0].numel():
        return 0
    return _rows(states) + _rows(gates) + dense(weights, accumulate_dtype(states[0].dtype)) + 1


def _node_backward(
    grad: Tensor, states: Sequence[Tensor], gates: Sequence[Tensor], weights: Tensor, activations: Sequence[int]
) -> int:
    sums = accumulate_dtype(grad.dtype)
    back = int(weights.dtype != sums)
    if not grad.numel():  # sums of nothing are zeros
        return 1 + back
    return _node(states, gates, weights, activations) + int(not grad.is_contiguous()) + 1 + back


LAUNCHES: dict[str, Callable[..., Any]] = {
    "mixed_edges": mixed_edges,
    "mixed_edges_backward": mixed_edges_backward,
    "relu_depthwise_conv2d": depthwise,
    "relu_depthwise_conv2d_backward": depthwise_backward,
    "relu_separable_conv2d": separable,
    "relu_separable_conv2d_backward": separable_backward,
    "relu_pointwise_conv2d": pointwise,
    "relu_pointwise_conv2d_backward": pointwise_backward,
    "pool3x3": _pool,
    "pool3x3_backward": _pool_backward,
    "pool3x3_readers_backward": _pool_readers_backward,
    "mixed_sum": _mixed_sum,
    "mixed_sum_backward": _mixed_sum_backward,
    "grouped_batch_norm": _norm,
    "grouped_batch_norm_backward": _norm_backward,
    "channel_iim": _iim,
    "recurrent_node": _node,
    "recurrent_node_backward": _node_backward,
    "spawn_group": _spawn,
    "spawn_group_backward": _spawn_backward,
}
"""The launches of every op that has kernels, of the op's arguments."""

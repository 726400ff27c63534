"""The fewest bytes that the launches of an op move between a GPU and its memory: a model, for counting without a GPU.

Every launch reads each of its inputs once and writes each of its outputs once. What an op hands from one of its
launches to the next beside images (partial sums, statistics) is left out: it is small and stays in the L2 cache. An op
that needs several passes over its images is charged for each; those of this package are listed here, of torch's ops all
are one pass but the backward of a convolution, which is one for every gradient.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from ddarts_ext.benchmark.launches.model import NONE
from ddarts_ext.ops._edges import AVERAGE, MAXIMUM, SKIP
from ddarts_ext.ops._mixed_edges_reference import branch_of

_MADE = frozenset(
    {"aten::ones_like", "aten::zeros_like", "aten::full_like", "aten::new_zeros", "aten::new_ones", "aten::new_full"}
    | {"aten::copy_", "aten::fill_", "aten::zero_"}
)
"""What they are given first is not read, only written or looked at."""
_CHOSEN = frozenset({"aten::index_select", "aten::index", "aten::gather", "aten::embedding"})
"""Of what they are given first they read as much as they give."""
OPTIMISERS = ("aten::_fused_sgd_", "aten::_fused_adam_")
"""In place, and without an implementation on meta tensors."""
_IN_PLACE = {"aten::_fused_sgd_": (0, 2), "aten::_fused_adam_": (0, 2, 3), "aten::_foreach_lerp_": (0,)}
"""Arguments that an op writes and does not return."""


def size_of(tensors: object) -> int:
    """Bytes of all different tensors among the leaves; of an expanded one, those that it has in memory."""
    found = {}
    for x in tree_leaves(tensors):
        if isinstance(x, Tensor):
            key = x.untyped_storage()._cdata, x.storage_offset(), tuple(x.shape), x.stride()
            values = math.prod(n for n, step in zip(x.shape, x.stride(), strict=True) if step != 0)
            found[key] = x.element_size() * (values if x.numel() else 0)
    return sum(found.values())


def moved_by(func: torch._ops.OpOverload, args: Sequence[Any], kwargs: dict[str, Any], out: Any) -> int:
    """Bytes that the launches of a call read and write at least; out: what it gives."""
    name = func._schema.name
    if name in NONE or func.is_view:
        return 0
    if name in PASSES:
        return PASSES[name](args, out)
    if name in _MADE:
        return size_of((args[1:], kwargs)) + size_of(out)
    if name in _CHOSEN:
        return 2 * size_of(out) + size_of(args[1:])
    written = out if name not in _IN_PLACE else [args[i] for i in _IN_PLACE[name]]
    return size_of((args, kwargs)) + size_of(written)


def _flagged(tensors: Iterable[Tensor], flags: Iterable[bool]) -> list[Tensor]:
    return [x for x, flag in zip(tensors, flags, strict=True) if flag]


def _mixed_sum(args: Sequence[Any], out: Any) -> int:
    branches, _, normalize, mean = args[:4]
    statistics = size_of(_flagged(branches, normalize)) if mean is None else 0
    return statistics + size_of(branches) + size_of(out[0])


def _mixed_sum_backward(args: Sequence[Any], out: Any) -> int:
    grad, branches, _, normalize, _, _, batch_statistics, weights_grad = args
    normalised = _flagged(branches, normalize) if batch_statistics else []
    summed = branches if weights_grad else normalised
    products = size_of((grad, summed)) if summed else 0
    return products + size_of((grad, normalised)) + size_of(out[0])


def _norm(args: Sequence[Any], out: Any) -> int:
    return size_of(args[0]) * (2 if args[3] is None else 1) + size_of(out[0])


def _norm_backward(args: Sequence[Any], out: Any) -> int:
    grad, x, weight, bias, _, _, batch_statistics = args[:7]
    sums = batch_statistics or weight is not None or bias is not None
    return size_of((grad, x)) * (2 if sums else 1) + size_of(out[0])


def _separable(args: Sequence[Any], out: Any) -> int:
    inputs, normalize, mean = args[0], args[6], args[7]
    moments = size_of(inputs) if normalize and mean is None else 0
    return moments + size_of(args[:3]) + size_of(out[0])


def _separable_backward(args: Sequence[Any], out: Any) -> int:
    inputs, normalize, batch_statistics, input_grad = args[1], args[7], args[10], args[12]
    finish = 3 * size_of(inputs) if normalize and batch_statistics and input_grad else 0
    return size_of(args[:4]) + size_of(out) + finish


def _mixed_edges(args: Sequence[Any], out: Any) -> int:
    x, previous, kinds, seconds, normalize, sums, mean = (args[i] for i in (0, 1, 6, 8, 9, 10, 12))
    totals, outputs, inner, pooled = of_edges(out[0], sums, args[7], seconds)
    first = [outputs[f] for f in range(len(outputs)) if f not in seconds] + inner
    longer = [outputs[f] for f in seconds]
    normed = [kind for kind, flag in zip(kinds, normalize, strict=True) if flag and kind < 0]
    passes = [
        (x, pooled) if MAXIMUM in kinds or AVERAGE in kinds else (),
        [branch_of(kind, x, outputs, pooled) for kind in normed] if mean is None else (),
        (x, first, args[2], args[3]) if outputs else (),
        (inner, longer),
        (outputs, pooled[:2], x if SKIP in kinds else (), previous),
    ]
    return sum(map(size_of, passes)) + size_of(totals)


def _mixed_edges_backward(args: Sequence[Any], out: Any) -> int:
    grads, x, saved, kinds, seconds, normalize = (args[i] for i in (0, 1, 5, 7, 9, 10))
    batch_statistics, input_grad, parameters_grad, weights_grad = args[-4:]
    _, outputs, inner, pooled = of_edges(saved, 0, args[8], seconds)
    firsts = [f for f in range(len(outputs)) if f not in seconds]
    skips = [x] if SKIP in kinds else []
    batch = batch_statistics and any(normalize)
    passes: list[Any] = []
    if weights_grad or batch:
        passes.append((grads, outputs, pooled[:2], skips))
    if outputs and (input_grad or parameters_grad):
        if seconds:  # what it gives is of the size of its inputs
            passes += [(grads, [outputs[f] for f in seconds] if batch else (), inner), inner]
        passes += [(x, grads, [outputs[f] for f in firsts] if batch else (), inner), inner]
    if input_grad:
        passes.append(x)
        if any(kind < 0 for kind in kinds):
            passes += [(grads, pooled if batch else pooled[2:]), x if outputs else ()]
    filters = (args[2], args[3])
    return sum(map(size_of, passes)) + (2 * size_of(filters) if parameters_grad else size_of(filters))


def of_edges(
    tensors: Sequence[Tensor], sums: int, dilations: Sequence[int], seconds: Sequence[int]
) -> list[list[Tensor]]:
    """Sums, outputs of convolutions, of first stages before second ones, of pools."""
    ends = [0, sums, sums + len(dilations), sums + len(dilations) + len(seconds), len(tensors)]
    return [list(tensors[begin:end]) for begin, end in itertools.pairwise(ends)]


def _depthwise(args: Sequence[Any], out: Any) -> int:
    statistics = size_of(out[0]) if args[4] and args[5] is None else 0
    return size_of(args[:2]) + size_of(out[0]) + statistics


def _depthwise_backward(args: Sequence[Any], out: Any) -> int:
    grads, x, weights, normalize, batch_statistics, input_grad, weights_grad = (
        args[i] for i in (0, 1, 2, 5, 8, 10, 11)
    )
    finish = 3 * size_of(x) if normalize and batch_statistics and input_grad else 0
    passes = int(input_grad) + int(weights_grad)
    return passes * size_of((grads, x)) + size_of((weights, out)) + finish


def _convolution_backward(args: Sequence[Any], out: Any) -> int:
    grad, x, weight, wanted = args[0], args[1], args[2], args[-1]
    reads = ((grad, weight), (grad, x), (grad,))
    return sum(size_of(read) for read, flag in zip(reads, wanted, strict=True) if flag) + size_of(out)


PASSES: dict[str, Callable[[Sequence[Any], Any], int]] = {
    "ddarts_ext::mixed_sum": _mixed_sum,
    "ddarts_ext::mixed_sum_backward": _mixed_sum_backward,
    "ddarts_ext::grouped_batch_norm": _norm,
    "ddarts_ext::grouped_batch_norm_backward": _norm_backward,
    "ddarts_ext::mixed_edges": _mixed_edges,
    "ddarts_ext::mixed_edges_backward": _mixed_edges_backward,
    "ddarts_ext::relu_separable_conv2d": _separable,
    "ddarts_ext::relu_separable_conv2d_backward": _separable_backward,
    "ddarts_ext::relu_depthwise_conv2d": _depthwise,
    "ddarts_ext::relu_depthwise_conv2d_backward": _depthwise_backward,
    "aten::convolution_backward": _convolution_backward,
}
"""Ops of several passes, of their arguments and what they give."""

"""``mixed_edges``: all ops on all edges that leave one node, and what they add to the nodes they enter (DARTS, Eq. 2).

With x the state of the node, o_k the ops on its edges, t(k) the node that op k's edge enters, and BN where the op ends
in a batch norm (without affine, with statistics of its own group)::

    sums[t] = previous[t] + sum_{k: t(k) = t} w[g,k] BN(o_k(x))

An op is the identity, a 3x3 pool, or a separable or dilated convolution: ReLU, depthwise, 1x1 and, where there is a
second stage, batch norm, ReLU, depthwise, 1x1. All of them in one op means one gradient of x, and that the gradients of
the ops' outputs, a g + s o_k(x) + d per channel with g the gradient of the node, are never stored.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ddarts_ext.ops import _checks
from ddarts_ext.ops._columns import take_columns
from ddarts_ext.ops._double_backward import through_reference
from ddarts_ext.ops._edges import AVERAGE, MAXIMUM, Edges
from ddarts_ext.ops._forward_mode import check_composed
from ddarts_ext.ops._library import define_op
from ddarts_ext.ops._mixed_edges_reference import (
    branch_of,
    columns_to,
    mixed_edges_backward_reference,
    mixed_edges_reference,
)
from ddarts_ext.ops.mixed_sum import mixed_sum
from ddarts_ext.ops.pool3x3 import pool3x3
from ddarts_ext.ops.relu_depthwise_conv2d import check_filters
from ddarts_ext.ops.relu_separable_conv2d import relu_separable_conv2d

_OP = "mixed_edges"
_SERVED = ("cpu", "cuda", "meta")
"""Devices that have kernels, or stand for one that has."""


class MixedEdges(NamedTuple):
    """sums: T tensors. mean, rstd [G,K,C] of every op's output (0 and 1 without norm), inner_mean, inner_rstd [G,S,C]
    of the outputs of the first stages before second ones; none of them has a gradient."""

    sums: list[Tensor]
    mean: Tensor
    rstd: Tensor
    inner_mean: Tensor
    inner_rstd: Tensor


def mixed_edges(
    x: Tensor,
    edges: Edges,
    depthwise: Sequence[Tensor],
    pointwise: Sequence[Tensor],
    weights: Tensor,
    *,
    previous: Sequence[Tensor] = (),
    mean: Tensor | None = None,
    rstd: Tensor | None = None,
    inner_mean: Tensor | None = None,
    inner_rstd: Tensor | None = None,
    eps: float = 1e-5,
) -> MixedEdges:
    """``sums[t] = previous[t] + sum_k w[g,k] BN(o_k(x))`` over the ops k whose edge enters node t (DARTS, Eq. 2).

    x: [G*B,C,H,W] of any floating dtype; the batch is G contiguous groups, each with statistics of its own. depthwise:
    [C,1,k,k] with k of 3, 5, 7 and pointwise: [C,C,1,1], one a stage: first those of all convolutions, then the second
    ones in the order of ``edges.seconds``. weights: [G,K]. Filters and weights may have other floating dtypes than x;
    their gradients come back in their own. previous: T sums so far, or none. mean, rstd [1 or G,K,C] and inner_mean,
    inner_rstd [1 or G,S,C]: given statistics, all or none (eval mode; constants); by default those of the batch, biased
    variance, ``eps``.

    Sums are [G*B,C,ceil(H/stride),ceil(W/stride)] in the dtype and layout of x (under autocast in the dtypes that its
    ops give, and ``previous`` may have any); arithmetic is in float32 (float64 for float64); factors of products on a
    GPU as in :func:`relu_separable_conv2d`. Equal to :func:`pool3x3`, :func:`relu_separable_conv2d` and
    :func:`mixed_sum` one after the other, which is what runs on devices other than CPU and GPU, and under autocast to
    another dtype than that of x. Gradients: x, depthwise, pointwise, weights and previous, any number of times;
    deterministic. Raises ValueError for shapes and settings outside these, TypeError for dtypes and what is no
    :class:`Edges` or list.
    """
    if not isinstance(edges, Edges):
        raise TypeError(f"{_OP}: edges must be Edges, got {type(edges).__name__}")
    depthwise, pointwise = _checks.listed(_OP, "depthwise", depthwise), _checks.listed(_OP, "pointwise", pointwise)
    previous = _checks.listed(_OP, "previous", previous)
    statistics = (mean, rstd, inner_mean, inner_rstd)
    _check(x, edges, depthwise, pointwise, weights, previous, statistics)
    _checks.check_eps(_OP, eps)
    if not serves(x) or any(total.dtype != x.dtype for total in previous):
        check_composed(_OP, edges.normalize)
        return composed(x, edges, depthwise, pointwise, weights, previous, statistics, eps)
    tensors, *found = _forward(
        x, previous, depthwise, pointwise, weights, list(edges.targets), list(edges.kinds), list(edges.dilations),
        list(edges.seconds), list(edges.normalize), edges.sums, edges.stride, *statistics, eps,
        _checks.tf32_allowed(x),
    )  # fmt: skip
    return MixedEdges(tensors[: edges.sums], *found)


def serves(x: Tensor) -> bool:
    """Whether the op itself takes images like x. Under autocast they must be of its dtype: others are cast, each in its
    way, by the ops that it is made of."""
    device = x.device.type
    return device in _SERVED and (not _checks.autocasts(device) or x.dtype == torch.get_autocast_dtype(device))


def composed(
    x: Tensor,
    edges: Edges,
    depthwise: list[Tensor],
    pointwise: list[Tensor],
    weights: Tensor,
    previous: list[Tensor],
    statistics: tuple[Tensor | None, ...],
    eps: float,
) -> MixedEdges:
    """The same by the ops that there are kernels for everywhere."""
    mean, rstd, inner_mean, inner_rstd = statistics
    groups, firsts, kinds = weights.shape[0], len(edges.dilations), edges.kinds
    pooled = None
    if MAXIMUM in kinds or AVERAGE in kinds:
        pooled = pool3x3(x, stride=edges.stride, maximum=MAXIMUM in kinds, average=AVERAGE in kinds)
    outputs: list[Tensor] = []
    if firsts:
        outputs = relu_separable_conv2d(
            [x], depthwise[:firsts], pointwise[:firsts], dilations=edges.dilations, stride=edges.stride, groups=groups
        ).outputs
    accumulate = _checks.accumulate_dtype(x.dtype)
    inner = [x.new_empty((groups, 0, x.shape[1]), dtype=accumulate)] * 2
    if edges.seconds:
        found = relu_separable_conv2d(
            [outputs[f] for f in edges.seconds], depthwise[firsts:], pointwise[firsts:],
            sources=range(len(edges.seconds)), dilations=[1] * len(edges.seconds), normalize=True, mean=inner_mean,
            rstd=inner_rstd, groups=groups, eps=eps,
        )  # fmt: skip
        inner = [found.mean, found.rstd]
        outputs = list(outputs)
        for f, out in zip(edges.seconds, found.outputs, strict=True):
            outputs[f] = out
    sums, columns, tables = [], [], []
    for target in range(edges.sums):
        own = columns_to(edges.targets, target)
        table = take_columns(weights, own)
        given = [None if rows is None else take_columns(rows, own) for rows in (mean, rstd)]
        branches = [branch_of(kinds[k], x, outputs, pooled) for k in own]
        found_sum = mixed_sum(
            branches, table, normalize=[edges.normalize[k] for k in own], mean=given[0], rstd=given[1], eps=eps
        )
        sums.append(previous[target] + found_sum.out if previous else found_sum.out)
        columns += own
        tables.append((found_sum.mean, found_sum.rstd))
    order = sorted(range(len(columns)), key=columns.__getitem__)
    means, rstds = (take_columns(torch.cat(rows, 1), order) for rows in zip(*tables, strict=True))
    return MixedEdges(sums, means, rstds, *inner)


def _fake(
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
    *_: Any,
) -> tuple[list[Tensor], Tensor, Tensor, Tensor, Tensor]:
    n, c, h, w = x.shape
    size, layout = (n, c, (h + stride - 1) // stride, (w + stride - 1) // stride), _checks.memory_format_of(x)

    def image(wanted: bool = True, dtype: torch.dtype = x.dtype) -> Tensor:
        if not wanted:
            return x.new_empty(0, dtype=dtype)
        return torch.empty(size, dtype=dtype, device=x.device, memory_format=layout)

    pools = MAXIMUM in kinds, AVERAGE in kinds
    pooled = [image(pools[0]), image(pools[1]), image(pools[0], torch.uint8 if any(pools) else x.dtype)]
    tables = [
        x.new_empty((weights.shape[0], rows, c), dtype=_checks.accumulate_dtype(x.dtype))
        for rows in (len(kinds), len(kinds), len(seconds), len(seconds))
    ]
    return [*(image() for _ in range(sums + len(dilations) + len(seconds))), *pooled], *tables  # type: ignore[return-value]


def _fake_backward(
    grads: list[Tensor], x: Tensor, depthwise: list[Tensor], pointwise: list[Tensor], weights: Tensor, *settings: Any
) -> list[Tensor]:
    input_grad, parameters_grad, weights_grad = settings[12:15]
    found = []
    if input_grad:
        found.append(torch.empty(x.shape, dtype=x.dtype, device=x.device, memory_format=_checks.memory_format_of(x)))
    if weights_grad:
        found.append(weights.new_empty(weights.shape))
    return found + [tensor.new_empty(tensor.shape) for tensor in (*depthwise, *pointwise) if parameters_grad]


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    x, previous, depthwise, pointwise, weights, *settings, sums, stride, mean, _, _, _, _, ctx.tf32 = inputs
    ctx.settings, ctx.batch_statistics, ctx.adds = (*settings, stride), mean is None, bool(previous)
    ctx.shape, ctx.sizes = output[0][0].shape, (sums, len(depthwise))
    tensors, *tables = output
    ctx.mark_non_differentiable(*tensors[sums:], *tables)
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(x, weights, *depthwise, *pointwise, *tables, *tensors[sums:])


def _backward(ctx: Any, grads: list[Tensor | None], *_: Any) -> tuple[Any, ...]:
    x, weights, *rest = ctx.saved_tensors
    sums, stages = ctx.sizes
    depthwise, pointwise, tables, saved = (
        rest[:stages], rest[stages : 2 * stages], rest[2 * stages : 2 * stages + 4], rest[2 * stages + 4 :]
    )  # fmt: skip
    # Dense, for whoever wrote `previous` reads the same gradient again, and a slice would be copied each time.
    layout = _checks.memory_format_of(x)
    incoming = [
        x.new_zeros(ctx.shape).contiguous(memory_format=layout)
        if grad is None
        else grad.contiguous(memory_format=layout)
        for grad in grads[:sums]
    ]
    needs_x, _, *needs_filters, needs_weights = ctx.needs_input_grad[:5]
    needs_parameters = any(map(any, needs_filters))
    found = _backward_op(
        incoming, x, depthwise, pointwise, weights, saved, *ctx.settings, *tables, ctx.batch_statistics, needs_x,
        needs_parameters, needs_weights, ctx.tf32,
    )  # fmt: skip
    dx = found.pop(0) if needs_x else None
    d_weights = found.pop(0) if needs_weights else None
    filters = (found[:stages], found[stages:]) if needs_parameters else ([None] * stages, [None] * stages)
    return dx, incoming if ctx.adds else [], *filters, d_weights, *[None] * 13


def _check(
    x: Tensor,
    edges: Edges,
    depthwise: list[Tensor],
    pointwise: list[Tensor],
    weights: Tensor,
    previous: list[Tensor],
    statistics: tuple[Tensor | None, ...],
) -> None:
    _checks.check_image(_OP, "x", x)
    _checks.check_floating(_OP, "weights", weights)
    _checks.check_same_device(_OP, "weights", weights, x.device)
    count, stages = len(edges.kinds), edges.stages
    if weights.dim() != 2 or weights.shape[1] != count:
        raise ValueError(f"{_OP}: weights must be [G,K]=[G,{count}], got {list(weights.shape)}")
    groups = weights.shape[0]
    n, c, h, w = x.shape
    if len(depthwise) != stages or len(pointwise) != stages:
        got = f"{len(depthwise)} and {len(pointwise)}"
        raise ValueError(f"{_OP}: depthwise and pointwise must be one a stage, {stages}, got {got}")
    if stages:
        dilations = [*edges.dilations, *[1] * len(edges.seconds)]
        check_filters(_OP, "x", x, depthwise, dilations, groups, "depthwise")
    _checks.check_groups(_OP, "x", n, groups)
    _checks.check_each(_OP, "pointwise", pointwise, (c, c, 1, 1), "[C,C,1,1]", x.device)
    shape = (n, c, (h + edges.stride - 1) // edges.stride, (w + edges.stride - 1) // edges.stride)
    if previous and len(previous) != edges.sums:
        raise ValueError(f"{_OP}: previous must be T={edges.sums} tensors or none, got {len(previous)}")
    for t, tensor in enumerate(previous):
        # Under autocast sums come in the dtypes that its ops give, and are taken again.
        other = isinstance(tensor, Tensor) and tensor.dtype != x.dtype and not _checks.autocasts(x.device.type)
        if not _checks.fits(tensor, shape, x.device) or other:
            expected = f"{list(shape)} {_checks.dtype_name(x.dtype)} on {x.device}"
            got = type(tensor).__name__
            if isinstance(tensor, Tensor):
                got = f"{list(tensor.shape)} {_checks.dtype_name(tensor.dtype)} on {tensor.device}"
            raise ValueError(f"{_OP}: previous[{t}] must be {expected}, got {got}")
    mean, rstd, inner_mean, inner_rstd = statistics
    if len({tensor is None for tensor in statistics}) > 1:
        raise ValueError(f"{_OP}: mean, rstd, inner_mean and inner_rstd must be given together or not at all")
    _checks.check_given_statistics(_OP, mean, rstd, groups, (count, c), "K,C")
    _checks.check_given_statistics(_OP, inner_mean, inner_rstd, groups, (len(edges.seconds), c), "S,C")
    for name, table in zip(("mean", "rstd", "inner_mean", "inner_rstd"), statistics, strict=True):
        if table is not None:
            _checks.check_same_device(_OP, name, table, x.device)
    if mean is None and (edges.seconds or any(edges.normalize)):
        _checks.check_batch_values(_OP, n // groups * shape[2] * shape[3], shape)


_forward = define_op(
    "mixed_edges(Tensor x, Tensor[] previous, Tensor[] depthwise, Tensor[] pointwise, Tensor weights, int[] targets, "
    "int[] kinds, int[] dilations, int[] seconds, bool[] normalize, int sums, int stride, Tensor? mean, Tensor? rstd, "
    "Tensor? inner_mean, Tensor? inner_rstd, float eps, bool tf32=False) -> (Tensor[], Tensor, Tensor, Tensor, Tensor)",
    reference=mixed_edges_reference,
    fake=_fake,
    backward=_backward,
    setup_context=_setup_context,
)
_backward_op = define_op(
    "mixed_edges_backward(Tensor[] grads, Tensor x, Tensor[] depthwise, Tensor[] pointwise, Tensor weights, "
    "Tensor[] saved, int[] targets, int[] kinds, int[] dilations, int[] seconds, bool[] normalize, int stride, "
    "Tensor mean, Tensor rstd, Tensor inner_mean, Tensor inner_rstd, bool batch_statistics, bool input_grad, "
    "bool parameters_grad, bool weights_grad, bool tf32=False) -> Tensor[]",
    reference=mixed_edges_backward_reference,
    fake=_fake_backward,
    **through_reference(mixed_edges_backward_reference),
)

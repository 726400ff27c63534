"""``mixed_edges``: all ops on all edges that leave one node, and what they add to the nodes they enter (DARTS, Eq. 2).

With x the state of the node, o_k the ops on its edges, t(k) the node that op k's edge enters, and BN where the op ends in
a batch norm (without affine, with statistics of its own group)::

    sums[t] = previous[t] + sum_{k: t(k) = t} w[g,k] BN(o_k(x))

An op is the identity, a 3x3 pool, or a separable or dilated convolution: ReLU, depthwise, 1x1 and, where there is a second
stage, batch norm, ReLU, depthwise, 1x1. All of them in one op means one read of x and one gradient of x, and that the
gradients of the ops' outputs, a g + s o_k(x) + d per channel with g the gradient of the node, are never stored.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ddarts_ext.ops import _checks
from ddarts_ext.ops._double_backward import through_reference
from ddarts_ext.ops._library import define_op
from ddarts_ext.ops.mixed_sum import mixed_sum, mixed_sum_backward_reference, mixed_sum_reference
from ddarts_ext.ops.pool3x3 import pool3x3, pool3x3_backward_reference, pool3x3_reference
from ddarts_ext.ops.relu_depthwise_conv2d import check_filters, convolved, normalized_input
from ddarts_ext.ops.relu_separable_conv2d import (
    relu_separable_conv2d,
    relu_separable_conv2d_backward_reference,
    relu_separable_conv2d_reference,
)

_OP = "mixed_edges"
_COMPOSED_OF = "pool3x3, relu_separable_conv2d and mixed_sum"
SKIP, MAXIMUM, AVERAGE = -1, -2, -3


@dataclass(frozen=True)
class Edges:
    """The ops on the edges that leave a node, K of them.

    targets: which sum each op adds to, 0 ... T-1. kinds: ``SKIP``, ``MAXIMUM`` and ``AVERAGE`` (pools), or >= 0: the
    number of a convolution. dilations: of the first stage of every convolution, 1 or 2. seconds: the convolutions that
    have a second stage, which has dilation 1. normalize: whether an op ends in a batch norm. stride: of all first stages
    and pools, 1 or 2.
    """

    targets: tuple[int, ...]
    kinds: tuple[int, ...]
    normalize: tuple[bool, ...]
    dilations: tuple[int, ...] = ()
    seconds: tuple[int, ...] = ()
    stride: int = 1

    def __post_init__(self) -> None:
        count, convolutions = len(self.kinds), [kind for kind in self.kinds if kind >= 0]
        if not count or min(self.kinds) < AVERAGE or sorted(convolutions) != list(range(len(self.dilations))):
            raise ValueError(
                f"Edges: kinds must be SKIP, MAXIMUM, AVERAGE and each of {len(self.dilations)} convolutions once, "
                f"got {self.kinds}"
            )
        if len(self.targets) != count or set(self.targets) != set(range(max(self.targets) + 1)):
            raise ValueError(f"Edges: targets must be {count} numbers of sums, each from 0 on used, got {self.targets}")
        if len(self.normalize) != count:
            raise ValueError(f"Edges: normalize must be {count} flags, got {len(self.normalize)}")
        if not {1, 2}.issuperset(self.dilations):
            raise ValueError(f"Edges: dilations must be 1 or 2, got {self.dilations}")
        if len(set(self.seconds)) != len(self.seconds) or not set(self.seconds) <= set(convolutions):
            raise ValueError(f"Edges: seconds must be different ones of {sorted(convolutions)}, got {self.seconds}")
        if self.stride not in (1, 2):
            raise ValueError(f"Edges: stride must be 1 or 2, got {self.stride}")
        if self.stride == 2 and SKIP in self.kinds:
            raise ValueError("Edges: kinds must not have SKIP at stride 2, where it is an op with weights")

    @property
    def sums(self) -> int:
        """T, the number of nodes that the edges enter."""
        return max(self.targets) + 1

    @property
    def stages(self) -> int:
        """How many stages the convolutions have in all."""
        return len(self.dilations) + len(self.seconds)


class MixedEdges(NamedTuple):
    """sums: T tensors. mean, rstd [G,K,C] of every op's output (0 and 1 without norm), inner_mean, inner_rstd [G,S,C] of
    the outputs of the first stages before second ones; none of them has a gradient."""

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
    ones in the order of ``edges.seconds``. weights: [G,K]. previous: T sums so far, or none. mean, rstd [1 or G,K,C] and
    inner_mean, inner_rstd [1 or G,S,C]: given statistics, all or none (eval mode; constants); by default those of the
    batch, biased variance, ``eps``.

    Sums are [G*B,C,ceil(H/stride),ceil(W/stride)] in the dtype and layout of x; arithmetic is in float32 (float64 for
    float64). Equal to :func:`pool3x3`, :func:`relu_separable_conv2d` and :func:`mixed_sum` one after the other, which is
    what runs off the CPU and under autocast. Gradients: x, depthwise, pointwise, weights and previous, any number of
    times; deterministic. Raises ValueError for shapes and settings outside these, TypeError for dtypes.
    """
    depthwise, pointwise, previous = list(depthwise), list(pointwise), list(previous)
    statistics = (mean, rstd, inner_mean, inner_rstd)
    _check(x, edges, depthwise, pointwise, weights, previous, statistics)
    if x.device.type != "cpu" or _checks.autocasts("cpu"):  # under autocast the ops cast, each in its own way
        return composed(x, edges, depthwise, pointwise, weights, previous, statistics, eps)
    tensors, *found = _forward(
        x, previous, depthwise, pointwise, weights, list(edges.targets), list(edges.kinds), list(edges.dilations),
        list(edges.seconds), list(edges.normalize), edges.sums, edges.stride, *statistics, eps,
    )  # fmt: skip
    return MixedEdges(tensors[: edges.sums], *found)


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
        own = _columns(edges.targets, target)
        table, given = weights[:, own], [None if rows is None else rows[:, own] for rows in (mean, rstd)]
        branches = [_branch(kinds[k], x, outputs, pooled) for k in own]
        found_sum = mixed_sum(
            branches, table, normalize=[edges.normalize[k] for k in own], mean=given[0], rstd=given[1], eps=eps
        )
        sums.append(previous[target] + found_sum.out if previous else found_sum.out)
        columns += own
        tables.append((found_sum.mean, found_sum.rstd))
    order = sorted(range(len(columns)), key=columns.__getitem__)
    means, rstds = (torch.cat(rows, 1)[:, order] for rows in zip(*tables, strict=True))
    return MixedEdges(sums, means, rstds, *inner)


def _columns(targets: Sequence[int], target: int) -> list[int]:
    """The ops whose edge enters a node."""
    return [k for k, entered in enumerate(targets) if entered == target]


def _branch(kind: int, x: Tensor, outputs: Sequence[Tensor], pooled: Any) -> Tensor:
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
        own = _columns(targets, target)
        branches, table = [_branch(kinds[k], x, outputs, pooled) for k in own], weights[:, own]
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
) -> list[Tensor]:
    """The gradients of x, of the weights, of the depthwise and of the pointwise filters, those that are wanted.

    saved: the tensors of the forward but the sums. Differentiable itself: what is saved is then computed anew from x and
    the filters, for it depends on them.
    """
    groups, firsts, channels_last = weights.shape[0], len(dilations), _checks.memory_format_of(x) != torch.contiguous_format
    outputs, inner, pooled = saved[:firsts], saved[firsts : firsts + len(seconds)], saved[firsts + len(seconds) :]
    if torch.is_grad_enabled():
        outputs, inner, pooled = _differentiable(
            x, depthwise, pointwise, kinds, dilations, seconds, stride, inner_mean, inner_rstd, batch_statistics, groups,
            pooled,
        )  # fmt: skip
    d_outputs: dict[int, Tensor] = {}
    d_weights: dict[int, Tensor] = {}
    for target, grad in enumerate(grads):
        own = _columns(targets, target)
        found, table = mixed_sum_backward_reference(
            grad, [_branch(kinds[k], x, outputs, pooled) for k in own], weights[:, own], [normalize[k] for k in own],
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
            list(range(len(seconds))), [1] * len(seconds), 1, True, inner_mean, inner_rstd, batch_statistics, groups, True,
            parameters_grad,
        )  # fmt: skip
        d_outputs |= zip(seconds, d_inner, strict=False)
        for i, gradient in zip((*stages, *(count + i for i in stages)), d_inner[len(seconds) :], strict=parameters_grad):
            d_stages[i] = gradient
    dx = torch.zeros_like(x)
    if firsts:
        none = x.new_empty((0, 1, x.shape[1]))
        stages = range(firsts)
        d_first = relu_separable_conv2d_backward_reference(
            [d_outputs[f] for f in stages], [x], depthwise[:firsts], pointwise[:firsts], [0] * firsts, dilations, stride,
            False, none, none, False, groups, input_grad, parameters_grad,
        )  # fmt: skip
        if input_grad:
            dx = dx + d_first.pop(0)
        for i, gradient in zip((*stages, *(count + i for i in stages)), d_first, strict=parameters_grad):
            d_stages[i] = gradient
    pools = [d_outputs.get(kind) for kind in (MAXIMUM, AVERAGE)]
    if input_grad and any(grad is not None for grad in pools):
        dx = dx + pool3x3_backward_reference(*pools, pooled[2], x.shape[2], x.shape[3], stride, channels_last)
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
    input_grad, parameters_grad, weights_grad = settings[-3:]
    found = []
    if input_grad:
        found.append(torch.empty(x.shape, dtype=x.dtype, device=x.device, memory_format=_checks.memory_format_of(x)))
    if weights_grad:
        found.append(weights.new_empty(weights.shape))
    return found + [tensor.new_empty(tensor.shape) for tensor in (*depthwise, *pointwise) if parameters_grad]


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    x, previous, depthwise, pointwise, weights, *settings, sums, stride, mean, _, _, _, _ = inputs
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
        x.new_zeros(ctx.shape).contiguous(memory_format=layout) if grad is None else grad.contiguous(memory_format=layout)
        for grad in grads[:sums]
    ]
    needs_x, needs_previous, *needs_filters, needs_weights = ctx.needs_input_grad[:5]
    needs_parameters = any(map(any, needs_filters))
    found = _backward_op(
        incoming, x, depthwise, pointwise, weights, saved, *ctx.settings, *tables, ctx.batch_statistics, needs_x,
        needs_parameters, needs_weights,
    )  # fmt: skip
    dx = found.pop(0) if needs_x else None
    d_weights = found.pop(0) if needs_weights else None
    filters = (found[:stages], found[stages:]) if needs_parameters else ([None] * stages, [None] * stages)
    return dx, incoming if ctx.adds else [], *filters, d_weights, *[None] * 12


def _check(
    x: Tensor,
    edges: Edges,
    depthwise: list[Tensor],
    pointwise: list[Tensor],
    weights: Tensor,
    previous: list[Tensor],
    statistics: tuple[Tensor | None, ...],
) -> None:
    _checks.check_4d(_OP, "x", x)
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
        check_filters(_OP, "x", x, depthwise, dilations, edges.stride, groups)
    elif c < 1 or h < 1 or w < 1:
        raise ValueError(f"{_OP}: x must be [N,C,H,W] with C, H and W at least 1, got {list(x.shape)}")
    _checks.check_groups(_OP, "x", n, groups)
    for i, weight in enumerate(pointwise):
        if _checks.fits(weight, (c, c, 1, 1), x.device):
            continue
        _checks.check_floating(_OP, f"pointwise[{i}]", weight)
        _checks.check_same_device(_OP, f"pointwise[{i}]", weight, x.device)
        raise ValueError(f"{_OP}: pointwise[{i}] must be [C,C,1,1]=[{c},{c},1,1], got {list(weight.shape)}")
    shape = (n, c, (h + edges.stride - 1) // edges.stride, (w + edges.stride - 1) // edges.stride)
    if previous and len(previous) != edges.sums:
        raise ValueError(f"{_OP}: previous must be T={edges.sums} tensors or none, got {len(previous)}")
    for t, tensor in enumerate(previous):
        if not _checks.fits(tensor, shape, x.device) or tensor.dtype != x.dtype:
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
    for name, tensor in zip(("mean", "rstd", "inner_mean", "inner_rstd"), statistics, strict=True):
        if tensor is not None:
            _checks.check_same_device(_OP, name, tensor, x.device)
    if mean is None and (edges.seconds or any(edges.normalize)):
        _checks.check_batch_values(_OP, n // groups * shape[2] * shape[3], shape)


_forward = define_op(
    "mixed_edges(Tensor x, Tensor[] previous, Tensor[] depthwise, Tensor[] pointwise, Tensor weights, int[] targets, "
    "int[] kinds, int[] dilations, int[] seconds, bool[] normalize, int sums, int stride, Tensor? mean, Tensor? rstd, "
    "Tensor? inner_mean, Tensor? inner_rstd, float eps) -> (Tensor[], Tensor, Tensor, Tensor, Tensor)",
    reference=mixed_edges_reference,
    fake=_fake,
    backward=_backward,
    setup_context=_setup_context,
    composed_of=_COMPOSED_OF,
)
_backward_op = define_op(
    "mixed_edges_backward(Tensor[] grads, Tensor x, Tensor[] depthwise, Tensor[] pointwise, Tensor weights, "
    "Tensor[] saved, int[] targets, int[] kinds, int[] dilations, int[] seconds, bool[] normalize, int stride, "
    "Tensor mean, Tensor rstd, Tensor inner_mean, Tensor inner_rstd, bool batch_statistics, bool input_grad, "
    "bool parameters_grad, bool weights_grad) -> Tensor[]",
    reference=mixed_edges_backward_reference,
    fake=_fake_backward,
    **through_reference(mixed_edges_backward_reference),
    composed_of=_COMPOSED_OF,
)

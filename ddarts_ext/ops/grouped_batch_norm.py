"""Batch norm over groups of the batch, with optional affine and ReLU, for the norms that no other op folds in.

The batch of ``x`` is G contiguous groups of equal size; every group is normalised with statistics of its own. With
M = (N/G) * H * W values per group g and channel c::

    mu = sum x / M        r = (sum (x - mu)^2 / M + eps)^-1/2        xhat = (x - mu) r        y = xhat w + b

and ``out = max(y, 0)`` with ``relu``. Backward, with d the gradient where y > 0 (all of it without ``relu``)::

    G0 = sum d       G1 = sum d xhat       dw = sum_g G1       db = sum_g G0
    dx = w r (d - G0/M - xhat G1/M)        with given statistics: dx = w r d

Neither xhat nor the mask of the ReLU is stored: both are recomputed from ``x``.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from ddarts_ext.ops._checks import (
    accumulate_dtype,
    check_4d,
    check_batch_values,
    check_eps,
    check_flags,
    check_floating,
    check_given_statistics,
    check_groups,
    check_same_device,
    check_shape,
    integer,
    memory_format_of,
)
from ddarts_ext.ops._double_backward import through_reference
from ddarts_ext.ops._library import define_op

_OP = "grouped_batch_norm"


class GroupedNorm(NamedTuple):
    """What :func:`grouped_batch_norm` returns: ``out`` like ``x``; ``mean``, ``rstd`` [G,C], which have no gradient."""

    out: Tensor
    mean: Tensor
    rstd: Tensor


def grouped_batch_norm(
    x: Tensor,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    *,
    mean: Tensor | None = None,
    rstd: Tensor | None = None,
    groups: int = 1,
    eps: float = 1e-5,
    relu: bool = False,
) -> GroupedNorm:
    """Batch norm of each of ``groups`` contiguous groups of the batch by itself; see the module for the equations.

    x: [N,C,H,W], N divisible by ``groups`` and possibly 0; float64, float32, float16 or bfloat16.
    weight, bias: [C] or None, of any floating dtype; gradients come back in theirs.
    mean, rstd: given statistics [1 or G,C] (one row serves all groups), both or neither. Without them the statistics
    of the batch are used, biased, and the gradient goes through them. No gradient reaches given statistics.

    Returns :class:`GroupedNorm`: ``out`` in the dtype and layout of ``x``; ``mean`` and ``rstd`` [G,C] as used, float64
    if ``x`` is, else float32. With one group and batch statistics ``out`` is ``F.batch_norm(..., training=True)``.

    Raises TypeError for arguments that are not floating tensors; ValueError for wrong shapes, a batch that ``groups``
    does not divide, statistics given by half, an ``eps`` that is negative or not finite, or batch statistics of a
    single value per channel and group.
    """
    check_4d(_OP, "x", x)
    groups = integer(_OP, "groups", groups)
    check_groups(_OP, "x", x.shape[0], groups)
    check_eps(_OP, eps)
    check_flags(_OP, relu=relu)
    channels = x.shape[1]
    check_given_statistics(_OP, mean, rstd, groups, [channels], "C")
    for name, vector in (("weight", weight), ("bias", bias)):
        if vector is not None:
            check_floating(_OP, name, vector)
            check_shape(_OP, name, vector, [channels], "[C]")
    for name, tensor in (("weight", weight), ("bias", bias), ("mean", mean), ("rstd", rstd)):
        if tensor is not None:
            check_same_device(_OP, name, tensor, x.device)
    if mean is None:
        check_batch_values(_OP, x.shape[0] // groups * x.shape[2] * x.shape[3], x.shape)
    return GroupedNorm(*_forward(x, weight, bias, mean, rstd, groups, eps, relu))


def grouped_batch_norm_reference(
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    mean: Tensor | None,
    rstd: Tensor | None,
    groups: int,
    eps: float,
    relu: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """(out, mean [G,C], rstd [G,C]) in plain torch."""
    acc = accumulate_dtype(x.dtype)
    wide = _by_group(x, groups)
    if mean is None or rstd is None:
        mean, rstd = batch_statistics_of(wide, eps)
    else:
        mean = mean.to(acc).expand(groups, -1).clone(memory_format=torch.contiguous_format)
        rstd = rstd.to(acc).expand(groups, -1).clone(memory_format=torch.contiguous_format)
    out = _affine((wide - _wide(mean)) * _wide(rstd), weight, bias)
    return _like(x).copy_((torch.relu(out) if relu else out).reshape(x.shape)), mean, rstd


def grouped_batch_norm_backward_reference(
    grad: Tensor,
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    mean: Tensor,
    rstd: Tensor,
    batch_statistics: bool,
    groups: int,
    relu: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """(dx like x, dweight, dbias): the last two [C] in the dtype of weight and bias, or empty where those are None."""
    g, wide = _by_group(grad, groups), _by_group(x, groups)
    mean, rstd = mean.detach(), rstd.detach()
    if batch_statistics and torch.is_grad_enabled() and wide.numel() > 0:
        # The second derivative sees that the statistics depend on x: the same values again, as functions of x.
        variance, average = torch.var_mean(wide, (1, 3, 4), unbiased=False)
        mean = average
        rstd = (variance - variance.detach() + rstd.pow(-2)).rsqrt()
    xhat = (wide - _wide(mean)) * _wide(rstd)
    if relu:
        g = torch.where(_affine(xhat, weight, bias) <= 0, 0, g)
    sum_g, sum_gx = g.sum((1, 3, 4)), (g * xhat).sum((1, 3, 4))
    dx = g
    if batch_statistics:
        values = max(wide.shape[1] * wide.shape[3] * wide.shape[4], 1)
        dx = g - _wide(sum_g / values) - xhat * _wide(sum_gx / values)
    dx = _like(x).copy_(_affine(dx * _wide(rstd), weight, None).reshape(x.shape))
    empty = mean.new_empty([0])
    dweight = empty if weight is None else sum_gx.sum(0).to(weight.dtype)
    return dx, dweight, (empty.clone() if bias is None else sum_g.sum(0).to(bias.dtype))


def _like(x: Tensor) -> Tensor:
    return torch.empty(x.shape, dtype=x.dtype, device=x.device, memory_format=memory_format_of(x))


def _by_group(x: Tensor, groups: int) -> Tensor:
    """[G,N/G,C,H,W] in the dtype of sums."""
    return x.to(accumulate_dtype(x.dtype)).reshape(groups, x.shape[0] // groups, *x.shape[1:])


def batch_statistics_of(wide: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """mean, rstd [G,C] of [G,N/G,C,H,W]. Of an empty batch mean and variance are 0, in every op that has statistics."""
    if wide.numel() == 0:
        mean = wide.new_zeros([wide.shape[0], wide.shape[2]])
        return mean, torch.full_like(mean, eps).rsqrt()
    variance, mean = torch.var_mean(wide, (1, 3, 4), unbiased=False)
    return mean.contiguous(), (variance + eps).rsqrt().contiguous()


def _wide(rows: Tensor) -> Tensor:
    return rows[:, None, :, None, None]


def _affine(xhat: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
    out = xhat if weight is None else xhat * weight.to(xhat.dtype)[:, None, None]
    return out if bias is None else out + bias.to(xhat.dtype)[:, None, None]


def grouped_batch_norm_fake(
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    mean: Tensor | None,
    rstd: Tensor | None,
    groups: int,
    eps: float,
    relu: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    row = torch.empty([groups, x.shape[1]], dtype=accumulate_dtype(x.dtype), device=x.device)
    return _like(x), row, torch.empty_like(row)


def grouped_batch_norm_backward_fake(
    grad: Tensor,
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    mean: Tensor,
    rstd: Tensor,
    batch_statistics: bool,
    groups: int,
    relu: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    dx = _like(x)
    dweight = mean.new_empty([0]) if weight is None else torch.empty(weight.shape, dtype=weight.dtype, device=x.device)
    dbias = mean.new_empty([0]) if bias is None else torch.empty(bias.shape, dtype=bias.dtype, device=x.device)
    return dx, dweight, dbias


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
    x, weight, bias, mean, _, ctx.groups, _, ctx.relu = inputs
    ctx.batch_statistics = mean is None
    ctx.save_for_backward(x, weight, bias, output[1], output[2])
    ctx.mark_non_differentiable(output[1], output[2])
    ctx.set_materialize_grads(False)


def _autograd(ctx: Any, grad: Tensor | None, *_: Any) -> tuple[Any, ...]:
    if grad is None:
        return (None,) * 8
    x, weight, bias, mean, rstd = ctx.saved_tensors
    dx, dweight, dbias = _backward(grad, x, weight, bias, mean, rstd, ctx.batch_statistics, ctx.groups, ctx.relu)
    return dx, None if weight is None else dweight, None if bias is None else dbias, None, None, None, None, None


_backward = define_op(
    "grouped_batch_norm_backward(Tensor grad, Tensor x, Tensor? weight, Tensor? bias, Tensor mean, Tensor rstd, "
    "bool batch_statistics, int groups, bool relu) -> (Tensor, Tensor, Tensor)",
    reference=grouped_batch_norm_backward_reference,
    fake=grouped_batch_norm_backward_fake,
    **through_reference(grouped_batch_norm_backward_reference),
)
_forward = define_op(
    "grouped_batch_norm(Tensor x, Tensor? weight, Tensor? bias, Tensor? mean, Tensor? rstd, int groups, float eps, "
    "bool relu) -> (Tensor, Tensor, Tensor)",
    reference=grouped_batch_norm_reference,
    fake=grouped_batch_norm_fake,
    backward=_autograd,
    setup_context=_setup_context,
)

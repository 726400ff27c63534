"""``mixed_sum``: a whole node of the supernet, sum_k w[g,k] BN(x_k), with the affine-free batch norms folded in."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ddarts_ext.ops._checks import (
    accumulate_dtype,
    check_4d,
    check_batch_values,
    check_eps,
    check_floating,
    check_given_statistics,
    check_groups,
    check_same_device,
    fits,
    flags_of,
    listed,
    memory_format_of,
)
from ddarts_ext.ops._double_backward import through_reference
from ddarts_ext.ops._library import define_op

_OP = "mixed_sum"
_PIXELS = (1, 3, 4)  # batch and pixels of [G,B,C,H,W]


class MixedSum(NamedTuple):
    """out [G*B,C,H,W]; mean and rstd [G,K,C] of every branch (0 and 1 for a branch without norm), no gradient."""

    out: Tensor
    mean: Tensor
    rstd: Tensor


def mixed_sum(
    branches: Sequence[Tensor],
    weights: Tensor,
    *,
    normalize: Sequence[bool] | None = None,
    mean: Tensor | None = None,
    rstd: Tensor | None = None,
    eps: float = 1e-5,
) -> MixedSum:
    """Weighted sum of K branches, each batch-normalised first where its flag says so (D-DARTS, Eq. 3).

    out = sum_k w[g,k] xhat_k with xhat_k = (x_k - mean[g,k,c]) rstd[g,k,c], or x_k for a branch without norm. Equal to
    ``BatchNorm2d(affine=False)`` on every branch of every group, then the weighted sum; nothing normalised is stored.

    branches: K >= 1 tensors [G*B,C,H,W] of equal shape, float64/32/16 or bfloat16, dtypes may differ, one tensor may
        stand at several places. The batch is G contiguous groups, each with statistics of its own.
    weights: [G,K], or [K] for one group; any floating dtype.
    normalize: K flags, default none.
    mean, rstd: given statistics [1 or G,K,C] (eval mode); default: those of the batch, biased variance, ``eps``.

    Sums are float64 if a branch is float64, else float32. Returns :class:`MixedSum`: ``out`` has the promoted dtype
    of the branches and the layout (channels_last or contiguous) of the first one; mean and rstd that of the sums.
    Branches and weights have gradients, any number of times; given statistics are constants. Raises TypeError for
    dtypes and flags, ValueError for shapes, devices, and for batch statistics of a single value.
    """
    branches = listed(_OP, "branches", branches)
    if not branches:
        raise ValueError(f"{_OP}: branches must have at least one tensor, got none")
    first = branches[0]
    check_4d(_OP, "branches[0]", first)
    shape, device = first.shape, first.device
    for k, x in enumerate(branches):
        if fits(x, shape, device):
            continue
        check_4d(_OP, f"branches[{k}]", x)
        if x.shape != shape:
            raise ValueError(f"{_OP}: branches[{k}] must be {list(shape)}, got {list(x.shape)}")
        check_same_device(_OP, f"branches[{k}]", x, device)
    count = len(branches)
    check_floating(_OP, "weights", weights)
    check_same_device(_OP, "weights", weights, first.device)
    if weights.dim() not in (1, 2) or weights.shape[-1] != count:
        raise ValueError(f"{_OP}: weights must be [K]=[{count}] or [G,K]=[G,{count}], got {list(weights.shape)}")
    if weights.dim() == 1:
        weights = weights.unsqueeze(0)
    groups = weights.shape[0]
    check_groups(_OP, "branches", first.shape[0], groups)
    check_eps(_OP, eps)
    flags = [False] * count if normalize is None else flags_of(_OP, "normalize", normalize)
    if len(flags) != count:
        raise ValueError(f"{_OP}: normalize must have K={count} flags, got {len(flags)}")
    check_given_statistics(_OP, mean, rstd, groups, (count, first.shape[1]), "K,C")
    for name, given in (("mean", mean), ("rstd", rstd)):
        if given is not None:
            check_same_device(_OP, name, given, first.device)
    if mean is None and any(flags):
        check_batch_values(_OP, first.shape[0] // groups * first.shape[2] * first.shape[3], first.shape)
    return MixedSum(*_mixed_sum(branches, weights, flags, mean, rstd, eps))


def mixed_sum_reference(
    branches: Sequence[Tensor],
    weights: Tensor,
    normalize: Sequence[bool],
    mean: Tensor | None,
    rstd: Tensor | None,
    eps: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """The op in plain torch: fallback without a kernel, and what the kernels are tested against."""
    acc = accumulate_dtype(*(x.dtype for x in branches))
    groups = weights.shape[0]
    means, rstds = _constant_statistics(branches, weights, acc)
    total = torch.zeros((), dtype=acc, device=weights.device)
    for k, x in enumerate(branches):
        grouped = _grouped(x, groups, acc)
        if normalize[k]:
            if mean is None or rstd is None:
                mu, variance = _moments(grouped)
                r = (variance + eps).rsqrt()
            else:
                mu, r = (rows[:, k].to(acc).expand(groups, -1) for rows in (mean, rstd))
            means[:, k], rstds[:, k] = mu.detach(), r.detach()
            grouped = (grouped - _channelwise(mu)) * _channelwise(r)
        total = total + weights[:, k].to(acc).view(-1, 1, 1, 1, 1) * grouped
    return _like(total.flatten(0, 1).to(_out_dtype(branches)), branches[0]), means, rstds


def mixed_sum_backward_reference(
    grad: Tensor,
    branches: Sequence[Tensor],
    weights: Tensor,
    normalize: Sequence[bool],
    mean: Tensor,
    rstd: Tensor,
    batch_statistics: bool,
    weights_grad: bool,
) -> tuple[list[Tensor], Tensor]:
    """Gradients of the branches and of the weights; differentiable itself, statistics of the batch included.

    With G0_c = sum g and G1_kc = sum g xhat_k over the M values of a channel of a group: dw_k = sum_c G1_kc and
    dx_k = w_k rstd_kc (g - G0_c/M - xhat_k G1_kc/M); without the two means for given statistics or without norm.
    """
    acc = accumulate_dtype(*(x.dtype for x in branches))
    groups = weights.shape[0]
    g = _grouped(grad, groups, acc)
    values = max(1, g.shape[1] * g.shape[3] * g.shape[4])
    g_mean = g.sum(_PIXELS) / values
    grads, weights_grads = [], []
    for k, x in enumerate(branches):
        grouped = _grouped(x, groups, acc)
        mu, r = mean[:, k], rstd[:, k]
        if normalize[k] and batch_statistics:
            # As functions of x, for second derivatives. eps is what the given rstd holds beyond the variance.
            mu, variance = _moments(grouped)
            r = (variance + (r.detach().pow(-2) - variance.detach())).rsqrt()
        xhat = (grouped - _channelwise(mu)) * _channelwise(r)
        product = (g * xhat).sum(_PIXELS)
        inner = g
        if normalize[k] and batch_statistics:
            inner = g - _channelwise(g_mean) - xhat * _channelwise(product / values)
        scale = weights[:, k, None].to(acc) * r
        grads.append(_like((_channelwise(scale) * inner).flatten(0, 1).to(x.dtype), branches[0]))
        weights_grads.append(product.sum(1))
    d_weights = torch.stack(weights_grads, 1).to(weights.dtype)
    return grads, d_weights if weights_grad else torch.zeros_like(weights)


def _constant_statistics(branches: Sequence[Tensor], weights: Tensor, acc: torch.dtype) -> tuple[Tensor, Tensor]:
    shape = (weights.shape[0], len(branches), branches[0].shape[1])
    return weights.new_zeros(shape, dtype=acc), weights.new_ones(shape, dtype=acc)


def _moments(grouped: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and biased variance [G,C] of [G,B,C,H,W]; zeros for groups without values."""
    values = max(1, grouped.shape[1] * grouped.shape[3] * grouped.shape[4])
    mean = grouped.sum(_PIXELS) / values
    return mean, (grouped - _channelwise(mean)).square().sum(_PIXELS) / values


def _grouped(x: Tensor, groups: int, acc: torch.dtype) -> Tensor:
    return x.to(acc).view(groups, x.shape[0] // groups, *x.shape[1:])


def _channelwise(table: Tensor) -> Tensor:
    """[G,C] to [G,1,C,1,1]."""
    return table[:, None, :, None, None]


def _out_dtype(branches: Sequence[Tensor]) -> torch.dtype:
    return reduce(torch.promote_types, (x.dtype for x in branches))


def _like(x: Tensor, first: Tensor) -> Tensor:
    return x.contiguous(memory_format=memory_format_of(first))


def _fake(
    branches: Sequence[Tensor],
    weights: Tensor,
    normalize: Sequence[bool],
    mean: Tensor | None,
    rstd: Tensor | None,
    eps: float,
) -> tuple[Tensor, Tensor, Tensor]:
    first = branches[0]
    acc = accumulate_dtype(*(x.dtype for x in branches))
    table = weights.new_empty((weights.shape[0], len(branches), first.shape[1]), dtype=acc)
    return _empty(first, _out_dtype(branches), first), table, torch.empty_like(table)


def _backward_fake(
    grad: Tensor,
    branches: Sequence[Tensor],
    weights: Tensor,
    normalize: Sequence[bool],
    mean: Tensor,
    rstd: Tensor,
    batch_statistics: bool,
    weights_grad: bool,
) -> tuple[list[Tensor], Tensor]:
    grads = [_empty(x, x.dtype, branches[0]) for x in branches]
    return grads, weights.new_empty(weights.shape)


def _empty(x: Tensor, dtype: torch.dtype, first: Tensor) -> Tensor:
    return torch.empty(x.shape, dtype=dtype, device=x.device, memory_format=memory_format_of(first))


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
    branches, weights, normalize, given_mean, _, _ = inputs
    _, mean, rstd = output
    ctx.mark_non_differentiable(mean, rstd)
    ctx.set_materialize_grads(False)  # those of mean and rstd would be zeros that nothing reads
    ctx.save_for_backward(*branches, weights, mean, rstd)
    ctx.normalize, ctx.batch_statistics = list(normalize), given_mean is None


def _backward(ctx: Any, grad: Tensor | None, *_: None) -> tuple[Any, ...]:
    *branches, weights, mean, rstd = ctx.saved_tensors
    if grad is None:
        return [None] * len(branches), *[None] * 5
    weights_grad = ctx.needs_input_grad[1]
    grads, d_weights = _mixed_sum_backward(
        grad, branches, weights, ctx.normalize, mean, rstd, ctx.batch_statistics, weights_grad
    )
    return grads, d_weights if weights_grad else None, None, None, None, None


_mixed_sum = define_op(
    "mixed_sum(Tensor[] branches, Tensor weights, bool[] normalize, Tensor? mean, Tensor? rstd, float eps)"
    " -> (Tensor, Tensor, Tensor)",
    reference=mixed_sum_reference,
    fake=_fake,
    backward=_backward,
    setup_context=_setup_context,
)
_mixed_sum_backward = define_op(
    "mixed_sum_backward(Tensor grad, Tensor[] branches, Tensor weights, bool[] normalize, Tensor mean, Tensor rstd,"
    " bool batch_statistics, bool weights_grad) -> (Tensor[], Tensor)",
    reference=mixed_sum_backward_reference,
    fake=_backward_fake,
    **through_reference(mixed_sum_backward_reference),
)

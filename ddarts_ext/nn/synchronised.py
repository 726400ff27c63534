"""Batch norms whose statistics are those of the batches of several processes together (``SyncBatchNorm``).

They are computed in plain torch, not by the fused kernels, which know the batch of one process alone: the mean first,
then the mean square around it, so that no digits cancel. Each is one sum over the processes, for all branches of a node
at once, and so is each of their gradients.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from ddarts_ext.ops._checks import accumulate_dtype, memory_format_of


class Processes(Protocol):
    """Several processes, of which each has a part of every batch."""

    @property
    def world(self) -> int: ...

    def total(self, tensor: Tensor) -> Tensor:
        """The sum over all of them, differentiable."""
        ...


def statistics(parts: Sequence[Tensor], eps: float, processes: Processes) -> tuple[Tensor, Tensor]:
    """(mean, rstd) [K, G, C] of K tensors [G, B, C, H, W], over B, H, W and all processes."""
    count = parts[0].shape[1] * parts[0].shape[3] * parts[0].shape[4]
    sums = torch.stack([part.sum((1, 3, 4)) for part in parts])
    flat = processes.total(torch.cat([sums.flatten(), sums.new_full((1,), count)]))
    values, elements = flat[:-1].view_as(sums), flat[-1].detach()
    mean = values / elements
    squares = [
        (part - row[:, None, :, None, None]).square().sum((1, 3, 4)) for part, row in zip(parts, mean, strict=True)
    ]
    variance = processes.total(torch.stack(squares)) / elements
    return mean, (variance + eps).rsqrt()


def grouped_norm(
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    groups: int,
    eps: float,
    relu: bool,
    processes: Processes,
) -> tuple[Tensor, Tensor, Tensor]:
    """What :func:`ddarts_ext.ops.grouped_batch_norm` gives, out and mean and rstd [G, C], of all processes' batches."""
    wide = _by_group(x, groups, accumulate_dtype(x.dtype))
    (mean,), (rstd,) = (table.unbind() for table in statistics([wide], eps, processes))
    out = (wide - _wide(mean)) * _wide(rstd)
    if weight is not None:
        out = out * weight.to(out.dtype)[:, None, None]
    if bias is not None:
        out = out + bias.to(out.dtype)[:, None, None]
    out = (out.relu() if relu else out).reshape(x.shape).to(x.dtype)
    return out.contiguous(memory_format=memory_format_of(x)), mean.detach(), rstd.detach()


def mixed_sum(
    branches: Sequence[Tensor], weights: Tensor, normalize: Sequence[bool], eps: float, processes: Processes
) -> tuple[Tensor, Tensor, Tensor]:
    """What :func:`ddarts_ext.ops.mixed_sum` gives, out and mean and rstd [G, K, C], of all processes' batches."""
    acc, groups = accumulate_dtype(*(x.dtype for x in branches)), weights.shape[0]
    wide = [_by_group(x, groups, acc) for x in branches]
    channels = branches[0].shape[1]
    means = [wide[0].new_zeros(groups, channels)] * len(branches)
    rstds = [wide[0].new_ones(groups, channels)] * len(branches)
    normed = [k for k, flag in enumerate(normalize) if flag]
    if normed:
        found = statistics([wide[k] for k in normed], eps, processes)
        for k, mean, rstd in zip(normed, *(table.unbind() for table in found), strict=True):
            means[k], rstds[k] = mean, rstd
    total: Tensor | None = None
    for k, x in enumerate(wide):
        term = (x - _wide(means[k])) * _wide(rstds[k]) if normalize[k] else x
        term = term * weights[:, k].to(acc)[:, None, None, None, None]
        total = term if total is None else total + term
    assert total is not None
    dtype = branches[0].dtype
    for x in branches[1:]:
        dtype = torch.promote_types(dtype, x.dtype)
    out = total.reshape(branches[0].shape).to(dtype).contiguous(memory_format=memory_format_of(branches[0]))
    return out, torch.stack(means, 1).detach(), torch.stack(rstds, 1).detach()


def _by_group(x: Tensor, groups: int, acc: torch.dtype) -> Tensor:
    return x.to(acc).reshape(groups, x.shape[0] // groups, *x.shape[1:])


def _wide(rows: Tensor) -> Tensor:
    return rows[:, None, :, None, None]

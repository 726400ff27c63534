"""Batch norms that keep the groups of a batch apart, and the running statistics behind them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

import torch
from torch import Tensor, nn

from ddarts_ext import ops
from ddarts_ext.nn import synchronised
from ddarts_ext.nn.forward_pass import Pass, Update
from ddarts_ext.nn.synchronised import Processes


class RunningStatistics(nn.Module):
    """The running mean and variance of batch norms, updated as ``BatchNorm2d`` does.

    shape: [C] for one norm, [K, C] for all norms of a node. With ``track=False`` there are no buffers, and every pass
    uses the statistics of its batch. processes: those with whose batches it is one batch, see :mod:`.synchronised`.
    """

    running_mean: Tensor | None
    running_var: Tensor | None
    processes: Processes | None = None

    def __init__(self, *shape: int, track: bool = True, eps: float = 1e-5, momentum: float = 0.1) -> None:
        super().__init__()
        self.track, self.eps, self.momentum = track, eps, momentum
        self.register_buffer("running_mean", torch.zeros(shape) if track else None)
        self.register_buffer("running_var", torch.ones(shape) if track else None)

    def given(self, p: Pass) -> tuple[Tensor | None, Tensor | None]:
        """(mean, rstd), each [1, *shape], where the pass uses running statistics, else (None, None)."""
        if p.statistics != "running" or self.running_mean is None or self.running_var is None:
            return None, None
        return self.running_mean.unsqueeze(0), (self.running_var + self.eps).rsqrt().unsqueeze(0)

    def together(self, x: Tensor, p: Pass) -> Processes | None:
        """The processes whose batches give the statistics of the pass, None where the batch x alone or the running
        buffers do; a pass on the meta device is counted and not run."""
        return None if x.is_meta or (p.statistics == "running" and self.track) else self.processes

    def follows(self, p: Pass) -> bool:
        """Whether the pass updates the running buffers."""
        return p.statistics == "update" and self.track

    def record(self, mean: Tensor, rstd: Tensor, elements: int, p: Pass) -> None:
        """Follow group 0 of a batch's statistics [G, *shape], each of them over ``elements`` values."""
        record_together([self], mean.unsqueeze(1), rstd.unsqueeze(1), elements, p)

    @torch.no_grad()
    def record_rows(self, rows: Tensor, mean: Tensor, rstd: Tensor, elements: int, p: Pass) -> None:
        """As :meth:`record`, for some norms of a [K, C] node: mean and rstd [G, k, C] are of ``rows``."""
        if not self.follows(p) or self.running_mean is None or self.running_var is None:
            return
        found = (mean[0], unbiased_variance(rstd[0], self.eps, elements))
        for buffer, value in zip((self.running_mean, self.running_var), found, strict=True):
            buffer[rows] = buffer[rows].lerp(value.to(buffer.dtype), self.momentum)

    def keep(self, rows: Tensor) -> None:
        """Drop the statistics of all norms of a [K, C] node but ``rows``."""
        if self.running_mean is not None and self.running_var is not None:
            self.running_mean, self.running_var = self.running_mean[rows], self.running_var[rows]

    def extra_repr(self) -> str:
        shape = () if self.running_mean is None else tuple(self.running_mean.shape)
        return f"{shape}, track={self.track}, eps={self.eps}, momentum={self.momentum}"


def synchronise_norms(network: nn.Module, processes: Processes | None) -> None:
    """Have all norms of ``network`` take the statistics of the batches of ``processes``; None: of their own batch."""
    for module in network.modules():
        if isinstance(module, RunningStatistics):
            module.processes = processes


def given_together(norms: Sequence[RunningStatistics], p: Pass) -> tuple[Tensor | None, Tensor | None]:
    """What :meth:`RunningStatistics.given` says of several norms of one kind, each [1, len(norms), *shape]."""
    means, rstds = zip(*(norm.given(p) for norm in norms), strict=True)
    if means[0] is None:
        return None, None
    return torch.stack(means, 1), torch.stack(rstds, 1)


def record_together(norms: Sequence[RunningStatistics], mean: Tensor, rstd: Tensor, elements: int, p: Pass) -> None:
    """:meth:`RunningStatistics.record` of several norms of one kind, from [G, len(norms), *shape]."""
    if not norms[0].follows(p):
        return
    update = Update(norms, mean[0], rstd[0], elements)
    if p.updates is None:
        _apply([update])
    else:
        p.updates.append(update)


@contextmanager
def updating(p: Pass) -> Iterator[Pass]:
    """A pass whose norms update their running buffers at the end, all of them in a few calls; each is used once.

    One by one, the norms of a supernet take some two percent of a small step on a CPU.
    """
    if p.statistics != "update" or p.updates is not None:
        yield p
        return
    together = replace(p, updates=[])
    yield together
    assert together.updates is not None
    _apply(together.updates)


@torch.no_grad()
def _apply(updates: Sequence[Update]) -> None:
    alike: dict[tuple[object, ...], list[Update]] = {}
    for update in updates:
        norm, rstd = update.norms[0], update.rstd
        alike.setdefault((norm.eps, norm.momentum, update.elements, rstd.dtype, rstd.device), []).append(update)
    for found in alike.values():
        norm = found[0].norms[0]
        rstd = torch.cat([update.rstd.flatten() for update in found])
        sizes = [update.rstd.numel() for update in found]
        variances = torch.split(unbiased_variance(rstd, norm.eps, found[0].elements), sizes)
        buffers: list[Tensor] = []
        values: list[Tensor] = []
        for update, variance in zip(found, variances, strict=True):
            rows = update.mean.unbind(), variance.view_as(update.rstd).unbind()
            for target, mean, var in zip(update.norms, *rows, strict=True):
                assert target.running_mean is not None
                assert target.running_var is not None
                buffers += (target.running_mean, target.running_var)
                values += (mean, var)
        if rstd.dtype != buffers[0].dtype:
            values = [value.to(buffers[0].dtype) for value in values]
        torch._foreach_lerp_(buffers, values, norm.momentum)


def unbiased_variance(rstd: Tensor, eps: float, elements: int) -> Tensor:
    """The variance that running statistics follow, from the rstd of ``elements`` values."""
    return rstd.pow(-2).sub_(eps).clamp_min_(0.0).mul_(elements / max(elements - 1, 1))


def elements_per_group(x: Tensor, groups: int) -> int:
    """How many values of [groups * B, C, H, W] each channel's statistics are taken over."""
    return x.numel() // max(1, groups * x.shape[1])


class GroupedNorm(RunningStatistics):
    """``BatchNorm2d`` of ``p.groups`` contiguous groups, each normalised by itself; optional ReLU after it."""

    weight: Tensor | None
    bias: Tensor | None

    def __init__(
        self, channels: int, *, affine: bool = False, track: bool = True, eps: float = 1e-5, momentum: float = 0.1
    ) -> None:
        super().__init__(channels, track=track, eps=eps, momentum=momentum)
        self.register_parameter("weight", nn.Parameter(torch.ones(channels)) if affine else None)
        self.register_parameter("bias", nn.Parameter(torch.zeros(channels)) if affine else None)

    def forward(self, x: Tensor, p: Pass, relu: bool = False) -> Tensor:
        """[groups * B, C, H, W] -> the same shape, dtype and layout."""
        processes = self.together(x, p)
        if processes is not None:
            out, mean, rstd = synchronised.grouped_norm(x, self.weight, self.bias, p.groups, self.eps, relu, processes)
            self.record(mean, rstd, elements_per_group(x, p.groups) * processes.world, p)
            return out
        given = self.given(p)
        result = ops.grouped_batch_norm(
            x, self.weight, self.bias, mean=given[0], rstd=given[1], groups=p.groups, eps=self.eps, relu=relu
        )
        self.record(result.mean, result.rstd, elements_per_group(x, p.groups), p)
        return result.out

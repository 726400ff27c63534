"""The mixed node, which sums its branches in one op, and the mixed op for people who build their own cells."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

import torch
from torch import Tensor, nn

from ddarts_ext import ops
from ddarts_ext.nn import synchronised
from ddarts_ext.nn.forward_pass import NodeKey, Pass
from ddarts_ext.nn.idle_bias import with_idle_biases
from ddarts_ext.nn.norm import RunningStatistics, elements_per_group
from ddarts_ext.nn.primitives import SEARCH, Pool, Primitive, Style, primitive
from ddarts_ext.nn.readers import readers
from ddarts_ext.ops._columns import take_columns

Slot = TypeVar("Slot", bound=Hashable)
_RUNNING = Pass(statistics="running")


@dataclass(frozen=True)
class Launch(Generic[Slot]):
    """Ops of one family that read the same state, and where each one's output goes."""

    family: type[Primitive]
    members: tuple[Primitive, ...]
    slots: tuple[Slot, ...]

    @property
    def reads(self) -> int:
        """How many times the ops read their input."""
        return len(self.members) if self.family.pure else 1

    def run(self, inputs: Sequence[Tensor], p: Pass) -> Iterable[tuple[Slot, Tensor]]:
        """The output of every op, with its slot. inputs: the state, once for every time that it is read."""
        outputs = inputs if self.family.pure else self.family.run(self.members, inputs[0], p)
        return zip(self.slots, outputs, strict=True)


def launches(entries: Iterable[tuple[Slot, Primitive]]) -> tuple[Launch[Slot], ...]:
    """The launches that serve all ``entries``, which read one state, family by family."""
    families: dict[type[Primitive], list[tuple[Slot, Primitive]]] = {}
    for slot, op in entries:
        families.setdefault(op.family, []).append((slot, op))
    return tuple(
        Launch(family, tuple(op for _, op in found), tuple(slot for slot, _ in found))
        for family, found in families.items()
    )


def run_all(launched: Sequence[Launch[Slot]], x: Tensor, p: Pass) -> tuple[list[tuple[Slot, Tensor]], Tensor]:
    """The outputs of all ops on the state ``x``, with their slots, and ``x`` for what reads it later."""
    pools = [launch for launch in launched if launch.family is Pool]
    others = [launch for launch in launched if launch.family is not Pool]
    count = sum(launch.reads for launch in others) + 1
    found: list[tuple[Slot, Tensor]] = []
    if pools:
        pooled, parts = Pool.run_beside(pools[0].members, x, count)
        found += zip(pools[0].slots, pooled, strict=True)
    else:
        parts = readers(x, count)
    read = 0
    for launch in others:
        found += launch.run(parts[read : read + launch.reads], p)
        read += launch.reads
    return found, parts[-1]


@dataclass
class PartialSum:
    """What is summed of a node already: the sum, and per part of it the places of its branches, mean and rstd."""

    total: Tensor | None = None
    statistics: list[tuple[Sequence[int], Tensor, Tensor]] = field(default_factory=list)


class MixedNode(nn.Module):
    """out = sum_k w_k norm_k(branch_k) over the branches of all edges into a node, in one op.

    normalize: per branch, whether an affine-free batch norm comes before the weight. Running statistics of all
    branches lie in one [K, C] buffer pair; rows of branches without norm mean nothing.
    """

    def __init__(self, channels: int, normalize: Sequence[bool], *, track: bool = True) -> None:
        super().__init__()
        self.normalize = list(normalize)
        self.running = RunningStatistics(len(self.normalize), channels, track=track)

    def forward(self, branches: Sequence[Tensor], weights: Tensor, p: Pass, key: NodeKey) -> Tensor:
        """K branches [groups * B, C, H, W], weights [groups, K] -> [groups * B, C, H, W]."""
        processes, elements = self.running.together(branches[0], p), elements_per_group(branches[0], p.groups)
        if processes is not None:
            out, mean, rstd = synchronised.mixed_sum(branches, weights, self.normalize, self.running.eps, processes)
            elements *= processes.world
        else:
            given = self.running.given(p)
            out, mean, rstd = ops.mixed_sum(
                branches, weights, normalize=self.normalize, mean=given[0], rstd=given[1], eps=self.running.eps
            )
        self.running.record(mean, rstd, elements, p)
        if p.observe is not None:
            p.observe(key, branches, mean, rstd, self.normalize)
        return out

    def complete(
        self, partial: PartialSum, slots: Sequence[int], branches: Sequence[Tensor], weights: Tensor, p: Pass
    ) -> Tensor:
        """The node where all branches but those of ``slots`` are summed; branches and weights [groups, k]: theirs."""
        total = partial.total
        if branches:
            mean, rstd = self.running_rows(slots) if p.statistics == "running" and self.running.track else (None, None)
            flags = [self.normalize[slot] for slot in slots]
            result = ops.mixed_sum(branches, weights, normalize=flags, mean=mean, rstd=rstd, eps=self.running.eps)
            total = result.out if total is None else total + result.out
            partial.statistics.append((slots, result.mean, result.rstd))
        assert total is not None
        if self.running.follows(p):
            parts, means, rstds = zip(*partial.statistics, strict=True)
            mean, rstd = torch.cat(means, 1), torch.cat(rstds, 1)
            order = [slot for part in parts for slot in part]
            if order != sorted(order):
                places = sorted(range(len(order)), key=order.__getitem__)
                mean, rstd = take_columns(mean, places), take_columns(rstd, places)
            self.running.record(mean, rstd, elements_per_group(total, p.groups), p)
        return total

    def some(self, slots: Sequence[int], branches: Sequence[Tensor], weights: Tensor, p: Pass) -> Tensor:
        """The node where the branches of all but ``slots`` weigh nothing; weights [groups, k]: of those."""
        mean, rstd = self.running_rows(slots) if p.statistics == "running" and self.running.track else (None, None)
        flags = [self.normalize[slot] for slot in slots]
        result = ops.mixed_sum(branches, weights, normalize=flags, mean=mean, rstd=rstd, eps=self.running.eps)
        rows = torch.tensor(slots, device=weights.device)
        self.running.record_rows(rows, result.mean, result.rstd, elements_per_group(result.out, p.groups), p)
        return result.out

    def running_rows(self, slots: Sequence[int]) -> tuple[Tensor, Tensor]:
        """mean and rstd [1, k, C] of the branches of ``slots``, from the running buffers."""
        mean, rstd = self.running.given(_RUNNING)
        assert mean is not None
        assert rstd is not None
        return take_columns(mean, slots), take_columns(rstd, slots)

    def keep(self, rows: Sequence[int]) -> None:
        """Drop all branches but ``rows``."""
        self.normalize = [self.normalize[row] for row in rows]
        device = None if self.running.running_mean is None else self.running.running_mean.device
        self.running.keep(torch.tensor(list(rows), dtype=torch.long, device=device))


class MixedOp(nn.Module):
    """All candidate ops on one edge, mixed by weights: DARTS, Eq. 2 (weights given already relaxed).

    names: ops by name, see ``ddarts_ext.spaces``. ``none`` takes its place in the weights and contributes nothing.
    """

    def __init__(self, names: Sequence[str], channels: int, stride: int = 1, style: Style = SEARCH) -> None:
        super().__init__()
        built = [(k, primitive(name, channels, stride, style)) for k, name in enumerate(names)]
        present = [(k, op) for k, op in built if op is not None]
        self.names, self.stride = tuple(names), stride
        self.columns = tuple(k for k, _ in present)
        self.ops = nn.ModuleList(op for _, op in present)
        self.node = MixedNode(channels, [op.normalized for _, op in present], track=style.track)
        self._launches = launches((slot, op) for slot, (_, op) in enumerate(present))
        self._biased = style.conv_bias

    def forward(self, x: Tensor, weights: Tensor, p: Pass | None = None) -> Tensor:
        """x [groups * B, C, H, W], weights [O] or [groups, O] -> [groups * B, C, ceil(H/stride), ceil(W/stride)].

        p: how the norms behave; by default as ``train()`` or ``eval()`` says.
        """
        if weights.shape[-1:] != (len(self.names),) or weights.dim() > 2:
            raise ValueError(f"MixedOp: weights must be [O]=[{len(self.names)}], got {list(weights.shape)}")
        p = Pass.default(self.training) if p is None else p
        if not self.columns:
            return torch.zeros_like(x[:, :, :: self.stride, :: self.stride])
        rows = weights if weights.dim() == 2 else weights.unsqueeze(0).expand(p.groups, -1)
        if len(self.columns) < len(self.names):
            rows = rows[:, list(self.columns)]
        outputs = dict(pair for launch in self._launches for pair in launch.run([x] * launch.reads, p))
        branches = [outputs[slot] for slot in range(len(outputs))]
        out: Tensor = self.node(branches, rows, p, NodeKey(0, 0, self.columns))
        return with_idle_biases(out, self) if self._biased else out

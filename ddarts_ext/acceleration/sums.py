"""A weighted sum of branches, taken by one ``mixed_sum`` with the batch norms that end the ops folded in."""

from __future__ import annotations

from functools import lru_cache
from typing import TypeAlias

import torch
from torch import Tensor, nn

from ddarts_ext import ops
from ddarts_ext.acceleration import norms
from ddarts_ext.acceleration.branch import Branch, Pass

Weight: TypeAlias = "Tensor | float | None"
"""None stands for 1."""


def take(shared: Pass, branches: list[Branch], weights: list[Weight]) -> Tensor:
    """The weighted sum, by one ``mixed_sum``; norms that it cannot fold in beside the others are applied first."""
    if len(branches) == 1 and weights[0] is None:
        return branches[0].plain()
    sources = {id(branch.source) for branch in branches if branch.raw is not None}
    # Zeros count where nothing else connects their input with the sum: its gradient is 0 then, not None.
    for branch in branches:
        if branch.raw is None and id(branch.source) not in sources:
            sources.add(id(branch.source))
            branch.plain()
    present = [k for k, branch in enumerate(branches) if branch.raw is not None]
    found = [branches[k] for k in present]
    lead = next((branch.norm for branch in found if branch.norm is not None), None)
    normalised = {
        branch: branch.norm for branch in found if lead and branch.norm is not None and _alike(branch.norm, lead)
    }
    flags = [branch in normalised for branch in found]
    tensors = [
        branch.raw if flag and branch.raw is not None else branch.plain()
        for branch, flag in zip(found, flags, strict=True)
    ]
    table = _table(weights, present, tensors[0])
    shared.sums += sum(branch.op for branch in branches) > 1
    if lead is None:
        return ops.mixed_sum(tensors, table).out
    mean = rstd = None
    of_batch = norms.uses_batch(lead)
    if not of_batch:
        batch_norms = [normalised.get(branch, lead) for branch in found]
        mean = torch.stack([norm.running_mean for norm in batch_norms if norm.running_mean is not None]).unsqueeze(0)
        variance = torch.stack([norm.running_var for norm in batch_norms if norm.running_var is not None])
        rstd = (variance + lead.eps).rsqrt().unsqueeze(0)
    result = ops.mixed_sum(tensors, table, normalize=flags, mean=mean, rstd=rstd, eps=lead.eps)
    if of_batch:
        _record(shared, found, normalised, result)
    else:
        for branch in normalised:
            shared.waiting.pop(branch, None)
    return result.out


def _record(shared: Pass, found: list[Branch], normalised: dict[Branch, nn.BatchNorm2d], result: ops.MixedSum) -> None:
    """Follow the statistics, once for a branch that is used several times."""
    rows = [k for k, branch in enumerate(found) if branch in normalised and branch.first_use()]
    if not rows:
        return
    mean, rstd = result.mean[0], result.rstd[0]
    if len(rows) < len(found):
        index = _index(tuple(rows), str(mean.device))
        mean, rstd = mean.index_select(0, index), rstd.index_select(0, index)
    values = result.out.numel() // max(1, result.out.shape[1])
    shared.running.record([normalised[found[k]] for k in rows], mean, rstd, values)


def _alike(norm: nn.BatchNorm2d, lead: nn.BatchNorm2d) -> bool:
    return norm.eps == lead.eps and norms.uses_batch(norm) == norms.uses_batch(lead)


def _table(weights: list[Weight], present: list[int], like: Tensor) -> Tensor:
    """The weights of the present branches, [K]. Weights of absent ones get a zero gradient, not none."""
    tensor = next((weight for weight in weights if isinstance(weight, Tensor)), None)
    if tensor is None:
        numbers = [1.0 if weight is None else weight for k, weight in enumerate(weights) if k in set(present)]
        if all(number == 1.0 for number in numbers):
            return like.new_ones(len(numbers))
        return torch.tensor(numbers, dtype=like.dtype, device=like.device)
    dtype = tensor.dtype if tensor.is_floating_point() else like.dtype
    rows = [_scalar(weight, dtype, tensor.device) for weight in weights]
    table = torch.stack(rows).to(like.device)
    if len(present) < len(weights):
        table = table.index_select(0, _index(tuple(present), str(like.device)))
    return table


def _scalar(weight: Weight, dtype: torch.dtype, device: torch.device) -> Tensor:
    if isinstance(weight, Tensor):
        return weight if weight.dtype == dtype and weight.device == device else weight.to(device, dtype)
    return torch.full((), 1.0 if weight is None else weight, dtype=dtype, device=device)


@lru_cache(maxsize=1024)
def _index(rows: tuple[int, ...], device: str) -> Tensor:
    return torch.tensor(rows, dtype=torch.long, device=device)

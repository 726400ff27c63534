"""Rates of optimisers, and their state in checkpoints, the same on every device."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

_OF_THE_DEVICE = ("lr", "fused", "foreach", "capturable")
"""Settings of a group that follow from the device of a run; its rate is set anew in every epoch."""


def rates_as_tensors(optimizer: Optimizer) -> None:
    """Keep the rates in tensors, which :func:`set_rate` changes in place: a CUDA graph reads the rate of the day."""
    for group in optimizer.param_groups:
        if not isinstance(group["lr"], Tensor):
            device = group["params"][0].device
            # The fused kernels of a GPU read float32; those of a CPU convert to what a Python number would be.
            dtype = torch.float32 if device.type == "cuda" else torch.float64
            group["lr"] = torch.tensor(group["lr"], dtype=dtype, device=device)


def set_rate(optimizer: Optimizer, rate: float, *others: float) -> None:
    """The rate of all groups, or of the first and of each other one, in place where it is a tensor."""
    rates = (rate, *others) if others else (rate,) * len(optimizer.param_groups)
    for group, own in zip(optimizer.param_groups, rates, strict=True):
        if isinstance(group["lr"], Tensor):
            group["lr"].fill_(own)
        else:
            group["lr"] = own


def state_of(optimizer: Optimizer) -> dict[str, Any]:
    """``state_dict`` with rates as numbers; waits for the device."""
    state = optimizer.state_dict()
    return {**state, "param_groups": [{**group, "lr": float(group["lr"])} for group in state["param_groups"]]}


def take_up(optimizer: Optimizer, state: dict[str, Any]) -> None:
    """Take up :func:`state_of`, on whatever device it was taken."""
    groups = [
        {**theirs, **{name: ours[name] for name in _OF_THE_DEVICE if name in ours}}
        for theirs, ours in zip(state["param_groups"], optimizer.param_groups, strict=True)
    ]
    optimizer.load_state_dict({**state, "param_groups": groups})
    for parameter, kept in optimizer.state.items():
        for name, value in kept.items():
            # Fused kernels go through the memory of both alike; where it was taken, it may have lain differently.
            if isinstance(value, Tensor) and value.shape == parameter.shape and value.stride() != parameter.stride():
                kept[name] = torch.empty_like(parameter).copy_(value)


def tensors_of(optimizer: Optimizer) -> list[Tensor]:
    """Its rates and all that it keeps of its parameters."""
    rates = [group["lr"] for group in optimizer.param_groups]
    kept = [value for state in optimizer.state.values() for value in state.values()]
    return [value for value in (*rates, *kept) if isinstance(value, Tensor)]

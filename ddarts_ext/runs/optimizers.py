"""Rates of optimisers, and their state in checkpoints, the same on every device."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

_OF_THE_DEVICE = ("lr", "fused", "foreach", "capturable")
"""Settings of a group that follow from the device of a run; its rate is set anew in every epoch."""


OptimizerFactory = Callable[[Any], Optimizer]
"""What makes an optimiser of parameters, or of groups of them, as the classes of ``torch.optim`` take them."""


def own_optimizer(command: str, what: str, make: OptimizerFactory, parameters: list[Any]) -> Optimizer:
    """The optimiser that a function of the caller makes of parameters, or of groups of them, with its rates kept as
    ``initial_lr``: :func:`scale_rates` takes parts of them. what: the argument. Raises TypeError or ValueError.
    """
    try:
        optimizer = make(parameters)
    except TypeError as error:
        raise TypeError(f"{command}: {what} must be a function of the parameters: {error}") from error
    if not isinstance(optimizer, Optimizer):
        raise TypeError(f"{command}: {what} must give a torch.optim.Optimizer, got {type(optimizer).__name__}")
    given = [p for group in parameters for p in (group["params"] if isinstance(group, dict) else [group])]
    taken = {id(p) for group in optimizer.param_groups for p in group["params"]}
    if taken != {id(p) for p in given}:
        raise ValueError(
            f"{command}: {what} must take all parameters that it is given, got {len(taken)} of {len(given)}"
        )
    for group in optimizer.param_groups:
        group["initial_lr"] = float(group["lr"])
    return optimizer


def tried(command: str, what: str, make: OptimizerFactory | None, device: torch.device) -> str | None:
    """What keeps steps of the optimiser that ``make`` makes out of a CUDA graph; None where nothing does. Raises as
    :func:`own_optimizer` does."""
    if make is None:
        return None
    parameter = nn.Parameter(torch.zeros(1, device=device))
    optimizer = own_optimizer(command, what, make, [parameter])
    parameter.grad = torch.zeros_like(parameter)
    try:
        with suppress(AssertionError):  # of one for graphs on a device that has none
            optimizer.step()
    except TypeError as error:
        raise TypeError(f"{command}: {what} must take steps without a function of the loss: {error}") from error
    return None if capturable(optimizer) else f"{type(optimizer).__name__} of {what} is not made with capturable=True"


def capturable(optimizer: Optimizer) -> bool:
    """Whether its steps read nothing on the host: Adam and others made so, and SGD, fused, or one of our own that says
    ``steps_as_sgd``."""
    fused = type(optimizer) is torch.optim.SGD or getattr(optimizer, "steps_as_sgd", False)
    return all(group.get("capturable") or (fused and group.get("fused")) for group in optimizer.param_groups)


def scale_rates(optimizer: Optimizer, *factors: float) -> float:
    """Set every rate to a part of what the optimiser was made with, one factor for all groups or one for each; the rate
    of the first group."""
    each = factors if len(factors) > 1 else factors * len(optimizer.param_groups)
    rates = [group["initial_lr"] * factor for group, factor in zip(optimizer.param_groups, each, strict=True)]
    set_rate(optimizer, rates[0], *rates[1:])
    return float(rates[0])


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


def rate_of(optimizer: Optimizer) -> float:
    """The rate of the first group; waits for the device where it is a tensor."""
    return float(optimizer.param_groups[0]["lr"])


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

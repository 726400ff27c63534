"""A run whose figures are NaN or infinite stops: nothing that follows from them means anything."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn

from ddarts_ext.runs.sums import NotFinite, Sums

LOSSES = {
    "train_loss": "the training loss",
    "architecture_loss": "the loss of the alphas' images",
    "gradient": "the norm of the weights' gradient",
    "valid_loss": "the validation loss",
    "test_loss": "the loss of the held-out images",
    "zero_one": "the zero-one loss",
    "ablation": "the ablation loss",
    "contributions": "the contribution",
    "alpha_gradient": "the gradient of an alpha",
}


class NotFiniteError(ValueError):
    """Raised by a run for a figure that is NaN or infinite, before anything of its epoch is written."""


def named(found: NotFinite) -> str:
    """A sum in words; ``place`` is where its kind is not known."""
    place = f" {list(found.place)}" if found.place else ""
    return f"{LOSSES.get(found.name, found.name)}{place}"


def check_sums(sums: Sums, run: str, epoch: int, kept: str, name: Callable[[NotFinite], str] = named) -> None:
    """Raise NotFiniteError for the sum that first was not finite. run: the command. kept: what is there of before."""
    found = sums.first_not_finite()
    if found is not None:
        raise NotFiniteError(
            f"{run}: {name(found)} must be finite, got {found.value} in step {found.step + 1} of epoch {epoch + 1}; "
            f"{kept}"
        )


def check_tensors(module: nn.Module, run: str, epoch: int, kept: str) -> None:
    """Raise NotFiniteError for the first parameter or statistic that is not finite; waits for the device once."""
    tensors = {name: t for name, t in module.state_dict().items() if t.is_floating_point() and t.numel()}
    if not tensors:
        return
    # The largest magnitude is NaN or infinite if any element is: one pass, and no mask of all elements.
    largest = torch.stack([t.detach().abs().amax().float() for t in tensors.values()])
    bad = (~largest.isfinite()).nonzero().flatten().tolist()
    if bad:
        name = list(tensors)[bad[0]]
        raise NotFiniteError(
            f"{run}: {name} must be finite, got {float(largest[bad[0]])} at the end of epoch {epoch + 1}; {kept}"
        )


def check_record(record: Mapping[str, Any], run: str, epoch: int, kept: str) -> None:
    """Raise NotFiniteError for NaN anywhere in a record of the history."""
    place = _nan(record, "")
    if place is not None:
        raise NotFiniteError(f"{run}: {place} must be a number, got nan in epoch {epoch + 1}; {kept}")


def _nan(value: Any, place: str) -> str | None:
    if isinstance(value, float):
        return place.lstrip(".") if math.isnan(value) else None
    items: Any = ()
    if isinstance(value, Mapping):
        items = ((f".{key}", item) for key, item in value.items())
    elif isinstance(value, (list, tuple)):
        items = ((f"[{index}]", item) for index, item in enumerate(value))
    return next((found for key, item in items if (found := _nan(item, place + key)) is not None), None)

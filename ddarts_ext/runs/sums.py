"""Figures of an epoch, summed on the device and read once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

Values = dict[str, Tensor]


@dataclass(frozen=True)
class NotFinite:
    """A sum that is NaN or infinite. step: from 0. place: index of the element, empty for a number."""

    step: int
    name: str
    place: tuple[int, ...]
    value: float


class Sums:
    """Sums over an epoch that stay on the device until :meth:`means` reads them.

    A sum that is not finite stays so, which makes it its own flag: beside every sum stands, for each of its elements,
    how often it was finite after a value was added, so that :meth:`first_not_finite` can tell in which step that ended,
    without a look at any value meanwhile.
    """

    def __init__(self) -> None:
        self._total: Values = {}
        self._count: dict[str, int] = {}
        self._largest: Values = {}
        self._finite: Values = {}

    def add(self, name: str, value: Tensor, count: int = 1) -> None:
        """Add a sum over ``count`` things."""
        held = self._total.get(name)
        total = value.detach().double() if held is None else held + value.detach()
        finite = total.isfinite()
        self._finite[name] = finite.long() if held is None else self._finite[name] + finite
        self._total[name] = total
        self._count[name] = self._count.get(name, 0) + count

    def largest(self, name: str, value: Tensor) -> None:
        """Keep the largest value seen."""
        held = self._largest.get(name)
        value = value.detach().double()
        self._largest[name] = value if held is None else torch.maximum(held, value)

    def maxima(self) -> dict[str, float]:
        """The largest of everything that was kept so; waits for the device."""
        return {name: float(value) for name, value in self._largest.items()}

    def means(self) -> dict[str, float | list[float]]:
        """The mean of everything added; waits for the device."""
        return {name: (total / self._count[name]).tolist() for name, total in self._total.items()}

    def first_not_finite(self) -> NotFinite | None:
        """Which sum first was not finite: in the earliest step, of those the one that is added first in a step. None
        where all are finite; waits for the device."""
        found: list[NotFinite] = []
        for name, total in self._total.items():
            places = (~total.isfinite()).nonzero()
            if len(places):
                steps = self._finite[name][tuple(places.T)] if total.ndim else self._finite[name][None]
                first = int(steps.argmin())
                place = tuple(places[first].tolist())
                found.append(NotFinite(int(steps[first]), name, place, float(total[place])))
        return min(found, key=lambda one: one.step, default=None)

    def joined(self, other: Sums) -> Sums:
        """These sums and others, of other names."""
        both = Sums()
        for name in ("_total", "_count", "_largest", "_finite"):
            setattr(both, name, {**getattr(self, name), **getattr(other, name)})
        return both

    def state_dict(self) -> dict[str, Any]:
        """All of it, for a checkpoint."""
        return {"total": self._total, "count": self._count, "largest": self._largest, "finite": self._finite}

    def load_state_dict(self, state: dict[str, Any], device: torch.device) -> None:
        """Take up what :meth:`state_dict` gave."""
        self._count = {str(name): int(count) for name, count in state["count"].items()}
        self._total, self._largest, self._finite = (
            {name: value.to(device) for name, value in state[key].items()} for key in ("total", "largest", "finite")
        )


def judge(sums: Sums, name: str, logits: Tensor, labels: Tensor, loss: Tensor) -> None:
    """Add one batch's mean loss and its hits."""
    count = len(labels)
    sums.add(f"{name}_loss", loss * count, count)
    sums.add(f"{name}_accuracy", (logits.argmax(1) == labels).sum(), count)

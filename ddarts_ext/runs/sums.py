"""Figures of an epoch, summed on the device and read once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
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

    A sum is made when something is first added to it, and changed in place from then on, :meth:`clear` included: what
    is captured as a CUDA graph goes on adding to the same memory. How often something was added is counted on the host;
    a replay, which runs no Python, is told it by :meth:`counted`.
    """

    def __init__(self) -> None:
        self._total: Values = {}
        self._largest: Values = {}
        self._finite: Values = {}
        self._count: Counter[str] = Counter()
        """Of things added, by name; of what :meth:`largest` keeps, how often it was called."""

    def add(self, name: str, value: Tensor, count: int = 1) -> None:
        """Add a sum over ``count`` things."""
        value = value.detach()
        held = self._total.get(name)
        if held is None:
            held = self._total[name] = value.to(torch.float64, copy=True)
            self._finite[name] = held.isfinite().long()
        else:
            held.add_(value)
            self._finite[name].add_(held.isfinite())
        self._count[name] += count

    def largest(self, name: str, value: Tensor) -> None:
        """Keep the largest value seen."""
        value = value.detach()
        held = self._largest.get(name)
        if held is None:
            self._largest[name] = value.to(torch.float64, copy=True)
        else:
            torch.maximum(held, value.double(), out=held)
        self._count[name] += 1

    def clear(self) -> None:
        """As if nothing had been added yet."""
        for values, start in ((self._total, 0.0), (self._finite, 0), (self._largest, -torch.inf)):
            for value in values.values():
                value.fill_(start)
        self._count.clear()

    def counts(self) -> Counter[str]:
        """A copy of how often something was added, by name."""
        return self._count.copy()

    def counted(self, counts: Counter[str]) -> None:
        """Take up :meth:`counts`."""
        self._count = counts.copy()

    def tensors(self) -> list[Tensor]:
        """Everything that is changed in place."""
        return [*self._total.values(), *self._finite.values(), *self._largest.values()]

    def _added(self, values: Values) -> Values:
        """Those to which something was added since :meth:`clear`."""
        return {name: value for name, value in values.items() if self._count[name]}

    def maxima(self) -> dict[str, float]:
        """The largest of everything that was kept so; waits for the device."""
        return {name: float(value) for name, value in self._added(self._largest).items()}

    def means(self) -> dict[str, float | list[float]]:
        """The mean of everything added; waits for the device."""
        return {name: (total / self._count[name]).tolist() for name, total in self._added(self._total).items()}

    def first_not_finite(self) -> NotFinite | None:
        """Which sum first was not finite: in the earliest step, of those the one that is added first in a step. None
        where all are finite; waits for the device."""
        found: list[NotFinite] = []
        for name, total in self._added(self._total).items():
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
        for name in ("_total", "_largest", "_finite"):
            setattr(both, name, {**self._added(getattr(self, name)), **other._added(getattr(other, name))})
        both._count = self._count + other._count
        return both

    def sizes(self) -> dict[str, tuple[list[int], int]]:
        """Shape and count of every sum, by name."""
        return {name: (list(total.shape), self._count[name]) for name, total in self._added(self._total).items()}

    def added_up(
        self,
        shapes: Mapping[str, Sequence[int]],
        counts: Mapping[str, int],
        device: torch.device,
        total: Callable[[Tensor], Tensor],
    ) -> None:
        """Take up sums of several processes, of which each may lack some. total: gives the sum of a tensor over all."""
        for name, shape in shapes.items():
            if not self._count[name]:
                self._total[name] = torch.zeros(list(shape), dtype=torch.float64, device=device)
                self._finite[name] = torch.zeros(list(shape), dtype=torch.long, device=device)
        if shapes:
            every = [self._total[name] for name in shapes]
            parts = torch.split(total(torch.cat([own.flatten() for own in every])), [own.numel() for own in every])
            for own, part in zip(every, parts, strict=True):
                own.copy_(part.view_as(own))
        self._count.update({name: count - self._count[name] for name, count in counts.items()})

    def take(self, other: Sums) -> None:
        """Take up sums of other names."""
        for name in ("_total", "_largest", "_finite"):
            getattr(self, name).update(other._added(getattr(other, name)))
        self._count.update(other._count)

    def state_dict(self) -> dict[str, Any]:
        """All of it, for a checkpoint."""
        total, largest, finite = map(self._added, (self._total, self._largest, self._finite))
        return {"total": total, "count": dict(self._count), "largest": largest, "finite": finite}

    def load_state_dict(self, state: dict[str, Any], device: torch.device) -> None:
        """Take up what :meth:`state_dict` gave."""
        self._count = Counter({str(name): int(count) for name, count in state["count"].items()})
        self._total, self._largest, self._finite = (
            {name: value.to(device) for name, value in state[key].items()} for key in ("total", "largest", "finite")
        )
        # Checkpoints from before maxima were counted.
        self._count.update(name for name in self._largest if not self._count[name])

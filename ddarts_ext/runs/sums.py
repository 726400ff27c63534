"""Figures of an epoch, summed on the device and read once."""

from __future__ import annotations

import torch
from torch import Tensor


class Sums:
    """Sums over an epoch that stay on the device until :meth:`means` reads them."""

    def __init__(self) -> None:
        self._total: dict[str, Tensor] = {}
        self._count: dict[str, int] = {}
        self._largest: dict[str, Tensor] = {}

    def add(self, name: str, value: Tensor, count: int = 1) -> None:
        """Add a sum over ``count`` things."""
        held = self._total.get(name)
        self._total[name] = value.detach().double() if held is None else held + value.detach()
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


def judge(sums: Sums, name: str, logits: Tensor, labels: Tensor, loss: Tensor) -> None:
    """Add one batch's mean loss and its hits."""
    count = len(labels)
    sums.add(f"{name}_loss", loss * count, count)
    sums.add(f"{name}_accuracy", (logits.argmax(1) == labels).sum(), count)

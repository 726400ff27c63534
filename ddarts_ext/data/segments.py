"""Segments of a text for truncated backpropagation."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

HALF = 0.05
"""How often a segment has half the length."""


class Segment(NamedTuple):
    """``length`` steps from row ``start`` of a text in columns, and the same one row later, which is predicted."""

    start: int
    length: int

    def of(self, words: Tensor) -> tuple[Tensor, Tensor]:
        """Words and targets, both [length, B], of words [rows, B]."""
        end = self.start + self.length
        return words[self.start : end], words[self.start + 1 : end + 1]


def drawn(
    rows: int, bptt: int, generator: torch.Generator, *, spread: float = 0.0, longest: int | None = None
) -> list[Segment]:
    """Segments that cover a text of ``rows`` rows: ``bptt`` steps, or half as many in one of twenty.

    spread: standard deviation of the length about that, then at least 5 and at most ``longest`` (DARTS' evaluation).
    """
    found, start = [], 0
    while start < rows - 2:
        half, normal = torch.rand((), generator=generator), torch.randn((), generator=generator)
        length = bptt / 2 if float(half) < HALF else float(bptt)
        if spread:
            length = max(5, int(length + spread * float(normal)))
        length = min(int(length), longest or bptt, rows - 1 - start)
        found.append(Segment(start, max(1, length)))
        start += found[-1].length
    return found or [Segment(0, rows - 1)]


def in_order(rows: int, bptt: int) -> list[Segment]:
    """All of a text in segments of ``bptt`` steps, the last one shorter."""
    return [Segment(start, min(bptt, rows - 1 - start)) for start in range(0, rows - 1, bptt)]

"""The order in which images are seen, all from one CPU generator, whose state makes a run resumable."""

from __future__ import annotations

import torch
from torch import Tensor


def halves(count: int, fraction: float = 0.5) -> tuple[Tensor, Tensor]:
    """Indices of the part that trains the weights (the first ones, as in DARTS) and of the rest, which judges."""
    if count < 2 or not 0.0 < fraction < 1.0:
        raise ValueError(
            f"data: a split needs 2 or more images and a fraction between 0 and 1, got {count} and {fraction}"
        )
    cut = min(max(int(fraction * count), 1), count - 1)
    return torch.arange(cut), torch.arange(cut, count)


def permuted(indices: Tensor, batch: int, generator: torch.Generator) -> Tensor:
    """One epoch: [S, B] with every index at most once. The incomplete last batch is left out, unless it is alone."""
    size = min(batch, len(indices))
    steps = len(indices) // size
    return indices[torch.randperm(len(indices), generator=generator)[: steps * size]].view(steps, size)


def redrawn(indices: Tensor, batch: int, steps: int, generator: torch.Generator) -> Tensor:
    """A fresh random batch for each of ``steps`` steps (DARTS re-creates its loader every step): [S, B]."""
    size = min(batch, len(indices))
    rows = [torch.randperm(len(indices), generator=generator)[:size] for _ in range(steps)]
    return indices[torch.stack(rows)]


def in_order(indices: Tensor, batch: int) -> list[Tensor]:
    """All indices once, in order, for judging: rows of ``batch`` and a last, shorter one, each [1, B]."""
    return [part[None] for part in torch.split(indices, batch)]

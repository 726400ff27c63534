"""The order in which images are seen, all from one CPU generator, whose state makes a run resumable."""

from __future__ import annotations

import torch
from torch import Tensor


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


def judged_together(batch: int, size: tuple[int, int]) -> int:
    """Images in a batch for judging: 256 of 32x32 pixels, fewer of larger ones, but never less than in training."""
    return max(batch, min(256, 256 * 32 * 32 // (size[0] * size[1])))


def in_order(indices: Tensor, batch: int) -> list[Tensor]:
    """All indices once, in order, for judging: as few rows of at most ``batch`` as there can be, nearly equal in
    length, each [1, B]."""
    return [part[None] for part in indices.tensor_split(max(1, -(-len(indices) // batch))) if len(part)]

"""The order in which images are seen, all from one CPU generator, whose state makes a run resumable."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor


def permuted(indices: Tensor, batch: int, generator: torch.Generator) -> list[Tensor]:
    """One epoch with every index once: rows of ``batch`` indices [S, B] and a last, shorter one [1, B'].

    The loaders of DARTS and FairDARTS keep the incomplete last batch (none says ``drop_last``). One of a single image
    is left out: it has no variance that a norm could divide by.
    """
    return in_rows(indices[torch.randperm(len(indices), generator=generator)], batch)


def in_rows(indices: Tensor, batch: int) -> list[Tensor]:
    """Indices in the order they have, as :func:`permuted` groups them."""
    size = min(batch, len(indices))
    whole = len(indices) // size * size
    parts = [indices[:whole].view(-1, size)]
    return [*parts, indices[None, whole:]] if len(indices) - whole > 1 else parts


def steps_in(count: int, batch: int, ranks: int = 1) -> int:
    """How many batches :func:`permuted` makes of ``count`` images, of which each of so many ranks has 2 or more."""
    size = min(batch, count)
    return count // size + (count % size // ranks > 1)


def skipping(parts: Sequence[Tensor], done: int) -> Iterator[Tensor]:
    """What is left of groups of rows after the first ``done`` rows."""
    for part in parts:
        if done < len(part):
            yield part[done:]
        done = max(0, done - len(part))


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

"""Batches that a captured step finds by itself: by a table of indices, and in tensors, that have their place."""

from __future__ import annotations

import torch
from torch import Tensor

from ddarts_ext.data.dataset import MemorySplit, Split
from ddarts_ext.data.subset import Subset


def in_memory(split: Split) -> MemorySplit | None:
    """The split that holds the images of ``split`` in memory, if there is one."""
    while isinstance(split, Subset):
        split = split.split
    return split if isinstance(split, MemorySplit) else None


def places(split: Split, indices: Tensor) -> Tensor:
    """Where the images of ``split`` at ``indices`` lie in :func:`in_memory`."""
    while isinstance(split, Subset):
        indices, split = split.indices[indices], split.split
    return indices


class IndexTable:
    """The batches of an epoch as rows [S, B] of indices beside the images; which is next is kept there too.

    After the last row comes the first again.
    """

    def __init__(self, split: Split, rows: Tensor) -> None:
        memory = in_memory(split)
        if memory is None:
            raise TypeError(f"data: images must be in memory for a table of indices, got a {type(split).__name__}")
        self._split, self._memory = split, memory
        self.table = places(split, rows).to(memory.images.device)
        self.next_row = torch.zeros(1, dtype=torch.long, device=memory.images.device)

    def start(self, rows: Tensor, done: int = 0) -> None:
        """The rows of another epoch, as many as before, of which the first ``done`` are over."""
        self.table.copy_(places(self._split, rows))
        self.next_row.fill_(done)

    def take(self) -> tuple[Tensor, Tensor]:
        """The next batch: uint8 [B, C, H, W] and labels int64 [B]. The host need not know which."""
        row = self.table.index_select(0, self.next_row)[0]
        self.next_row.add_(1).remainder_(len(self.table))
        return self._memory.images.index_select(0, row), self._memory.labels.index_select(0, row)

    def tensors(self) -> list[Tensor]:
        return [self.table, self.next_row]


class Held:
    """A batch that stays where it was first put, whatever it holds."""

    def __init__(self) -> None:
        self._batch: tuple[Tensor, Tensor] | None = None

    def put(self, images: Tensor, labels: Tensor) -> None:
        if self._batch is None:
            self._batch = images.clone(), labels.clone()
        else:
            for held, new in zip(self._batch, (images, labels), strict=True):
                held.copy_(new)

    def get(self) -> tuple[Tensor, Tensor]:
        if self._batch is None:
            raise RuntimeError("data: a batch must be put before it is read")
        return self._batch

    def tensors(self) -> list[Tensor]:
        return list(self._batch or ())

"""Random numbers for the whole of a batch whose images lie on several ranks.

Every rank draws them all, from a generator that is in the same state everywhere, and uses those of its own images: so
neither the numbers nor the states depend on how many ranks there are.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from torch import Tensor

_SHARE: ContextVar[tuple[int, int]] = ContextVar("share", default=(0, 1))
"""Which of how many equal parts of a batch is at hand."""


@contextmanager
def shared(rank: int, world: int) -> Iterator[None]:
    """Within it, batches are part ``rank`` of ``world`` equal parts, one after the other."""
    token = _SHARE.set((rank, world))
    try:
        yield
    finally:
        _SHARE.reset(token)


def whole(count: int) -> int:
    """Images of the whole batch of which ``count`` are at hand."""
    return count * _SHARE.get()[1]


def own(drawn: Tensor, dim: int = 0) -> Tensor:
    """What was drawn for the whole batch along ``dim``, for the images at hand."""
    rank, world = _SHARE.get()
    if world == 1:
        return drawn
    count = drawn.shape[dim] // world
    return drawn.narrow(dim, rank * count, count)


def own_seed(seed: int) -> int:
    """A seed for code that draws for the images at hand alone: ranks must not draw the same for different images."""
    return seed + _SHARE.get()[0]

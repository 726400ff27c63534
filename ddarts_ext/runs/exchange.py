"""What goes from rank to rank: sums and means of tensors, differentiable ones too, and bytes.

All of torch.distributed that a run uses is in here and in :mod:`.joining`, but for DistributedDataParallel. A rank that
has ended, or does not answer, is a :class:`RankLost` in all others. Every rank must come here in the same order, as in
any program of torch.distributed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx

_LOST = ("connection closed", "connection reset", "broken pipe", "connection refused", "timed out", "gloo", "nccl")


class RankLost(ConnectionError):
    """Another process of the run has ended or does not answer."""

    def __init__(self) -> None:
        super().__init__(
            "another rank has ended or does not answer; a run with --out continues with --resume, with as many ranks "
            "or with others"
        )


@contextmanager
def answered() -> Iterator[None]:
    """Within it, what torch.distributed raises for a rank that is lost is a :class:`RankLost`."""
    from torch.distributed import DistError

    try:
        yield
    except RuntimeError as error:
        words = str(error).lower()
        # Gloo has no error of its own, and that of memory is none of a rank.
        if isinstance(error, DistError) or (
            not isinstance(error, torch.OutOfMemoryError) and any(word in words for word in _LOST)
        ):
            raise RankLost from error
        raise


def total(tensor: Tensor) -> Tensor:
    """The sum over ranks, without gradient."""
    from torch import distributed

    found = tensor.detach().clone(memory_format=torch.contiguous_format)
    with answered():
        distributed.all_reduce(found)
    return found


def averages(tensors: Sequence[Tensor]) -> list[Tensor]:
    """The mean over ranks of each, without gradient: one flat buffer for all of one dtype."""
    from torch import distributed

    alike: dict[torch.dtype, list[int]] = {}
    for place, tensor in enumerate(tensors):
        alike.setdefault(tensor.dtype, []).append(place)
    found: list[Tensor] = list(tensors)
    world = distributed.get_world_size()
    for places in alike.values():
        parts = [tensors[place].detach() for place in places]
        flat = total(torch.cat([part.reshape(-1) for part in parts])).div_(world)
        split = torch.split(flat, [part.numel() for part in parts])
        for place, part, of_all in zip(places, parts, split, strict=True):
            found[place] = of_all.view(part.shape)
    return found


class _Mean(torch.autograd.Function):
    """Mean over ranks. Backward: the mean of the gradients, which is what they are where all ranks have the same."""

    @staticmethod
    def forward(ctx: FunctionCtx, *tensors: Tensor) -> tuple[Tensor, ...]:
        return tuple(averages(tensors))

    @staticmethod
    def backward(ctx: FunctionCtx, *gradients: Tensor) -> Any:
        return _Mean.apply(*gradients)  # type: ignore[no-untyped-call]


class _Copied(torch.autograd.Function):
    """The tensors as they are. Backward: the mean over ranks of the gradients."""

    @staticmethod
    def forward(ctx: FunctionCtx, *tensors: Tensor) -> tuple[Tensor, ...]:
        return tuple(tensor.view_as(tensor) for tensor in tensors)

    @staticmethod
    def backward(ctx: FunctionCtx, *gradients: Tensor) -> Any:
        return _Mean.apply(*gradients)  # type: ignore[no-untyped-call]


class _Total(torch.autograd.Function):
    """Sum over ranks, of which every rank computes a loss of its own. Backward: the sum of all their gradients."""

    @staticmethod
    def forward(ctx: FunctionCtx, tensor: Tensor) -> Tensor:
        return total(tensor)

    @staticmethod
    def backward(ctx: FunctionCtx, gradient: Tensor) -> Any:
        return _Total.apply(gradient)  # type: ignore[no-untyped-call]


def mean(tensor: Tensor) -> Tensor:
    """The mean over ranks, any number of times differentiable."""
    return _Mean.apply(tensor)[0]  # type: ignore[no-any-return,no-untyped-call]


def copied(tensors: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """The same tensors, which all ranks have alike: gradients that reach them through here are means over ranks."""
    return _Copied.apply(*tensors)  # type: ignore[no-any-return,no-untyped-call]


def differentiable_total(tensor: Tensor) -> Tensor:
    """The sum over ranks, any number of times differentiable."""
    return _Total.apply(tensor)  # type: ignore[no-any-return,no-untyped-call]


def gathered(content: bytes) -> list[bytes]:
    """What every rank gives, in the order of ranks; through the memory of the CPU."""
    from torch import distributed

    world = distributed.get_world_size()
    sizes = [torch.zeros(1, dtype=torch.long) for _ in range(world)]
    with answered():
        distributed.all_gather(sizes, torch.tensor([len(content)]))
        lengths = [int(size) for size in sizes]
        rows = [torch.zeros(max(lengths), dtype=torch.uint8) for _ in range(world)]
        mine = torch.zeros(max(lengths), dtype=torch.uint8)
        mine[: len(content)] = _tensor(content)
        distributed.all_gather(rows, mine)
    return [row[:length].numpy().tobytes() for row, length in zip(rows, lengths, strict=True)]


def handed_out(content: bytes) -> bytes:
    """What rank 0 gives, on all ranks."""
    from torch import distributed

    size = torch.tensor([len(content)])
    with answered():
        distributed.broadcast(size, 0)
        first = distributed.get_rank() == 0
        sent = _tensor(content) if first else torch.zeros(int(size), dtype=torch.uint8)
        distributed.broadcast(sent, 0)
    return sent.numpy().tobytes()


def _tensor(content: bytes) -> Tensor:
    return torch.frombuffer(bytearray(content), dtype=torch.uint8) if content else torch.zeros(0, dtype=torch.uint8)

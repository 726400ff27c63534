"""The processes of a run that share its batches: which one this is, and what they do together.

torchrun starts them and says by environment variables who they are; the commands ``search`` and ``train`` join them to
a process group. A program that calls the library itself does so within :func:`.joining.joined`. Otherwise a run is one
process, whatever a process group of the caller's there may be.

Every rank computes an equal part of every batch, means over ranks are what one process would have, and all ranks make
the same steps: states of optimisers and generators are alike everywhere. Files are written by rank 0.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ddarts_ext.runs import exchange, interrupts, share
from ddarts_ext.runs.checkpoint import digest
from ddarts_ext.runs.comparison import differences, short
from ddarts_ext.runs.sums import Sums

_KINDS: dict[str, type[Exception]] = {kind.__name__: kind for kind in (ValueError, TypeError, FileNotFoundError)}


@dataclass(frozen=True)
class Ranks:
    """Rank ``rank`` of ``world`` processes. local: its number on its machine, where there are ``beside`` of them."""

    rank: int = 0
    world: int = 1
    local: int = 0
    beside: int = 1

    @property
    def first(self) -> bool:
        """Whether this is the process that writes and speaks."""
        return self.rank == 0

    @property
    def several(self) -> bool:
        return self.world > 1

    # What of a batch is this rank's.

    def rows(self, parts: Sequence[Tensor]) -> list[Tensor]:
        """Of batches [S, B] of indices the part of this rank [S, B // world]. All parts are equal: up to world - 1
        images at the end of a batch are left out, and a batch of fewer than 2 images for every rank is."""
        if not self.several:
            return list(parts)
        found = []
        for part in parts:
            count = part.shape[1] // self.world
            if count > 1:
                found.append(part[:, self.rank * count : (self.rank + 1) * count])
        return found

    def judged(self, row: Tensor) -> Tensor:
        """Of a batch [1, B] that is judged the part of this rank, of nearly equal parts; it may be empty."""
        return row.tensor_split(self.world, 1)[self.rank]

    @contextmanager
    def sharing(self) -> Iterator[None]:
        """Within it, random numbers are drawn for the batches of all ranks, see :mod:`.share`."""
        with share.shared(self.rank, self.world):
            yield

    def check_batch(self, command: str, batch: int, images: int, name: str = "batch") -> None:
        """Raise ValueError where a batch, or what is less, ``images``, cannot be shared."""
        if not self.several:
            return
        if batch % self.world:
            raise ValueError(f"{command}: {name} must be divisible by the {self.world} ranks, got {batch}")
        if min(batch, images) < 2 * self.world:
            raise ValueError(
                f"{command}: {name} must be of 2 or more images for each of the {self.world} ranks, got "
                f"{min(batch, images)}"
            )

    # Means and sums over ranks.

    def average(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """The mean of each over ranks, in one flat buffer; without gradient."""
        return exchange.averages(tensors) if self.several and tensors else list(tensors)

    def average_in_place(self, tensors: Sequence[Tensor]) -> None:
        """The same, written into the tensors."""
        if self.several and tensors:
            with torch.no_grad():
                torch._foreach_copy_(list(tensors), exchange.averages(tensors))

    def average_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        self.average_in_place([p.grad for p in parameters if p.grad is not None] if self.several else [])

    def average_statistics(self, *networks: nn.Module) -> None:
        """Give all ranks the mean of the running statistics, which each has followed on its own images."""
        if self.several:
            self.average_in_place([b for net in networks for b in net.buffers() if b.is_floating_point()])

    def mean(self, tensor: Tensor) -> Tensor:
        """The mean over ranks, differentiable: of a loss."""
        return exchange.mean(tensor) if self.several else tensor

    def copied(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        """Tensors that all ranks have alike, whose gradients become means over ranks on their way back."""
        return exchange.copied(tensors) if self.several else tensors

    def total(self, tensor: Tensor) -> Tensor:
        """The sum over ranks, differentiable: of what batch norms sum."""
        return exchange.differentiable_total(tensor) if self.several else tensor

    def any(self, here: bool) -> bool:
        """Whether something holds on any rank; they wait for each other, not for their devices."""
        return bool(exchange.total(torch.tensor([here], dtype=torch.int32))) if self.several else here

    @contextmanager
    def in_step(self) -> Iterator[None]:
        """Within it, signals wait for :func:`.interrupts.answer`, as ranks must end after the same step."""
        with interrupts.held() if self.several else nullcontext():
            yield

    def between_steps(self) -> None:
        """End the run on all ranks where one was told to end."""
        if self.several:
            interrupts.answer(self.any)

    def add_up(self, sums: Sums) -> None:
        """Make the sums of every rank, of images that it judged alone, those of all."""
        if not self.several:
            return
        mine = sums.sizes()
        known: dict[str, list[int]] = {}
        counts: dict[str, int] = {}
        for said in exchange.gathered(json.dumps(mine).encode()):
            for name, (shape, count) in json.loads(said).items():
                known[name] = shape
                counts[name] = counts.get(name, 0) + count
        device = next(iter(sums.tensors()), torch.zeros(())).device
        sums.added_up(known, counts, device, exchange.total)

    # What all must have alike.

    def from_first(self, make: Callable[[], Any]) -> Any:
        """What ``make`` gives on rank 0, which alone calls it: plain data and tensors. What it raises, all raise."""
        if not self.several:
            return make()
        said: dict[str, Any] = {}
        content = b""
        failed: Exception | None = None
        if self.first:
            try:
                said = {"value": make()}
            except Exception as error:
                kind = next((name for name in _KINDS if type(error).__name__ == name), "")
                kind = kind or ("OSError" if isinstance(error, OSError) else "ValueError")
                failed, said = error, {"kind": kind, "error": str(error)}
            buffer = io.BytesIO()
            torch.save(said, buffer)
            content = buffer.getvalue()
        found = torch.load(io.BytesIO(exchange.handed_out(content)), weights_only=True, map_location="cpu")
        if failed is not None:
            raise failed
        if "error" in found:
            raise _KINDS.get(found["kind"], OSError)(found["error"])
        return said["value"] if self.first else found["value"]

    def check_same(self, command: str, facts: Mapping[str, Any], ignored: Collection[str] = ()) -> None:
        """Raise ValueError, on all ranks, where what one knows of the run is not what rank 0 knows."""
        if not self.several:
            return
        plain = json.loads(json.dumps(facts))
        every = [json.loads(said) for said in exchange.gathered(json.dumps(plain).encode())]
        for rank, theirs in enumerate(every):
            # What follows from the images follows from settings too: a difference there is its reason.
            for path, first, other in sorted(differences(every[0], theirs, ignored), key=lambda d: _of_images(d[0])):
                what = path.rpartition(".")[2]
                of = f"data must be the same images on all ranks: {what}" if _of_images(path) else what
                rest = "" if _of_images(path) else " on all ranks"
                raise ValueError(f"{command}: {of} must be {short(first)}{rest}, got {short(other)} on rank {rank}")

    def check_alike(self, command: str, epoch: int, tensors: Mapping[str, Tensor]) -> None:
        """Raise ValueError, on all ranks, where a tensor is not bit by bit that of rank 0."""
        if not self.several:
            return
        every = [json.loads(d) for d in exchange.gathered(json.dumps([digest(t) for t in tensors.values()]).encode())]
        for rank, theirs in enumerate(every):
            for name, first, other in zip(tensors, every[0], theirs, strict=True):
                if first != other:
                    raise ValueError(
                        f"{command}: {name} must be those of rank 0 on all ranks, got others on rank {rank} in epoch "
                        f"{epoch + 1}, which is not saved; --resume continues after the one before"
                    )


ALONE = Ranks()
_current = ALONE


def current() -> Ranks:
    """The ranks of this process: one alone outside of :func:`.joining.joined`."""
    return _current


@contextmanager
def being(found: Ranks) -> Iterator[Ranks]:
    """Within it, this process is one of ``found``."""
    global _current
    before, _current = _current, found
    try:
        yield found
    finally:
        _current = before


def _of_images(path: str) -> bool:
    return path.startswith(("images.", "division."))

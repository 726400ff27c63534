"""Images that are decoded when they are needed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, default_collate
from torch.utils.data import Dataset as TorchDataset

from ddarts_ext.data.decode import UnreadableImage, read_picture
from ddarts_ext.data.listing import ImageFile

# A batch that a disk does not deliver in so many seconds will not come.
TIMEOUT = 600


@dataclass(frozen=True, eq=False)
class StreamSplit:
    """Images that are decoded when they are needed, by worker processes; nothing random happens in a worker.

    ``batches`` raises :class:`UnreadableImage` for a file that was changed since, and when a batch takes longer than
    ten minutes.
    """

    files: tuple[ImageFile, ...]
    size: tuple[int, int]
    channels: int
    device: torch.device
    workers: int = 2

    def __len__(self) -> int:
        return len(self.files)

    @property
    def labels(self) -> Tensor:
        """int64 [N], on the CPU."""
        return torch.tensor([file.label for file in self.files])

    def keys(self) -> list[bytes]:
        """Class and name of every file: wherever the folder lies, they stay."""
        return [f"{file.label}/{file.path.name}".encode(errors="surrogateescape") for file in self.files]

    def batches(self, indices: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        source = _Decoder(self.files, self.size, self.channels)
        cuda = self.device.type == "cuda"
        rows: list[list[int]] = indices.tolist()
        workers = self.workers if len(rows) > 1 else 0
        # A generator of its own: a DataLoader otherwise draws its workers' seed from the global one.
        loader: DataLoader[Any] = DataLoader(
            source,
            batch_sampler=rows,
            num_workers=workers,
            pin_memory=cuda,
            generator=torch.Generator(),
            collate_fn=_together,
            timeout=TIMEOUT if workers else 0,
        )
        for batch in _in_time(iter(loader)):
            if isinstance(batch, UnreadableImage):
                raise batch
            images, labels = batch
            yield images.to(self.device, non_blocking=cuda), labels.to(self.device, non_blocking=cuda)

    def to(self, device: torch.device) -> StreamSplit:
        return replace(self, device=device)


class _Decoder(TorchDataset[Any]):
    """Decoded images with their labels; an error is a value here, as a worker would wrap it in its traceback."""

    def __init__(self, files: Sequence[ImageFile], size: tuple[int, int], channels: int) -> None:
        self.files, self.size, self.channels = files, size, channels

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[Tensor, int] | UnreadableImage:
        file = self.files[index]
        try:
            return read_picture(file.path, self.size, self.channels), file.label
        except UnreadableImage as error:
            return error


def _together(items: list[Any]) -> Any:
    return next((item for item in items if isinstance(item, UnreadableImage)), None) or default_collate(items)


def _in_time(batches: Iterator[Any]) -> Iterator[Any]:
    """The same batches; a worker that died or does not answer is an :class:`UnreadableImage` in one line."""
    while True:
        try:
            batch = next(batches)
        except StopIteration:
            return
        except RuntimeError as error:
            reason = str(error).splitlines()[0]
            raise UnreadableImage(f"data: images could not be streamed by worker processes: {reason}") from error
        yield batch

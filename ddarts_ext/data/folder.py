"""Image folders: ``train/<class>/*``, beside it ``test`` or ``val``. Small ones are read whole, large ones stream."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from ddarts_ext.data.augment import suited
from ddarts_ext.data.dataset import Dataset, MemorySplit, Split, statistics

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".ppm", ".pgm", ".tif", ".tiff", ".webp")
IN_MEMORY_BYTES = 512 << 20
_SAMPLE = 2048


@dataclass(frozen=True)
class _File:
    path: Path
    label: int


def load_folder(root: Path, image_size: int | None = None) -> Dataset:
    """Read an image folder. Images are scaled until they cover the target size, then cut to it in the middle.

    image_size: side of the square; without it, the size of the first image where both its sides are at most 64 pixels,
    else 224. Without a ``test`` or ``val`` folder, every fifth training image of each class is held out.
    """
    _pillow()
    train_root = root / "train"
    if not train_root.is_dir():
        raise FileNotFoundError(
            f"data: image folder {root} must hold train/<class>/<images>, and {train_root} does not exist"
        )
    classes = tuple(sorted(p.name for p in train_root.iterdir() if p.is_dir()))
    if len(classes) < 2:
        raise ValueError(f"data: {train_root} must hold one folder for each of 2 or more classes, got {len(classes)}")
    train = _files(train_root, classes)
    test_root = next((root / n for n in ("test", "val") if (root / n).is_dir()), None)
    note = ""
    if test_root is not None:
        test = _files(test_root, classes)
    else:
        train, test = _hold_out(train, len(classes))
        note = "no test or val folder: every fifth training image of each class is held out"
    size, channels = _shape(train[0].path, image_size)
    splits = [_split(files, size, channels) for files in (train, test)]
    step = max(1, len(train) // _SAMPLE)
    sample = torch.stack([_read(f.path, size, channels) for f in train[::step]])
    mean, std = statistics(sample)
    return Dataset(
        name=root.resolve().name,
        train=splits[0],
        test=splits[1],
        classes=classes,
        size=size,
        channels=channels,
        mean=mean,
        std=std,
        augmentation=suited(size, channels),
        note=note,
    )


@dataclass(frozen=True, eq=False)
class StreamSplit:
    """Images that are decoded when they are needed, by worker processes; nothing random happens in a worker."""

    files: tuple[_File, ...]
    size: tuple[int, int]
    channels: int
    device: torch.device
    workers: int = 2

    @property
    def labels(self) -> Tensor:
        return torch.tensor([file.label for file in self.files])

    def keys(self) -> list[bytes]:
        """Class and name of every file: wherever the folder lies, they stay."""
        return [f"{file.label}/{file.path.name}".encode() for file in self.files]

    def __len__(self) -> int:
        return len(self.files)

    def batches(self, indices: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        source = _Decoder(self.files, self.size, self.channels)
        cuda = self.device.type == "cuda"
        rows: list[list[int]] = indices.tolist()
        workers = self.workers if len(rows) > 1 else 0
        # A generator of its own: a DataLoader otherwise draws its workers' seed from the global one.
        loader: DataLoader[Any] = DataLoader(
            source, batch_sampler=rows, num_workers=workers, pin_memory=cuda, generator=torch.Generator()
        )
        for images, labels in loader:
            yield images.to(self.device, non_blocking=cuda), labels.to(self.device, non_blocking=cuda)

    def to(self, device: torch.device) -> StreamSplit:
        return replace(self, device=device)


class _Decoder(TorchDataset[tuple[Tensor, int]]):
    def __init__(self, files: Sequence[_File], size: tuple[int, int], channels: int) -> None:
        self.files, self.size, self.channels = files, size, channels

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        file = self.files[index]
        return _read(file.path, self.size, self.channels), file.label


def _files(root: Path, classes: tuple[str, ...]) -> list[_File]:
    extra = sorted(p.name for p in root.iterdir() if p.is_dir() and p.name not in classes)
    if extra:
        raise ValueError(f"data: {root} has the class {extra[0]!r}, which the training folder has not")
    found = []
    for label, name in enumerate(classes):
        folder = root / name
        paths = sorted(p for p in folder.rglob("*") if p.suffix.lower() in SUFFIXES) if folder.is_dir() else []
        if not paths and root.name == "train":
            raise ValueError(f"data: {folder} must hold images ({', '.join(SUFFIXES)}), got none")
        found += [_File(path, label) for path in paths]
    if not found:
        raise ValueError(f"data: {root} must hold images ({', '.join(SUFFIXES)}), got none")
    return found


def _hold_out(files: list[_File], classes: int) -> tuple[list[_File], list[_File]]:
    kept: list[_File] = []
    held: list[_File] = []
    for label in range(classes):
        own = [f for f in files if f.label == label]
        held += own[4::5]
        kept += [f for i, f in enumerate(own) if i % 5 != 4]
    if not held:
        raise ValueError("data: an image folder without test or val must have a class of 5 or more images")
    return kept, held


def _shape(path: Path, image_size: int | None) -> tuple[tuple[int, int], int]:
    if image_size is not None and image_size < 1:
        raise ValueError(f"data: image_size must be 1 pixel or more, got {image_size}")
    with _open(path) as image:
        width, height = image.size
        channels = 1 if image.mode in ("1", "L", "I", "I;16", "F") else 3
    if image_size is not None:
        return (image_size, image_size), channels
    return ((height, width) if max(height, width) <= 64 else (224, 224)), channels


def _split(files: list[_File], size: tuple[int, int], channels: int) -> Split:
    if len(files) * channels * size[0] * size[1] > IN_MEMORY_BYTES:
        return StreamSplit(tuple(files), size, channels, torch.device("cpu"))
    images = torch.stack([_read(f.path, size, channels) for f in files])
    return MemorySplit(images, torch.tensor([f.label for f in files]))


def _read(path: Path, size: tuple[int, int], channels: int) -> Tensor:
    height, width = size
    with _open(path) as image:
        picture = image.convert("L" if channels == 1 else "RGB")
    if picture.size != (width, height):
        scale = max(width / picture.width, height / picture.height)
        wide, high = max(width, round(picture.width * scale)), max(height, round(picture.height * scale))
        left, top = (wide - width) // 2, (high - height) // 2
        picture = picture.resize((wide, high)).crop((left, top, left + width, top + height))
    pixels = torch.from_numpy(np.array(picture, dtype=np.uint8))
    return pixels.reshape(height, width, channels).permute(2, 0, 1).contiguous()


def _open(path: Path) -> Any:
    image_module = _pillow()
    try:
        image = image_module.open(path)
        image.load()
        return image
    except (OSError, ValueError) as error:
        raise ValueError(f"data: {path} is not an image that can be read: {error}") from error


def _pillow() -> Any:
    try:
        from PIL import Image
    except ImportError as error:
        raise ValueError(f"data: image folders need the package Pillow (pip install pillow): {error}") from error
    return Image

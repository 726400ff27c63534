"""What a data set is to the rest of the package: two splits of uint8 images and what one must know about them."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from ddarts_ext.data import checks
from ddarts_ext.data.augment import Augmentation, augment, normalise


@runtime_checkable
class Split(Protocol):
    """Images that can be read by index, wherever they are kept.

    A split may also have ``keys()``, one bytes object for each image that tells it from others wherever it stands: then
    a run does not depend on the order of the images.
    """

    @property
    def labels(self) -> Tensor:
        """int64 [N], or float32 [N, K], on any device."""
        ...

    def __len__(self) -> int: ...

    def batches(self, indices: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """For each row of ``indices`` [S, B] (int64, CPU): uint8 [B, C, H, W] and labels [B] or [B, K], on the
        device."""
        ...

    def to(self, device: torch.device) -> Split: ...


@dataclass(frozen=True, eq=False)
class MemorySplit:
    """Images that stay on one device as uint8: images [N, C, H, W], labels int64 [N] or float32 [N, K].

    Raises TypeError for other dtypes and ValueError for other shapes, for no images, for a label below 0 and for one
    that is not finite.
    """

    images: Tensor
    labels: Tensor

    def __post_init__(self) -> None:
        checks.check_split(self.images, self.labels)

    def __len__(self) -> int:
        return int(self.labels.shape[0])

    def keys(self) -> list[bytes]:
        """Digests of the images with their labels."""
        return self._keys

    @functools.cached_property
    def _keys(self) -> list[bytes]:
        pixels = self.images.cpu().flatten(1).numpy()
        if self.labels.is_floating_point():
            rows = zip(pixels, self.labels.cpu().numpy(), strict=True)
            return [hashlib.blake2b(row.tobytes() + own.tobytes(), digest_size=16).digest() for row, own in rows]
        labels = self.labels.tolist()
        return [
            hashlib.blake2b(row.tobytes(), digest_size=16, salt=label.to_bytes(8, "little")).digest()
            for row, label in zip(pixels, labels, strict=True)
        ]

    def batches(self, indices: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        for row in indices.to(self.images.device):
            yield self.images[row], self.labels[row]

    def to(self, device: torch.device) -> MemorySplit:
        images, labels = self.images.to(device), self.labels.to(device)
        return self if images is self.images and labels is self.labels else MemorySplit(images, labels)


@dataclass(frozen=True, eq=False)
class Dataset:
    """Training and held-out images with their sizes, classes, normalisation and default augmentation.

    train, test: images of ``channels`` x ``size`` with labels from 0 below the number of classes; no label occurs in
    ``test`` alone; or with K numbers each, float32, of several labels at once or of a regression. classes: the names of
    the classes, 2 or more, or of the K numbers, all different. size: (height, width). mean, std: per channel, of
    pixel values between 0 and 1; std above 0. note: what a user should know about how it was read and split.
    before: what training images go through before the augmentation, from uint8 to pixel values from 0 to 255; it draws
    from the generator.
    Raises TypeError or ValueError naming the field, for what else is given.
    """

    name: str
    train: Split
    test: Split
    classes: tuple[str, ...]
    size: tuple[int, int]
    channels: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    augmentation: Augmentation
    note: str = ""
    before: Callable[[Tensor, torch.Generator], Tensor] | None = None

    def __post_init__(self) -> None:
        checks.check_text(self.name, self.note, self.classes, 1 if self.numbers else 2)
        checks.check_shape(self.name, self.size, self.channels)
        checks.check_normalisation(self.name, self.mean, self.std, self.channels)
        if not isinstance(self.augmentation, Augmentation):
            raise TypeError(f"data: augmentation must be an Augmentation, got {type(self.augmentation).__name__}")
        for part in ("train", "test"):
            split = getattr(self, part)
            if not isinstance(split, Split):
                raise TypeError(
                    f"data: {part} of {self.name} must be a split with batches, labels, to and a length, "
                    f"got {type(split).__name__}"
                )
            if not len(split):
                raise ValueError(f"data: {part} of {self.name} must have 1 or more images, got none")
            if isinstance(split, MemorySplit):
                checks.check_images(f"{part} of {self.name}", split.images, self.channels, self.size)
        labels = {part: getattr(getattr(self, part), "labels", None) for part in ("train", "test")}
        checks.check_labels(self.name, labels, len(self.classes))

    @property
    def numbers(self) -> bool:
        """Whether labels are K numbers each, and not classes."""
        labels = getattr(self.train, "labels", None)
        return isinstance(labels, Tensor) and labels.is_floating_point()

    def to(self, device: torch.device | str) -> Dataset:
        """The same data with its batches on ``device``."""
        where = torch.device(device)
        return replace(self, train=self.train.to(where), test=self.test.to(where))

    def augment(self, images: Tensor, how: Augmentation, generator: torch.Generator) -> Tensor:
        """Augmented and normalised float32 images, channels-last."""
        if self.before is not None:
            images = self.before(images, generator)
        return augment(images, how, self.mean, self.std, generator=generator)

    def normalise(self, images: Tensor) -> Tensor:
        """Normalised float32 images as they are judged, channels-last."""
        return normalise(images, self.mean, self.std).contiguous(memory_format=torch.channels_last)


def pixel_statistics(images: Tensor) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation per channel of uint8 images [N, C, H, W], both for pixels between 0 and 1."""
    flat = images.transpose(0, 1).flatten(1)
    counts = torch.stack([torch.bincount(channel, minlength=256) for channel in flat]).double()
    values = torch.arange(256, dtype=torch.float64) / 255
    weights = counts / counts.sum(1, keepdim=True)
    mean = weights @ values
    variance = (weights * (values - mean[:, None]) ** 2).sum(1)
    # A constant channel must not divide by zero: one grey level is the smallest spread that uint8 can show.
    std = variance.sqrt().clamp_min(1 / 255)
    return tuple(mean.tolist()), tuple(std.tolist())

"""Images and labels in arrays as a :class:`Dataset`: ``.npz`` files, and the digits of scikit-learn."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ddarts_ext.data.archive import read_arrays
from ddarts_ext.data.augment import Augmentation, suited
from ddarts_ext.data.dataset import Dataset, MemorySplit, pixel_statistics
from ddarts_ext.data.labels import as_classes, checked_labels, every_fifth, numbers_of

_ARRAYS = ("x_train", "y_train", "x_test", "y_test")
_MOST_CHANNELS = 16


def load_npz(path: Path) -> Dataset:
    """Read x_train, y_train, x_test, y_test: uint8 [N, H, W], [N, H, W, C] or [N, C, H, W], labels whole from 0, or
    numbers: floats [N] or [N, K], or K > 1 of any kind each.

    The labels that occur in y_train are the classes and their names. Raises ValueError naming the array.
    """
    arrays = read_arrays(path, _ARRAYS)
    x = {part: arrays[f"x_{part}"] for part in ("train", "test")}
    for part, images in x.items():
        if images.dtype != np.uint8 or images.ndim not in (3, 4) or 0 in images.shape:
            raise ValueError(
                f"data: x_{part} in {path} must be uint8 [N, H, W] or [N, H, W, C] and not empty, "
                f"got {images.dtype} {list(images.shape)}"
            )
    if x["train"].shape[1:] != x["test"].shape[1:]:
        raise ValueError(
            f"data: {path} must have training and test images of one size, "
            f"got {list(x['train'].shape[1:])} and {list(x['test'].shape[1:])}"
        )
    first = channels_first(x["train"].shape, str(path))
    train_labels, test_labels, names = labelled(
        (arrays["y_train"], len(x["train"]), f"y_train in {path}"),
        (arrays["y_test"], len(x["test"]), f"y_test in {path}"),
        str(path),
    )
    train, test = (_channels_first(x[part], first) for part in ("train", "test"))
    note = "images are read as [N, C, H, W]" if first else ""
    if not train_labels.is_floating_point() and names != tuple(str(i) for i in range(len(names))):
        note = "; ".join(filter(None, (note, f"{len(names)} classes, named by the labels {names[0]} to {names[-1]}")))
    size = (int(train.shape[2]), int(train.shape[3]))
    augmentation = suited(size, int(train.shape[1]))
    return in_memory(path.stem, (train, train_labels), (test, test_labels), names, augmentation, note)


def labelled(
    train: tuple[Any, int, str], test: tuple[Any, int, str], what: str
) -> tuple[Tensor, Tensor, tuple[str, ...]]:
    """Labels of both parts, each (array, how many images, what it is), as a :class:`Dataset` has them, and names:
    classes int64 [N], or numbers float32 [N, K]. Raises ValueError naming the array."""
    numbers = [numbers_of(*part) for part in (train, test)]
    if numbers[0] is None or numbers[1] is None:
        return as_classes(checked_labels(*train), checked_labels(*test), what)
    if numbers[0].shape[1] != numbers[1].shape[1]:
        raise ValueError(
            f"data: labels of {what} must be as many numbers each in both parts, got {numbers[0].shape[1]} and "
            f"{numbers[1].shape[1]}"
        )
    names = tuple(map(str, range(numbers[0].shape[1])))
    return torch.from_numpy(numbers[0]), torch.from_numpy(numbers[1]), names


def channels_first(shape: tuple[int, ...], what: str) -> bool:
    """Whether images of this shape are [N, C, H, W]; where both readings are possible they are [N, H, W, C].

    1 or 3 at one end alone decides; else up to 16 at the end, then up to 16 after N. Raises ValueError for neither.
    """
    if len(shape) == 3:
        return False
    last, second = shape[3], shape[1]
    if last in (1, 3) or second in (1, 3):
        return last not in (1, 3)
    if min(last, second) > _MOST_CHANNELS:
        raise ValueError(
            f"data: x_train in {what} must be [N, H, W, C] with at most {_MOST_CHANNELS} channels, got {list(shape)}"
        )
    return last > _MOST_CHANNELS


def _channels_first(x: Any, already: bool) -> Tensor:
    native = torch.from_numpy(np.ascontiguousarray(x))
    if x.ndim == 3:
        return native[:, None]
    return native if already else native.permute(0, 3, 1, 2).contiguous()


def load_digits() -> Dataset:
    """The 1,797 images of handwritten digits that come with scikit-learn, a fixed fifth of every class held out."""
    try:
        from sklearn import datasets
    except ImportError as error:
        raise ValueError(f"data: digits come with scikit-learn, which does not import here: {error}") from error
    bunch = datasets.load_digits()
    # Grey levels 0..16 spread over uint8.
    images = torch.from_numpy(np.rint(bunch.images * (255 / 16)).astype(np.uint8))[:, None]
    labels = torch.from_numpy(bunch.target.astype(np.int64))
    # The file is ordered by writer; a fixed shuffle mixes them, then every fifth image of each class is held out.
    order = torch.from_numpy(np.random.RandomState(0).permutation(len(labels)))
    images, labels = images[order], labels[order]
    held_out = every_fifth(labels)
    return in_memory(
        "digits",
        (images[~held_out], labels[~held_out]),
        (images[held_out], labels[held_out]),
        tuple("0123456789"),
        # Mirrored digits are other signs, and a square of half the width hides what tells 3 from 8.
        Augmentation(crop_padding=1),
        "the held-out images are a fixed fifth of every class",
    )


def in_memory(
    name: str,
    train: tuple[Tensor, Tensor],
    test: tuple[Tensor, Tensor],
    classes: tuple[str, ...],
    augmentation: Augmentation,
    note: str,
) -> Dataset:
    """A :class:`Dataset` of images uint8 [N, C, H, W] and labels int64 [N] or float32 [N, K], normalised by the
    training images."""
    mean, std = pixel_statistics(train[0])
    _, channels, height, width = train[0].shape
    return Dataset(
        name=name,
        train=MemorySplit(*train),
        test=MemorySplit(*test),
        classes=classes,
        size=(height, width),
        channels=channels,
        mean=mean,
        std=std,
        augmentation=augmentation,
        note=note,
    )

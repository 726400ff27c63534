"""Images of one's own program as a :class:`Dataset`: tensors and arrays, and data sets of torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ddarts_ext.data.arrays import channels_first, in_memory, labelled
from ddarts_ext.data.augment import suited
from ddarts_ext.data.dataset import Dataset
from ddarts_ext.data.labels import checked_labels, every_fifth, numbers_of

Pair = tuple[Tensor, Any]


def is_own(data: object) -> bool:
    """Whether :func:`load_own` is who reads it."""
    if isinstance(data, tuple):
        return len(data) == 2
    return hasattr(data, "__getitem__") and hasattr(data, "__len__") and not isinstance(data, (str, bytes, dict, list))


def load_own(data: Any) -> Dataset:
    """Read images that a program has already, all of one size.

    data: ``(images, labels)``, as tensors or arrays: images uint8 [N, C, H, W], [N, H, W, C] or [N, H, W], or floats
    from 0 to 1 of these shapes, labels whole numbers [N] from 0, or numbers: floats [N] or [N, K], of a regression or
    of several labels at once (whole numbers and truth values [N, K] as well); or a map-style data set of torch, whose
    items begin with (image, label), an image being a uint8 or float tensor [C, H, W], an array [H, W, C] or a picture
    of Pillow.
    Two of either in a tuple are the training and the held-out images; of one, every fifth image of each class is held
    out. Names of classes are those of ``data.classes``, if it has that. A data set of torch is read once, from its
    first item to its last: random parts of its transform are drawn once, and belong into the augmentation.
    Raises TypeError or ValueError for what is none of this.
    """
    parts = data if isinstance(data, tuple) and not _is_pair(data) else (data,)
    found = [_pair(part, where) for part, where in zip(parts, ("train", "test"), strict=False)]
    images = [part[0] for part in found]
    labels = [part[1] for part in found]
    note = ""
    if len(found) == 1:
        about = labels[0], len(images[0]), "labels of the train part"
        numbers = numbers_of(*about)
        whole = checked_labels(*about) if numbers is None else numbers
        held_out = every_fifth(torch.as_tensor(whole))
        images = [images[0][~held_out], images[0][held_out]]
        labels = [whole[~held_out.numpy()], whole[held_out.numpy()]]
        note = f"every fifth image{' of each class' if numbers is None else ''} is held out"
    if images[0].shape[1:] != images[1].shape[1:]:
        raise ValueError(
            "data: training and held-out images must have one shape, "
            f"got {list(images[0].shape[1:])} and {list(images[1].shape[1:])}"
        )
    train, test, names = labelled(
        (labels[0], len(images[0]), "labels of the train part"),
        (labels[1], len(images[1]), "labels of the test part"),
        "the data given",
    )
    size = (int(images[0].shape[2]), int(images[0].shape[3]))
    made = in_memory("own", (images[0], train), (images[1], test), names, suited(size, int(images[0].shape[1])), note)
    return _named(made, getattr(parts[0], "classes", None))


def _named(dataset: Dataset, classes: Any) -> Dataset:
    """With the names that the data set of torch gives its labels, where they are names and all of them occur."""
    if not isinstance(classes, Sequence) or not all(isinstance(name, str) for name in classes):
        return dataset
    if dataset.numbers:
        fits = len(classes) == len(dataset.classes) and len(set(classes)) == len(classes)
        return replace(dataset, classes=tuple(classes)) if fits else dataset
    numbers = [int(name) for name in dataset.classes]
    if len(set(classes)) != len(classes) or max(numbers) >= len(classes):
        return dataset
    return replace(dataset, classes=tuple(classes[number] for number in numbers))


def _is_pair(data: tuple[Any, ...]) -> bool:
    """Whether they are images and their labels, which may be a list."""
    images, labels = data
    return isinstance(images, (Tensor, np.ndarray)) and isinstance(labels, (Tensor, np.ndarray, list, tuple))


def _pair(data: Any, where: str) -> tuple[Tensor, Any]:
    """Images uint8 [N, C, H, W], and labels as an array."""
    if isinstance(data, tuple) and len(data) == 2 and _is_pair(data):
        labels = data[1].cpu().numpy() if isinstance(data[1], Tensor) else np.asarray(data[1])
        return _pixels(_laid_out(data[0]), where), labels
    if not is_own(data):
        raise TypeError(
            f"data: the {where} part must be (images, labels) or a data set of torch, got {type(data).__name__}"
        )
    if not len(data):
        raise ValueError(f"data: the {where} part must have 1 or more images, got none")
    items = [data[index] for index in range(len(data))]
    for index, item in enumerate(items):
        if not isinstance(item, (tuple, list)) or len(item) < 2:
            raise TypeError(f"data: item {index} of the {where} part must be (image, label), got {type(item).__name__}")
    pictures = [_picture(item[0], f"item {index} of the {where} part") for index, item in enumerate(items)]
    shapes = {tuple(picture.shape): index for index, picture in reversed(list(enumerate(pictures)))}
    if len(shapes) > 1:
        first, second = list(shapes)[-1], list(shapes)[-2]
        raise ValueError(
            f"data: images must have one shape, got {list(first)} and, in item {shapes[second]} of the {where} part, "
            f"{list(second)}; a transform of the data set can resize and crop them"
        )
    return torch.stack(pictures), _labels([item[1] for item in items], where)


def _labels(given: Sequence[Any], where: str) -> Any:
    """The labels of items as one array: whole numbers, floats, or a row of numbers each."""
    arrays = [np.asarray(label.cpu() if isinstance(label, Tensor) else label) for label in given]
    for index, array in enumerate(arrays):
        if array.dtype.kind not in "fiub" or array.ndim > 1 or array.shape != arrays[0].shape:
            raise TypeError(
                f"data: label of item {index} of the {where} part must be a number, or as many numbers as the others, "
                f"got {given[index]!r}"
            )
    return np.stack(arrays)


def _laid_out(images: Any) -> Tensor:
    """[N, C, H, W], read as ``.npz`` files are; tensors with 1 or 3 channels in second place are that already."""
    tensor = images if isinstance(images, Tensor) else torch.from_numpy(np.ascontiguousarray(images))
    if tensor.dim() not in (3, 4) or 0 in tensor.shape:
        raise ValueError(f"data: images must be [N, C, H, W], [N, H, W, C] or [N, H, W], got {list(tensor.shape)}")
    if tensor.dim() == 3:
        return tensor[:, None]
    if isinstance(images, Tensor) and tensor.shape[1] in (1, 3):
        return tensor
    first = channels_first(tuple(tensor.shape), "the data given")
    return tensor if first else tensor.permute(0, 3, 1, 2)


def _picture(image: Any, where: str) -> Tensor:
    """uint8 [C, H, W] of one item."""
    if isinstance(image, Tensor):
        found = image[None] if image.dim() == 2 else image
    else:
        array = np.array(image)
        if array.dtype.kind not in "uif" or array.ndim not in (2, 3):
            raise TypeError(f"data: {where} must begin with an image, and a label then, got {str(image)[:60]!r} first")
        found = torch.from_numpy(array[None] if array.ndim == 2 else np.ascontiguousarray(array.transpose(2, 0, 1)))
    if found.dim() != 3:
        raise ValueError(f"data: {where} must be an image [C, H, W], got {list(found.shape)}")
    return _pixels(found, where)


def _pixels(images: Tensor, where: str) -> Tensor:
    """uint8, of uint8 or of floats from 0 to 1."""
    images = images.detach().cpu()
    if images.dtype == torch.uint8:
        return images.contiguous()
    if not images.is_floating_point():
        raise TypeError(f"data: images of {where} must be uint8, or floats from 0 to 1, got {images.dtype}")
    low, high = float(images.min()), float(images.max())
    if not (low >= 0 and high <= 1):
        raise ValueError(
            f"data: floats of images must lie from 0 to 1, got {low:g} to {high:g} in {where}: leave the normalisation "
            "out of the transform, as it is part of a run"
        )
    return images.mul(255).round().to(torch.uint8).contiguous()

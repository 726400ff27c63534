"""What a :class:`Dataset` must be, however it was made."""

from __future__ import annotations

from collections.abc import Mapping
from math import isfinite
from typing import Any

import torch
from torch import Tensor


def check_split(images: Any, labels: Any) -> None:
    """uint8 [N, C, H, W] and int64 [N] on one device, N >= 1, labels >= 0."""
    for name, value, dtype, shape in (
        ("images", images, torch.uint8, "[N, C, H, W]"),
        ("labels", labels, torch.int64, "[N]"),
    ):
        if not isinstance(value, Tensor):
            raise TypeError(f"data: {name} must be a tensor, got {type(value).__name__}")
        if value.dtype != dtype:
            raise TypeError(f"data: {name} must be {_short(dtype)} {shape}, got {_short(value.dtype)}")
    if images.dim() != 4 or 0 in images.shape:
        raise ValueError(f"data: images must be [N, C, H, W] and not empty, got {list(images.shape)}")
    if labels.dim() != 1 or len(labels) != len(images):
        raise ValueError(f"data: labels must be [N]=[{len(images)}], got {list(labels.shape)}")
    if images.device != labels.device:
        raise ValueError(f"data: images and labels must be on one device, got {images.device} and {labels.device}")
    if int(labels.min()) < 0:
        raise ValueError(f"data: labels must be from 0, got {int(labels.min())}")


def check_text(name: Any, note: Any, classes: Any) -> None:
    """Names are text; there are 2 or more classes, and their names differ."""
    for field, value in (("name", name), ("note", note)):
        if not isinstance(value, str):
            raise TypeError(f"data: {field} must be text, got {type(value).__name__}")
    if isinstance(classes, str) or not all(isinstance(text, str) for text in classes):
        raise TypeError(f"data: classes of {name} must be a tuple of names, got {classes!r}")
    if len(classes) < 2:
        raise ValueError(f"data: {name} must have at least 2 classes, got {len(classes)}")
    if len(set(classes)) < len(classes):
        twice = next(text for i, text in enumerate(classes) if text in classes[:i])
        raise ValueError(f"data: classes of {name} must have different names, got {twice!r} twice")


def check_shape(name: str, size: Any, channels: Any) -> None:
    """Height, width and channels are whole and 1 or more."""
    if not isinstance(size, tuple) or len(size) != 2 or not all(map(_is_count, size)):
        raise ValueError(f"data: size of {name} must be (height, width) in pixels, got {size!r}")
    if not _is_count(channels):
        raise ValueError(f"data: channels of {name} must be a whole number >= 1, got {channels!r}")


def check_normalisation(name: str, mean: Any, std: Any, channels: int) -> None:
    """One finite number a channel each, std above 0."""
    for field, values in (("mean", mean), ("std", std)):
        if len(values) != channels:
            raise ValueError(
                f"data: mean and std must have one number for each of {channels} channels, got {len(values)} in {field}"
            )
        for value in values:
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not isfinite(value):
                raise ValueError(f"data: {field} of {name} must be finite numbers, got {value!r}")
    if min(std) <= 0:
        raise ValueError(f"data: std of {name} must be above 0, got {min(std)}")


def check_images(what: str, images: Tensor, channels: int, size: tuple[int, int]) -> None:
    """The images have the channels and size that the data set says."""
    if tuple(images.shape[1:]) != (channels, *size):
        raise ValueError(
            f"data: images in {what} must be [N, {channels}, {size[0]}, {size[1]}], got {list(images.shape)}"
        )


def check_labels(name: str, labels: Mapping[str, Tensor | None], classes: int) -> None:
    """Labels, where a split tells them, lie below the number of classes, and none occurs in ``test`` alone."""
    occurring = {part: torch.unique(values).tolist() for part, values in labels.items() if values is not None}
    for part, values in occurring.items():
        for label in values:
            if not 0 <= label < classes:
                raise ValueError(f"data: labels in {part} of {name} must be in 0..{classes - 1}, got {label}")
    unknown = set(occurring.get("test", ())) - set(occurring.get("train", occurring.get("test", ())))
    if unknown:
        raise ValueError(f"data: {name} has the label {min(unknown)} in test, which train has not")


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _short(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")

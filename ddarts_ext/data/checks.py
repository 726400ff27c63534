"""What a :class:`Dataset` must be, however it was made."""

from __future__ import annotations

from collections.abc import Mapping
from math import isfinite
from typing import Any

import torch
from torch import Tensor


def check_split(images: Any, labels: Any) -> None:
    """uint8 [N, C, H, W] and int64 [N], >= 0, or float32 [N, K], finite, on one device, N >= 1."""
    for name, value, dtypes, wanted in (
        ("images", images, (torch.uint8,), "uint8 [N, C, H, W]"),
        ("labels", labels, (torch.int64, torch.float32), "int64 [N] or float32 [N, K]"),
    ):
        if not isinstance(value, Tensor):
            raise TypeError(f"data: {name} must be a tensor, got {type(value).__name__}")
        if value.dtype not in dtypes:
            raise TypeError(f"data: {name} must be {wanted}, got {_short(value.dtype)}")
    if images.dim() != 4 or 0 in images.shape:
        raise ValueError(f"data: images must be [N, C, H, W] and not empty, got {list(images.shape)}")
    dims, shape = (2, f"[N, K]=[{len(images)}, K]") if labels.is_floating_point() else (1, f"[N]=[{len(images)}]")
    if labels.dim() != dims or len(labels) != len(images) or 0 in labels.shape:
        raise ValueError(f"data: labels must be {shape}, got {list(labels.shape)}")
    if images.device != labels.device:
        raise ValueError(f"data: images and labels must be on one device, got {images.device} and {labels.device}")
    if labels.is_floating_point():
        if not bool(labels.isfinite().all()):
            raise ValueError("data: labels must be finite numbers, got NaN or infinity")
    elif int(labels.min()) < 0:
        raise ValueError(f"data: labels must be from 0, got {int(labels.min())}")


def check_text(name: Any, note: Any, classes: Any, least: int = 2) -> None:
    """Names are text; there are ``least`` or more classes, and their names differ."""
    for field, value in (("name", name), ("note", note)):
        if not isinstance(value, str):
            raise TypeError(f"data: {field} must be text, got {type(value).__name__}")
    if isinstance(classes, str) or not all(isinstance(text, str) for text in classes):
        raise TypeError(f"data: classes of {name} must be a tuple of names, got {classes!r}")
    if len(classes) < least:
        raise ValueError(
            f"data: {name} must have at least {least} {'classes' if least > 1 else 'label'}, got {len(classes)}"
        )
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
    """Labels, where a split tells them, lie below the number of classes, and none occurs in ``test`` alone; those that
    are numbers are one for each class."""
    told = {part: values for part, values in labels.items() if values is not None}
    numbers = {part: values for part, values in told.items() if values.is_floating_point()}
    if numbers and len(numbers) < len(told):
        raise TypeError(f"data: labels of {name} must be classes or numbers in both parts, got one of either")
    for part, values in numbers.items():
        if values.dim() != 2 or values.shape[1] != classes:
            raise ValueError(f"data: labels in {part} of {name} must be [N, {classes}], got {list(values.shape)}")
    if numbers:
        return
    occurring = {part: torch.unique(values).tolist() for part, values in told.items()}
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

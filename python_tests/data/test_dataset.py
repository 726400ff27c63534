"""A data set made by hand is what its docstring says, or is refused."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from ddarts_ext.data import Augmentation, Dataset, MemorySplit

IMAGES = torch.zeros(4, 3, 5, 6, dtype=torch.uint8)
LABELS = torch.tensor([0, 1, 0, 1])


def dataset(**changes: Any) -> Dataset:
    arguments: dict[str, Any] = {
        "name": "mine",
        "train": MemorySplit(IMAGES, LABELS),
        "test": MemorySplit(IMAGES[:2], LABELS[:2]),
        "classes": ("a", "b"),
        "size": (5, 6),
        "channels": 3,
        "mean": (0.5,) * 3,
        "std": (0.2,) * 3,
        "augmentation": Augmentation(),
    }
    return Dataset(**{**arguments, **changes})


def test_a_good_one_is_taken() -> None:
    assert dataset().to("cpu").classes == ("a", "b")


@pytest.mark.parametrize(
    ("images", "labels", "error", "message"),
    [
        (IMAGES.float(), LABELS, TypeError, r"images must be uint8 \[N, C, H, W\], got float32"),
        (IMAGES, LABELS.int(), TypeError, r"labels must be int64 \[N\] or float32 \[N, K\], got int32"),
        (IMAGES, LABELS.double(), TypeError, r"labels must be int64 \[N\] or float32 \[N, K\], got float64"),
        (IMAGES, LABELS.float(), ValueError, r"labels must be \[N, K\]=\[4, K\], got \[4\]"),
        (IMAGES, LABELS[:, None] / 0.0, ValueError, "labels must be finite numbers"),
        (IMAGES.numpy(), LABELS, TypeError, "images must be a tensor, got ndarray"),
        (IMAGES[0], LABELS, ValueError, r"images must be \[N, C, H, W\] and not empty, got \[3, 5, 6\]"),
        (IMAGES[:0], LABELS[:0], ValueError, r"not empty, got \[0, 3, 5, 6\]"),
        (IMAGES, LABELS[:3], ValueError, r"labels must be \[N\]=\[4\], got \[3\]"),
        (IMAGES, LABELS[:, None], ValueError, r"labels must be \[N\]=\[4\], got \[4, 1\]"),
        (IMAGES, LABELS - 1, ValueError, "labels must be from 0, got -1"),
        (IMAGES.to("meta"), LABELS, ValueError, "on one device, got meta and cpu"),
    ],
)
def test_splits(images: Any, labels: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=f"data: .*{message}"):
        MemorySplit(images, labels)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"name": 3}, TypeError, "name must be text, got int"),
        ({"note": None}, TypeError, "note must be text, got NoneType"),
        ({"classes": ("a",)}, ValueError, "at least 2 classes, got 1"),
        ({"classes": ("a", "a")}, ValueError, "different names, got 'a' twice"),
        ({"classes": "ab"}, TypeError, "must be a tuple of names, got 'ab'"),
        ({"classes": (0, 1)}, TypeError, r"must be a tuple of names, got \(0, 1\)"),
        ({"size": (6, 5)}, ValueError, r"images in train of mine must be \[N, 3, 6, 5\], got \[4, 3, 5, 6\]"),
        ({"size": (5, 6.0)}, ValueError, r"size of mine must be \(height, width\)"),
        ({"size": 5}, ValueError, r"size of mine must be \(height, width\)"),
        ({"channels": 0}, ValueError, "channels of mine must be a whole number >= 1, got 0"),
        ({"channels": 1, "mean": (0.5,), "std": (0.2,)}, ValueError, r"must be \[N, 1, 5, 6\]"),
        ({"mean": (0.5,)}, ValueError, "one number for each of 3 channels, got 1 in mean"),
        ({"mean": (0.5, float("nan"), 0.5)}, ValueError, "mean of mine must be finite numbers, got nan"),
        ({"std": (0.2, 0.0, 0.2)}, ValueError, r"std of mine must be above 0, got 0\.0"),
        ({"std": (0.2, float("inf"), 0.2)}, ValueError, "std of mine must be finite numbers, got inf"),
        ({"augmentation": None}, TypeError, "augmentation must be an Augmentation, got NoneType"),
        ({"train": IMAGES}, TypeError, "train of mine must be a split"),
        ({"train": MemorySplit(IMAGES, LABELS * 2)}, ValueError, r"labels in train of mine must be in 0\.\.1, got 2"),
        ({"train": MemorySplit(IMAGES, LABELS * 0)}, ValueError, "mine has the label 1 in test, which train has not"),
        ({"test": MemorySplit(IMAGES[:, :1], LABELS)}, ValueError, "images in test of mine must be"),
    ],
)
def test_fields(changes: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=f"data: .*{message}"):
        dataset(**changes)

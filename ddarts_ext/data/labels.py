"""From labels as people write them to classes 0, 1, ... and their names."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor


def checked_labels(y: Any, count: int, what: str) -> Any:
    """``count`` whole numbers from 0 as an int64 array [count]; ``what`` names them in the ValueError."""
    wanted = f"data: {what} must be {count} whole numbers from 0"
    if y.dtype.kind not in "iu" or y.size != count or max(y.shape, default=0) != count:
        raise ValueError(f"{wanted}, got {y.dtype} {list(y.shape)}")
    flat = y.reshape(-1)
    wrong = (flat < 0) | (flat > np.iinfo(np.int64).max)
    if wrong.any():
        place = int(np.argmax(wrong))
        raise ValueError(f"{wanted}, got {flat[place]} at {place}")
    return flat.astype(np.int64)


def numbers_of(y: Any, count: int, what: str) -> Any:
    """Labels that are no classes as a float32 array [count, K]: floats [N] or [N, K], or K > 1 whole numbers or truth
    values each; None where they are classes. ``what`` names them in the ValueError."""
    if y.dtype.kind not in "fiub" or (y.dtype.kind != "f" and not (y.ndim == 2 and min(y.shape) > 1)):
        return None
    if y.ndim not in (1, 2) or len(y) != count or y.size == 0:
        raise ValueError(
            f"data: {what} must be {count} numbers, or rows of as many each, got {y.dtype} {list(y.shape)}"
        )
    found = y.reshape(count, -1).astype(np.float32)
    if not np.isfinite(found).all():
        raise ValueError(f"data: {what} must be finite numbers, got {y.reshape(count, -1)[~np.isfinite(found)][0]}")
    return found


def as_classes(train: Any, test: Any, what: str) -> tuple[Tensor, Tensor, tuple[str, ...]]:
    """int64 arrays -> classes 0, 1, ... in the order of the labels that occur in training, and the labels as names.

    Raises ValueError for a label that occurs in ``test`` alone.
    """
    occurring, train_classes = np.unique(train, return_inverse=True)
    unknown = np.setdiff1d(test, occurring)
    if unknown.size:
        raise ValueError(f"data: {what} has the label {unknown[0]} in y_test, which y_train has not")
    names = tuple(str(label) for label in occurring.tolist())
    test_classes = np.searchsorted(occurring, test)
    return (
        torch.from_numpy(train_classes.reshape(-1).astype(np.int64)),
        torch.from_numpy(test_classes.astype(np.int64)),
        names,
    )


def every_fifth(labels: Tensor) -> Tensor:
    """Mask of a fixed fifth of every class: its 5th, 10th, ... image in order; of all, where labels are numbers."""
    chosen = torch.zeros(len(labels), dtype=torch.bool)
    if labels.is_floating_point():
        chosen[4::5] = True
        return chosen
    for label in torch.unique(labels):
        chosen[(labels == label).nonzero()[4::5]] = True
    return chosen

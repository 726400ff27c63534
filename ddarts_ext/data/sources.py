"""``load``: from a name or a path to a :class:`Dataset`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ddarts_ext.data import cifar, folder
from ddarts_ext.data.augment import Augmentation, suited
from ddarts_ext.data.dataset import Dataset, MemorySplit, statistics

_ARRAYS = ("x_train", "y_train", "x_test", "y_test")


def load(
    data: str | Path | Dataset,
    *,
    root: str | Path | None = None,
    image_size: int | None = None,
    download: bool = False,
    **augmentation: Any,
) -> Dataset:
    """Load a data set.

    data: ``"digits"`` (1,797 real 8x8 images that come with scikit-learn), ``"cifar10"`` or ``"cifar100"`` (from
    ``root``, or written ``"cifar10:FOLDER"``), a ``.npz`` file with x_train, y_train, x_test, y_test (uint8 NHWC or
    NHW), an image folder with ``train/<class>/*``, or a :class:`Dataset`, which is handed through.
    image_size: for image folders, the side of the square that images are resized to.
    download: let torchvision download CIFAR into ``root``.
    augmentation: fields of :class:`Augmentation` that replace the data set's defaults.

    Raises ValueError, TypeError or FileNotFoundError with one line that says what was expected.
    """
    loaded = data if isinstance(data, Dataset) else _load(data, root, image_size, download)
    if not augmentation:
        return loaded
    unknown = set(augmentation) - set(Augmentation.__dataclass_fields__)
    if unknown:
        known = ", ".join(Augmentation.__dataclass_fields__)
        raise TypeError(f"data: augmentation has {known}, got {', '.join(sorted(unknown))}")
    return replace(loaded, augmentation=replace(loaded.augmentation, **augmentation))


def _load(data: str | Path, root: str | Path | None, image_size: int | None, download: bool) -> Dataset:
    if not isinstance(data, (str, Path)):
        raise TypeError(f"data: data must be a name, a path or a Dataset, got {type(data).__name__}")
    name, _, where = str(data).partition(":")
    if name in cifar.NAMES:
        base = where or root
        return cifar.load_cifar(name, Path(base) if base else None, download=download)
    if str(data) == "digits":
        return _digits()
    path = Path(data)
    if path.is_dir():
        return folder.load_folder(path, image_size)
    if not path.exists():
        raise FileNotFoundError(
            "data: data must be digits, cifar10, cifar100, a .npz file or an image folder, "
            f"and {str(data)!r} does not exist"
        )
    if path.suffix != ".npz":
        raise ValueError(f"data: a data file must be .npz, got {path.name}")
    return _npz(path)


def _digits() -> Dataset:
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise ValueError(f"data: digits come with scikit-learn, which does not import here: {error}") from error
    bunch = load_digits()
    # Grey levels 0..16 spread over uint8.
    images = torch.from_numpy(np.rint(bunch.images * (255 / 16)).astype(np.uint8))[:, None]
    labels = torch.from_numpy(bunch.target.astype(np.int64))
    # The file is ordered by writer; a fixed shuffle mixes them, then every fifth image of each class is held out.
    order = torch.from_numpy(np.random.RandomState(0).permutation(len(labels)))
    images, labels = images[order], labels[order]
    held_out = every_fifth(labels)
    return _in_memory(
        "digits",
        (images[~held_out], labels[~held_out]),
        (images[held_out], labels[held_out]),
        tuple("0123456789"),
        # Mirrored digits are other signs, and a square of half the width hides what tells 3 from 8.
        Augmentation(crop_padding=1),
        "the held-out images are a fixed fifth of every class",
    )


def every_fifth(labels: Tensor) -> Tensor:
    """Mask of a fixed fifth of every class: its 5th, 10th, ... image in order."""
    chosen = torch.zeros(len(labels), dtype=torch.bool)
    for label in torch.unique(labels):
        chosen[(labels == label).nonzero()[4::5]] = True
    return chosen


def _in_memory(
    name: str,
    train: tuple[Tensor, Tensor],
    test: tuple[Tensor, Tensor],
    classes: tuple[str, ...],
    augmentation: Augmentation,
    note: str = "",
) -> Dataset:
    mean, std = statistics(train[0])
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


def _npz(path: Path) -> Dataset:
    try:
        with np.load(path, allow_pickle=False) as archive:
            missing = [key for key in _ARRAYS if key not in archive.files]
            if missing:
                raise ValueError(
                    f"data: {path} must hold the arrays {', '.join(_ARRAYS)}, and lacks {', '.join(missing)}"
                )
            arrays = {key: archive[key] for key in _ARRAYS}
    except (OSError, EOFError, ValueError) as error:
        if str(error).startswith("data:"):
            raise
        raise ValueError(f"data: {path} must be a .npz archive of plain arrays: {error}") from error
    train = _images(path, arrays, "train")
    test = _images(path, arrays, "test")
    if train[0].shape[1:] != test[0].shape[1:]:
        raise ValueError(
            f"data: {path} must have training and test images of one size, "
            f"got {list(train[0].shape[1:])} and {list(test[0].shape[1:])}"
        )
    count = int(torch.cat([train[1], test[1]]).max()) + 1
    size = (int(train[0].shape[2]), int(train[0].shape[3]))
    names = tuple(str(i) for i in range(count))
    return _in_memory(path.stem, train, test, names, suited(size, int(train[0].shape[1])))


def _images(path: Path, arrays: dict[str, Any], part: str) -> tuple[Tensor, Tensor]:
    x, y = arrays[f"x_{part}"], arrays[f"y_{part}"]
    if x.dtype != np.uint8 or x.ndim not in (3, 4) or 0 in x.shape:
        raise ValueError(
            f"data: x_{part} in {path} must be uint8 [N, H, W] or [N, H, W, C], got {x.dtype} {list(x.shape)}"
        )
    if x.ndim == 4 and x.shape[3] > 16:
        raise ValueError(f"data: x_{part} in {path} must have channels last (NHWC), got {list(x.shape)}")
    y = y.reshape(-1)
    if y.dtype.kind not in "iu" or len(y) != len(x) or int(y.min()) < 0:
        raise ValueError(
            f"data: y_{part} in {path} must be {len(x)} whole numbers from 0, got {y.dtype} of length {len(y)}"
        )
    images = torch.from_numpy(x if x.ndim == 4 else x[..., None]).permute(0, 3, 1, 2).contiguous()
    return images, torch.from_numpy(y.astype(np.int64))

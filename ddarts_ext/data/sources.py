"""``load``: from a name or a path to a :class:`Dataset`."""

from __future__ import annotations

import glob
from dataclasses import replace
from pathlib import Path
from typing import Any

from ddarts_ext.data import arrays, cifar, folder
from ddarts_ext.data.augment import Augmentation
from ddarts_ext.data.dataset import Dataset
from ddarts_ext.data.own import is_own, load_own
from ddarts_ext.data.shards.listing import holds_shards

_DIGITS, _SHARDS = "digits", "shards"


def load(
    data: Any,
    *,
    root: str | Path | None = None,
    image_size: int | None = None,
    shape: tuple[tuple[int, int], int] | None = None,
    download: bool = False,
    **augmentation: Any,
) -> Dataset:
    """Load a data set.

    data: ``"digits"`` (1,797 real 8x8 images that come with scikit-learn), ``"cifar10"`` or ``"cifar100"`` (from
    ``root``, or written ``"cifar10:FOLDER"``), a ``.npz`` file with x_train, y_train, x_test, y_test (uint8 NHWC, NCHW
    or NHW), an image folder with ``train/<class>/*`` or ``<class>/*``, a folder of ``.tar`` shards or
    ``"shards:PATTERN"``, see :func:`ddarts_ext.data.shards.listing.list_shards`; or what a program has: a
    :class:`Dataset`, which is handed through, tensors or arrays ``(images, labels)``, or data sets of torch, see
    :func:`ddarts_ext.data.own.load_own`.
    A name goes before a file of that name, which ``note`` then says; ``./digits`` is the file.
    image_size: for image folders and shards, the side of the square that images are resized to.
    shape: ((height, width), channels) that the images of a folder, or of shards, are brought to, of a network that is
    trained already.
    download: let torchvision download CIFAR into ``root``.
    augmentation: fields of :class:`Augmentation` that replace the data set's defaults.

    Raises ValueError, TypeError or OSError with one line that says what was expected.
    """
    if isinstance(data, Dataset):
        loaded = data
    else:
        loaded = load_own(data) if is_own(data) else _load(data, root, image_size, shape, download)
    if image_size is not None and loaded.size != (image_size, image_size):
        raise ValueError(
            f"data: image_size must be given for image folders and shards alone, got {image_size!r} for {loaded.name}, "
            f"whose images are {loaded.size[0]}x{loaded.size[1]}"
        )
    if not augmentation:
        return loaded
    unknown = set(augmentation) - set(Augmentation.__dataclass_fields__)
    if unknown:
        known = ", ".join(Augmentation.__dataclass_fields__)
        raise TypeError(f"data: augmentation has {known}, got {', '.join(sorted(unknown))}")
    return replace(loaded, augmentation=replace(loaded.augmentation, **augmentation))


def _load(
    data: Any,
    root: str | Path | None,
    image_size: int | None,
    shape: tuple[tuple[int, int], int] | None,
    download: bool,
) -> Dataset:
    if not isinstance(data, (str, Path)):
        raise TypeError(f"data: data must be a name, a path or a Dataset, got {type(data).__name__}")
    if "\0" in str(data):
        raise ValueError(f"data: data must be a name or a path, got {str(data)!r}")
    name, _, where = str(data).partition(":")
    if name in cifar.NAMES:
        base = where or root
        return _named(cifar.load_cifar(name, Path(base) if base else None, download=download), data)
    if str(data) == _DIGITS:
        return _named(arrays.load_digits(), data)
    path = Path(data)
    if name == _SHARDS and where:
        return folder.load_folder(where, image_size, shape)
    if path.is_dir():
        return folder.load_folder(str(path) if holds_shards(path) else path, image_size, shape)
    if not path.exists():
        raise FileNotFoundError(
            "data: data must be digits, cifar10, cifar100, a .npz file, an image folder or shards:PATTERN, "
            f"and {str(data)!r} does not exist"
        )
    if path.suffix.lower() == ".tar":
        return folder.load_folder(glob.escape(str(path)), image_size, shape)
    if path.suffix.lower() != ".npz":
        raise ValueError(f"data: a data file must be .npz or .tar, got {path.name}")
    return arrays.load_npz(path)


def _named(dataset: Dataset, data: str | Path) -> Dataset:
    """A data set that was asked for by its name; says so where a file of that name exists."""
    if not Path(data).exists():
        return dataset
    said = f"{data} is the data set of that name, and not the file or folder {data} here, which is ./{data}"
    return replace(dataset, note="; ".join(filter(None, (said, dataset.note))))

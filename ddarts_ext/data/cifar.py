"""CIFAR-10 and CIFAR-100 in the published binary layout, or through torchvision where that can be imported."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ddarts_ext.data.augment import Augmentation
from ddarts_ext.data.dataset import Dataset, MemorySplit

_PIXELS = 3 * 32 * 32
_AUGMENTATION = Augmentation(crop_padding=4, flip=True, cutout=16)


@dataclass(frozen=True)
class _Layout:
    """One published data set: its files, the bytes of labels before each image, and its normalisation."""

    train_files: tuple[str, ...]
    test_files: tuple[str, ...]
    folders: tuple[str, ...]
    label_bytes: int
    classes: int
    names_file: str
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


_LAYOUTS = {
    "cifar10": _Layout(
        train_files=tuple(f"data_batch_{i}.bin" for i in range(1, 6)),
        test_files=("test_batch.bin",),
        folders=("", "cifar-10-batches-bin"),
        label_bytes=1,
        classes=10,
        names_file="batches.meta.txt",
        mean=(0.49139968, 0.48215827, 0.44653124),
        std=(0.24703233, 0.24348505, 0.26158768),
    ),
    "cifar100": _Layout(
        train_files=("train.bin",),
        test_files=("test.bin",),
        folders=("", "cifar-100-binary"),
        # A coarse label, then the fine one, which is the class.
        label_bytes=2,
        classes=100,
        names_file="fine_label_names.txt",
        mean=(0.50707519, 0.48654887, 0.44091785),
        std=(0.26733428, 0.25643846, 0.27615049),
    ),
}
NAMES = tuple(_LAYOUTS)


def load_cifar(name: str, root: Path | None, *, download: bool = False) -> Dataset:
    """Read ``cifar10`` or ``cifar100`` from ``root`` (binary layout), else through torchvision.

    Raises FileNotFoundError where neither is possible, naming the files that are needed.
    """
    layout = _LAYOUTS[name]
    folder = _binary_folder(layout, root)
    if folder is not None:
        train = _read(folder, _present(folder, layout.train_files), layout)
        test = _read(folder, layout.test_files, layout)
        names = _class_names(folder / layout.names_file, layout.classes)
    else:
        train, test, names = _through_torchvision(name, root, download)
    return Dataset(
        name=name,
        train=MemorySplit(*train),
        test=MemorySplit(*test),
        classes=names,
        size=(32, 32),
        channels=3,
        mean=layout.mean,
        std=layout.std,
        augmentation=_AUGMENTATION,
    )


def _binary_folder(layout: _Layout, root: Path | None) -> Path | None:
    if root is None:
        return None
    if not root.is_dir():
        raise FileNotFoundError(f"data: folder {root} does not exist")
    candidates = [root / sub for sub in layout.folders]
    return next((c for c in candidates if (c / layout.train_files[0]).is_file()), None)


def _present(folder: Path, names: tuple[str, ...]) -> tuple[str, ...]:
    missing = [name for name in names if not (folder / name).is_file()]
    if missing:
        raise FileNotFoundError(f"data: {folder} has {names[0]} but lacks {', '.join(missing)}")
    return names


def _read(folder: Path, files: tuple[str, ...], layout: _Layout) -> tuple[Tensor, Tensor]:
    record = layout.label_bytes + _PIXELS
    parts = []
    for name in files:
        path = folder / name
        if not path.is_file():
            raise FileNotFoundError(f"data: file {path} does not exist")
        raw = np.fromfile(path, dtype=np.uint8)
        if raw.size == 0 or raw.size % record:
            raise ValueError(f"data: {path} must hold records of {record} bytes, got {raw.size} bytes")
        parts.append(raw.reshape(-1, record))
    rows = torch.from_numpy(np.concatenate(parts))
    labels = rows[:, layout.label_bytes - 1].long()
    if int(labels.max()) >= layout.classes:
        raise ValueError(f"data: {folder} must hold labels below {layout.classes}, got {int(labels.max())}")
    return rows[:, layout.label_bytes :].reshape(-1, 3, 32, 32).contiguous(), labels


def _class_names(path: Path, count: int) -> tuple[str, ...]:
    lines = path.read_text().split() if path.is_file() else []
    return tuple(lines) if len(lines) == count else tuple(str(i) for i in range(count))


def _through_torchvision(
    name: str, root: Path | None, download: bool
) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor], tuple[str, ...]]:
    layout = _LAYOUTS[name]
    wanted = f"{layout.train_files[0]} ... {layout.test_files[0]}"
    pickled = root is not None and any(next(root.glob(f"**/{name}"), None) for name in ("data_batch_1", "meta"))
    hint = " (the folder holds the pickled Python layout, which is not read: it can run code)" if pickled else ""
    if pickled or (root is None and not download):
        raise FileNotFoundError(
            f"data: {name} must be a folder with the binary layout ({wanted}), as --root FOLDER or {name}:FOLDER{hint}"
        )
    try:
        from torchvision import datasets
    except (ImportError, RuntimeError) as error:
        raise FileNotFoundError(
            f"data: {name} was not found in the binary layout ({wanted}) under {root}, and torchvision, "
            f"which could download it, does not import here: {error}"
        ) from error
    kind = {"cifar10": datasets.CIFAR10, "cifar100": datasets.CIFAR100}[name]
    try:
        loaded = [kind(str(root or "data"), train=train, download=download) for train in (True, False)]
    except RuntimeError as error:
        raise FileNotFoundError(f"data: {name} could not be read through torchvision from {root}: {error}") from error
    splits = [
        (torch.from_numpy(part.data).permute(0, 3, 1, 2).contiguous(), torch.tensor(part.targets)) for part in loaded
    ]
    return splits[0], splits[1], tuple(loaded[0].classes)

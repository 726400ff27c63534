"""Which files of a folder are its images, and which class each belongs to."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch

from ddarts_ext.data import imagenet
from ddarts_ext.data.labels import every_fifth
from ddarts_ext.data.member import Member

SUFFIXES = (
    *(".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".bmp", ".dib", ".gif"),
    *(".ppm", ".pgm", ".pbm", ".pnm", ".tif", ".tiff", ".webp"),
)
_WANTED = f"images ({', '.join(SUFFIXES)})"
TRAIN = ("train", "training")
TEST = ("test", "testing", "val", "valid", "validation")
# What file servers and archivers leave behind; names that begin with a dot are never looked at either.
_LITTER = frozenset(
    (
        *("@eaDir", "#recycle", "#snapshot", "@Recycle", "@Recently-Snapshot", "__MACOSX", "__pycache__"),
        *("$RECYCLE.BIN", "System Volume Information", "lost+found"),
    )
)


@dataclass(frozen=True, slots=True)
class ImageFile:
    """One image, a file or a part of a shard, and the index of its class."""

    path: Path | Member
    label: int


@dataclass
class Listing:
    """The images of a folder, or of shards. left_out: what was not taken, by reason. said: where names are from."""

    classes: tuple[str, ...]
    train: list[ImageFile]
    test: list[ImageFile]
    held_out: bool
    left_out: Counter[str] = field(default_factory=Counter)
    kind: str = "folder"
    said: str = ""

    def notes(self) -> list[str]:
        """What a user should know of how the folder was read."""
        said = [self.said] if self.said else []
        if self.held_out:
            said.append(f"no test or val {self.kind}: every fifth training image of each class is held out")
        tested = {file.label for file in self.test}
        untested = [name for label, name in enumerate(self.classes) if label not in tested]
        if untested:
            said.append(f"{len(untested)} of {len(self.classes)} classes have no held-out image, such as {untested[0]}")
        if self.left_out:
            said.append("left out: " + ", ".join(f"{count} {reason}" for reason, count in self.left_out.most_common()))
        return said


def list_images(root: Path) -> Listing:
    """The images of ``train/<class>/`` and of ``test/`` or ``val/`` beside it, or of ``<class>/`` alone.

    Without held-out images every fifth of each class is taken for them. Links to files and to class folders are
    followed, links to folders within a class are not. Of ImageNet the names of classes, and the classes of a flat val,
    are read from the lists that lie beside it. Raises ValueError or FileNotFoundError that names the folder.
    """
    root = imagenet.images_root(root)
    left_out: Counter[str] = Counter()
    train_root, test_root = _parts(root, left_out)
    classes = tuple(_class_folders(train_root, left_out))
    if len(classes) < 2:
        raise ValueError(f"data: {train_root} must hold one folder for each of 2 or more classes, got {len(classes)}")
    train = _files(train_root, classes, left_out)
    untrained = sorted({file.label for file in train} ^ set(range(len(classes))))
    if untrained:
        raise ValueError(f"data: {train_root / classes[untrained[0]]} must hold {_WANTED}, got none")
    names, said = imagenet.named(root, classes) if imagenet.numbered(classes) else (classes, "")
    if test_root is not None:
        flat = _flat(root, test_root, classes, left_out)
        if flat:
            return Listing(names, train, flat, False, left_out, said=said)
        extra = sorted(set(_class_folders(test_root, left_out)) - set(classes))
        if extra:
            raise ValueError(f"data: {test_root} has the class {extra[0]!r}, which the training folder has not")
        test = _files(test_root, classes, left_out)
        if not test:
            beside = f" (or {imagenet.SOLUTION} beside it)" if imagenet.numbered(classes) else ""
            raise ValueError(f"data: {test_root} must hold <class>/<images> with {_WANTED}{beside}, got none")
        return Listing(names, train, test, False, left_out, said=said)
    return Listing(names, *every_fifth_out(train, "an image folder"), True, left_out, said=said)


def every_fifth_out(train: Sequence[ImageFile], what: str) -> tuple[list[ImageFile], list[ImageFile]]:
    """Every image but every fifth of each class, and these. Raises ValueError where no class has 5."""
    held = every_fifth(torch.tensor([file.label for file in train])).tolist()
    if not any(held):
        raise ValueError(f"data: {what} without test or val must have a class of 5 or more images")
    kept = [file for file, out in zip(train, held, strict=True) if not out]
    return kept, [file for file, out in zip(train, held, strict=True) if out]


def _parts(root: Path, left_out: Counter[str]) -> tuple[Path, Path | None]:
    """The folder of the training classes, and that of the held-out ones."""
    found = {entry.name.lower(): Path(entry.path) for entry in entries_of(root) if os.path.isdir(entry)}
    train = next((found[name] for name in TRAIN if name in found), None)
    # Of several the first with classes: ImageNet's test has none, as others' that were for a contest.
    tests = [found[name] for name in TEST if name in found]
    classed = [folder for folder in tests if any(map(os.path.isdir, entries_of(folder)))]
    for folder in classed[1:] if train is not None else ():
        left_out[f"folder {folder.name}, as images of {classed[0].name} are held out"] += 1
    test = classed[0] if classed else None
    test = test or next((found[name] for name in reversed(TEST) if name in found), None)
    if train is not None:
        return train, test
    wanted = f"data: image folder {root} must hold train/<class>/<images> or <class>/<images>"
    if test is not None:
        raise FileNotFoundError(f"{wanted}, and has {test.name} without train")
    if not found:
        raise FileNotFoundError(f"{wanted}, and {root / 'train'} does not exist")
    return root, None


def entries_of(folder: Path) -> Iterator[os.DirEntry[str]]:
    with os.scandir(folder) as found:
        for entry in found:
            if not entry.name.startswith(".") and entry.name not in _LITTER:
                yield entry


def _class_folders(root: Path, left_out: Counter[str]) -> list[str]:
    """Folders but those called like an image, which unpacking leaves behind."""
    names = []
    for entry in entries_of(root):
        if not os.path.isdir(entry):
            left_out["beside the class folders"] += 1
        elif _is_image_name(entry.name):
            left_out["folders with the name of an image"] += 1
        else:
            names.append(entry.name)
    return sorted(names)


def _files(root: Path, classes: Sequence[str], left_out: Counter[str]) -> list[ImageFile]:
    """The images of each class, class by class."""
    return [
        ImageFile(path, label)
        for label, name in enumerate(classes)
        if (root / name).is_dir()
        for path in _images_in(root / name, left_out)
    ]


def _images_in(folder: Path, left_out: Counter[str]) -> list[Path]:
    """All images at and below ``folder``, in order of their names."""
    found, waiting = [], [folder]
    while waiting:
        for entry in entries_of(waiting.pop()):
            if entry.is_dir(follow_symlinks=False) and not _is_image_name(entry.name):
                waiting.append(Path(entry.path))
            elif _is_image_name(entry.name) and os.path.isfile(entry):
                found.append(Path(entry.path))
            else:
                left_out[_reason(entry)] += 1
    return sorted(found)


def _flat(root: Path, folder: Path, classes: Sequence[str], left_out: Counter[str]) -> list[ImageFile]:
    """ImageNet's ``val`` as it was published, without folders for classes; nothing where it is not that."""
    if not imagenet.numbered(classes) or _class_folders(folder, Counter()):
        return []
    known = imagenet.solved(root, classes)
    if known is None:
        return []
    files = []
    for path in _images_in(folder, left_out):
        if path.stem not in known:
            raise ValueError(f"data: {path} must have a class in {imagenet.SOLUTION}, and has none")
        files.append(ImageFile(path, known[path.stem]))
    return sorted(files, key=lambda file: file.label)


def _reason(entry: os.DirEntry[str]) -> str:
    if not _is_image_name(entry.name):
        return "links to folders within a class" if os.path.isdir(entry) else "files without the suffix of an image"
    if os.path.isdir(entry):
        return "folders with the name of an image"
    if not os.path.exists(entry):
        raise ValueError(f"data: {entry.path} is a link that leads to no file")
    return "pipes, sockets and devices with the name of an image"


def _is_image_name(name: str) -> bool:
    return name.lower().endswith(SUFFIXES)

"""What ImageNet's folders say beyond other image folders: classes by WordNet number, their names, a flat ``val``."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

NAMES = ("LOC_synset_mapping.txt", "synset_words.txt")
"""Files of lines ``n01440764 tench, Tinca tinca``: of the published download, and as it is often handed on."""
SOLUTION = "LOC_val_solution.csv"
_WITHIN = ("ILSVRC/Data/CLS-LOC", "Data/CLS-LOC")
_ABOVE = 3
"""Folders between ``CLS-LOC`` and the files that tell of it."""
_NUMBER = re.compile(r"n\d{8}")


def images_root(root: Path) -> Path:
    """``root``, or the folder within it where the published download has its images."""
    return next((root / within for within in _WITHIN if (root / within / "train").is_dir()), root)


def numbered(classes: Sequence[str]) -> bool:
    """Whether classes are WordNet numbers, such as ``n01440764``."""
    return bool(classes) and all(_NUMBER.fullmatch(name) for name in classes)


def class_key(name: str) -> str:
    """What a class is known by: of ``n01440764 tench`` the number, else the name."""
    number, space, _ = name.partition(" ")
    return number if space and _NUMBER.fullmatch(number) else name


def named(root: Path, classes: tuple[str, ...]) -> tuple[tuple[str, ...], str]:
    """The classes as ``n01440764 tench``, and which file says so; as they are where none lies beside them or above.

    The number stays, as two classes are called crane. Raises ValueError for a file that is no list of names.
    """
    path = next((folder / name for folder in _around(root) for name in NAMES if (folder / name).is_file()), None)
    if path is None:
        return classes, ""
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise ValueError(f"data: {path} must be lines of a WordNet number and names, got no UTF-8: {error}") from error
    known = {}
    for place, line in enumerate(lines, start=1):
        number, _, names = line.strip().partition(" ")
        if number and (not _NUMBER.fullmatch(number) or not names.strip()):
            raise ValueError(f"data: {path}:{place} must be a WordNet number and names, got {line[:60]!r}")
        known[number] = names.partition(",")[0].strip()
    found = tuple(f"{name} {known[name]}" if name in known else name for name in classes)
    return found, f"names of classes: {path.name}"


def solved(root: Path, classes: Sequence[str]) -> dict[str, int] | None:
    """The class of every image of a flat ``val``, by its name without suffix; None where no file tells them.

    Lines are ``ILSVRC2012_val_00048981,n03995372 85 1 499 272``: of the first box the class. Raises ValueError for
    others.
    """
    path = next((folder / SOLUTION for folder in _around(root) if (folder / SOLUTION).is_file()), None)
    if path is None:
        return None
    places = {name: place for place, name in enumerate(classes)}
    found = {}
    with path.open(newline="", encoding="utf-8-sig", errors="replace") as file:
        try:
            for row in csv.reader(file):
                if row == ["ImageId", "PredictionString"] or not row:
                    continue
                number = row[1].split(" ")[0] if len(row) == 2 else ""
                if number not in places:
                    raise ValueError(f"must be an image and a class of the training folder, got {','.join(row)[:60]!r}")
                found[row[0]] = places[number]
        except (ValueError, csv.Error) as error:
            raise ValueError(f"data: a line of {path} {error}") from error
    return found


def _around(root: Path) -> Iterator[Path]:
    """``root`` and the folders above it in which the published download may have its lists."""
    yield root
    yield from list(root.resolve().parents)[:_ABOVE]

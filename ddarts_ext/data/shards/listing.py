"""Which images a set of shards holds, and which class and part each belongs to."""

from __future__ import annotations

import glob
import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import chain
from multiprocessing.pool import ThreadPool
from pathlib import Path

from ddarts_ext.data.decode import Header
from ddarts_ext.data.listing import TEST, TRAIN, ImageFile, Listing, entries_of, every_fifth_out
from ddarts_ext.data.member import Member
from ddarts_ext.data.shards.index import Entry, indexed

SUFFIX = ".tar"
CLASSES = "classes.txt"
_MOST_SHARDS = 100_000
_BRACES = re.compile(r"\{([^{}]*)\}")
_RANGE = re.compile(r"(\d+)\.\.(\d+)")


def list_shards(pattern: str) -> tuple[str, Listing, list[Header]]:
    """A name for them, the images of all shards, and the headers of those of train, then test.

    pattern: a folder of .tar files, with ``train`` and ``val`` folders of them or without; or paths with ``*``, ``?``,
    ``{000..146}`` or ``{a,b}``, several joined by ``::``. A shard is a part's by a word of its name, or by the folder
    that it is in: ``imagenet-val-{000..006}.tar``; without such ones every fifth image of each class is held out. A
    label that is a number is a line of ``classes.txt``, from 0, which may lie beside the shards or in the folder above.
    Images are listed class by class and in order of their names, as those of a folder are. Raises ValueError or OSError
    that names what is wrong.
    """
    paths = _paths(pattern)
    train, test, left_out = _by_part(paths)
    with ThreadPool(min(8, len(paths))) as pool:  # as with a folder, it is a disk that is waited for
        shards = dict(zip(train + test, pool.imap(indexed, train + test), strict=True))
    for shard in shards.values():
        left_out.update(shard.left_out)
    names = _names(train[0])
    found = [[entry for path in part for entry in shards[path].entries] for part in (train, test)]
    if not found[0]:
        raise ValueError(f"data: {train[0]} must hold images as KEY.jpg with KEY.cls or KEY.json, got none")
    if test and not found[1]:
        raise ValueError(f"data: {test[0]} must hold images as KEY.jpg with KEY.cls or KEY.json, got none")
    classes, numbers = _classes(found[0], names, train[0])
    headers: dict[Member, Header] = {}
    listed = [_listed(part, numbers, headers, path) for part, path in zip(found, (train[0], *test[:1]), strict=False)]
    if test:
        listing = Listing(classes, listed[0], listed[1], False, left_out, "shards")
    else:
        kept, held = every_fifth_out(listed[0], "shards")
        listing = Listing(classes, kept, held, True, left_out, "shards")
    root = Path(pattern) if os.path.isdir(pattern) else train[0].parent
    return (
        root.resolve().name,
        listing,
        [headers[file.path] for file in chain(listing.train, listing.test) if isinstance(file.path, Member)],
    )


def holds_shards(folder: Path) -> bool:
    """Whether a folder has .tar files in the place of class folders: at its top, or in its part ``train``."""
    entries = list(entries_of(folder))
    folders = [entry for entry in entries if os.path.isdir(entry)]
    train = next((entry for entry in folders if entry.name.lower() in TRAIN), None)
    if train is not None:
        return holds_shards(Path(train.path))
    return not folders and any(_is_shard(entry.name) for entry in entries)


def _is_shard(name: str) -> bool:
    return name.lower().endswith(SUFFIX) and not name.startswith(".")


def _paths(pattern: str) -> list[Path]:
    found: list[Path] = []
    if os.path.isdir(pattern):
        root = Path(pattern)
        parts = [entry for entry in root.iterdir() if entry.name.lower() in (*TRAIN, *TEST) and entry.is_dir()]
        found = [path for folder in (root, *parts) for path in folder.iterdir() if _is_shard(path.name)]
        if not found:
            raise FileNotFoundError(f"data: {pattern} must hold {SUFFIX} files, or train/ with such, got none")
        return sorted(found)
    for text in chain.from_iterable(map(_expanded, pattern.split("::"))):
        matching = sorted(glob.glob(text)) if glob.has_magic(text) else [text]
        if not matching or not os.path.exists(matching[0]):
            raise FileNotFoundError(
                f"data: shards must be {SUFFIX} files or patterns of such, and {text!r} does not exist"
            )
        found.extend(map(Path, matching))
        if len(found) > _MOST_SHARDS:
            raise ValueError(f"data: shards must be {_MOST_SHARDS:,} files at most, got more in {pattern[:100]!r}")
    return list(dict.fromkeys(found))


def _expanded(pattern: str) -> Iterator[str]:
    """Every name that the braces of a pattern stand for."""
    found = _BRACES.search(pattern)
    if found is None:
        yield pattern
        return
    for choice in _choices(found[1]):
        yield from _expanded(pattern[: found.start()] + choice + pattern[found.end() :])


def _choices(text: str) -> Iterator[str]:
    ends = _RANGE.fullmatch(text)
    if ends is None:
        yield from text.split(",")
        return
    first, last = int(ends[1]), int(ends[2])
    if not first <= last < first + _MOST_SHARDS:
        raise ValueError(f"data: a range of shards must rise, to {_MOST_SHARDS:,} of them at most, got {{{text[:60]}}}")
    width = len(ends[1]) if len(ends[1]) == len(ends[2]) else 0
    yield from (f"{number:0{width}}" for number in range(first, last + 1))


def _by_part(paths: Sequence[Path]) -> tuple[list[Path], list[Path], Counter[str]]:
    """Shards of train and of the first part to test by, and how many are of further ones."""
    parts = {path: _part(path) for path in paths}
    chosen = next((name for name in TEST if name in parts.values()), None)
    train = [path for path, part in parts.items() if part == "" or part in TRAIN]
    if not train:
        raise FileNotFoundError(
            f"data: shards must have a part to train with, and {paths[0]} and all others are {chosen}"
        )
    test = [path for path, part in parts.items() if part == chosen and chosen is not None]
    others = len(paths) - len(train) - len(test)
    return train, test, Counter({"shards of further parts": others} if others else {})


def _part(path: Path) -> str:
    """``train``, ``val`` and so on: the word in the name of a shard, else the name of its folder; else nothing."""
    words = re.split(r"[^a-z]+", path.name.lower())
    return next((word for word in (*words, path.parent.name.lower()) if word in (*TRAIN, *TEST)), "")


def _names(shard: Path) -> tuple[str, ...]:
    """The lines of ``classes.txt``, none where there is no such file."""
    for folder in (shard.parent, shard.parent.parent):
        path = folder / CLASSES
        if path.is_file():
            try:
                return tuple(line.strip() for line in path.read_text(encoding="utf-8-sig").rstrip().splitlines())
            except UnicodeDecodeError as error:
                raise ValueError(f"data: {path} must be names of classes in UTF-8, one a line: {error}") from error
    return ()


def _classes(
    entries: Sequence[Entry], names: tuple[str, ...], shard: Path
) -> tuple[tuple[str, ...], dict[int | str, int]]:
    """The names of the classes, and the class of every label as it is written."""
    labels = {entry.label for entry in entries}
    whole = sorted(label for label in labels if isinstance(label, int))
    named = sorted(label for label in labels if isinstance(label, str))
    if whole and named:
        raise ValueError(f"data: labels must be numbers or names in all shards, got {whole[0]} and {named[0]!r}")
    if len(labels) < 2:
        raise ValueError(f"data: {shard} and the shards beside it must have 2 or more classes, got {len(labels)}")
    if whole and names:
        if whole[-1] >= len(names):
            raise ValueError(f"data: labels must be below the {len(names)} lines of {CLASSES}, got {whole[-1]}")
        return tuple(names[label] for label in whole), {label: place for place, label in enumerate(whole)}
    every: list[int | str] = [*whole, *named]
    return tuple(map(str, every)), {label: place for place, label in enumerate(every)}


def _listed(
    entries: Sequence[Entry], numbers: dict[int | str, int], headers: dict[Member, Header], shard: Path
) -> list[ImageFile]:
    files = []
    for entry in entries:
        if entry.label not in numbers:
            raise ValueError(f"data: {entry.member} has the label {entry.label!r}, which no training image has")
        files.append(ImageFile(entry.member, numbers[entry.label]))
        headers[entry.member] = entry.header
    return sorted(files, key=lambda file: (file.label, file.path.name))

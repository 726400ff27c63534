"""Which images the members of a .tar shard are, in the manner of WebDataset: KEY.jpg by KEY.cls or KEY.json.

Nothing is unpacked: a shard's headers are read once, after which every image is known by its shard, place and length,
and is read from there. So images come in any order, as those of a folder do.
"""

from __future__ import annotations

import json
import os
import stat
import tarfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from textwrap import shorten
from typing import Any, NamedTuple, cast

from ddarts_ext.data.listing import SUFFIXES
from ddarts_ext.data.member import Member

_BLOCK = 512
_LARGEST_HEADER = 1 << 20
_LARGEST_LABEL = 1 << 20
_LABELS = ("cls", "json")
_COMPRESSED = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7z": "xz", b"\x28\xb5\x2f\xfd": "zstandard"}


@dataclass(frozen=True)
class Sample:
    """An image of a shard with its label, as it is written: a whole number from 0, or the name of a class."""

    member: Member
    label: int | str


@dataclass(frozen=True)
class Shard:
    """What a shard holds. left_out: what was not taken, by reason."""

    samples: tuple[Sample, ...]
    left_out: dict[str, int]


class _Place(NamedTuple):
    name: str
    offset: int
    size: int


def read_shard(path: Path) -> Shard:
    """The samples of a shard, in its order. Raises ValueError, or OSError, in one line that names it and the member."""
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):  # a pipe would be waited for
            raise ValueError("it is no regular file")
        with path.open("rb") as file:
            return _samples(path, file, _members(file))
    except Exception as error:
        # tarfile raises what it meets: its own errors, UnicodeDecodeError, OverflowError, RecursionError.
        reason = shorten(str(error), 200) or type(error).__name__
        raise ValueError(f"data: {path} is not a shard that can be read: {reason}") from error


def _members(file: Any) -> Iterator[_Place]:
    """The files of a tar archive, by their headers alone; everything that is claimed is compared with the file."""
    length = os.fstat(file.fileno()).st_size
    kind = next((name for start, name in _COMPRESSED.items() if _at(file, 0, len(start)) == start), None)
    if kind is not None:
        raise ValueError(f"it is compressed by {kind}, and shards are read by place: unpack it to .tar")
    if not length:
        raise ValueError("it is empty")
    end = 0
    file.seek(0)
    archive: Any
    with tarfile.open(fileobj=cast(Any, _Headers(file)), mode="r:") as archive:
        while (info := archive.next()) is not None:
            archive.members.clear()  # tarfile keeps them all
            if not info.isdir() and (info.issparse() or not info.isreg()):
                raise ValueError(f"member {info.name!r} is {_kind(info)}, and no plain file")
            after = info.offset_data + -(-info.size // _BLOCK) * _BLOCK if info.isreg() else info.offset_data
            if info.size < 0 or info.offset_data <= info.offset or after < end:
                raise ValueError(f"member {info.name!r} lies before the one that it follows")
            if info.isreg() and info.offset_data + info.size > length:
                raise ValueError(
                    f"member {info.name!r} claims {info.size} bytes at {info.offset_data}, and the file has {length}"
                )
            end = after
            if info.isreg():
                yield _Place(info.name, info.offset_data, info.size)
    rest = _at(file, end, _BLOCK)
    if rest.strip(b"\0") or 0 < len(rest) < _BLOCK:
        # tarfile takes a header that it cannot read for the end.
        raise ValueError(f"it has no header of a member at byte {end}, and does not end there")


def _kind(info: tarfile.TarInfo) -> str:
    if info.issparse():
        return "a sparse file"
    return "a link" if info.issym() or info.islnk() else "a device or a pipe"


class _Headers:
    """A file of which headers alone are read: one that claims to be longer than a name may be gets no memory for it."""

    def __init__(self, file: Any) -> None:
        self.file, self.name = file, None
        self.seek, self.tell = file.seek, file.tell

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= _LARGEST_HEADER:
            raise ValueError(f"a header claims {size} bytes, and may have {_LARGEST_HEADER}")
        content: bytes = self.file.read(size)
        return content


def _samples(path: Path, file: Any, members: Iterator[_Place]) -> Shard:
    images: dict[str, _Place] = {}
    labels: dict[str, dict[str, _Place]] = {}
    left_out: Counter[str] = Counter()
    for place in list(members):
        folder, _, base = place.name.rpartition("/")
        stem, _, suffix = base.partition(".")
        key, suffix = f"{folder}/{stem}", suffix.lower()
        if not stem or folder.startswith("__MACOSX"):  # what archivers leave
            continue
        if f".{suffix}" in SUFFIXES:
            known: dict[str, _Place] = images
            name = key
        elif suffix in _LABELS:
            known, name = labels.setdefault(key, {}), suffix
        else:
            left_out["members that are neither KEY.<image> nor KEY.cls nor KEY.json"] += 1
            continue
        if name in known:
            raise ValueError(f"member {place.name!r} has the key of {known[name].name!r}, and a key has one image")
        known[name] = place
    for key in labels:
        if key not in images:
            # A .json alone may be about the shard.
            left_out["labels without an image"] += 1
    samples = []
    for key, place in images.items():
        if key not in labels:
            raise ValueError(f"member {place.name!r} has no label: neither KEY.cls nor KEY.json is beside it")
        samples.append(Sample(Member(path, place.name, place.offset, place.size), _label(file, labels[key])))
    return Shard(tuple(samples), dict(left_out))


def _label(file: Any, places: dict[str, _Place]) -> int | str:
    """Of ``KEY.cls``, a whole number in digits, else of ``KEY.json``, an object with ``label`` or ``cls``."""
    place = places.get("cls") or places["json"]
    if place.size > _LARGEST_LABEL:
        raise ValueError(f"member {place.name!r} must be a label, and has {place.size} bytes")
    content = _at(file, place.offset, place.size)
    if "cls" in places:
        text = content.strip()
        if not text.isdigit() or len(text) > 18:
            raise ValueError(f"member {place.name!r} must be a whole number from 0, got {content[:40]!r}")
        return int(text)
    try:
        said = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"member {place.name!r} is not JSON: {error}") from error
    found = said.get("label", said.get("cls")) if isinstance(said, dict) else None
    if isinstance(found, str) and found:
        return found
    if isinstance(found, bool) or not isinstance(found, int) or not 0 <= found < 1 << 62:
        raise ValueError(
            f"member {place.name!r} must be an object with a label, a whole number from 0 or a name, got {found!r}"
        )
    return found


def _at(file: Any, offset: int, size: int) -> bytes:
    file.seek(offset)
    content: bytes = file.read(size)
    return content

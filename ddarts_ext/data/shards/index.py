"""What a shard holds, read once: kept in the user's cache until the shard changes."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ddarts_ext.data.decode import Header, read_header
from ddarts_ext.data.member import Member
from ddarts_ext.data.shards.reading import read_shard
from ddarts_ext.runs.files import write_whole

_VERSION = 1


@dataclass(frozen=True, slots=True)
class Entry:
    """An image of a shard. label: as it is written, a whole number or the name of a class."""

    member: Member
    label: int | str
    header: Header


@dataclass(frozen=True)
class Index:
    """The images of a shard, in its order. left_out: what was not taken, by reason."""

    entries: tuple[Entry, ...]
    left_out: dict[str, int]


def indexed(shard: Path) -> Index:
    """The index of a shard, whose images' headers are all checked; from the cache where the shard is as it was.

    The cache is ``$XDG_CACHE_HOME/ddarts_ext/shards``, by default in ``~/.cache``; one that cannot be written is done
    without. Raises ValueError or OSError that names the shard and its member.
    """
    about = _about(shard)
    cache = _cache(shard)
    known = _kept(cache, shard, about)
    if known is not None:
        return known
    found = read_shard(shard)
    entries = tuple(Entry(one.member, one.label, read_header(one.member)) for one in found.samples)
    made = Index(entries, found.left_out)
    with suppress(OSError):
        cache.parent.mkdir(parents=True, exist_ok=True)
        write_whole(cache, json.dumps({**about, **_plain(made)}, separators=(",", ":")).encode())
    return made


def _about(shard: Path) -> dict[str, Any]:
    try:
        state = os.stat(shard)
    except OSError as error:
        raise type(error)(f"data: {shard} cannot be read: {error.strerror}") from error
    return {
        "version": _VERSION,
        "shard": os.path.abspath(shard),
        "bytes": state.st_size,
        "changed": state.st_mtime_ns,
        "file": state.st_ino,
    }


def _cache(shard: Path) -> Path:
    root = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    name = hashlib.blake2b(os.fsencode(os.path.abspath(shard)), digest_size=16).hexdigest()
    return Path(root) / "ddarts_ext" / "shards" / f"{name}.json"


def _kept(cache: Path, shard: Path, about: Mapping[str, Any]) -> Index | None:
    """The index in the cache; None where it is of another state of the shard, or is not what was written."""
    try:
        data = json.loads(cache.read_bytes())
        if {name: data[name] for name in about} != about:
            return None
        entries = tuple(
            Entry(Member(shard, str(path), int(offset), int(size)), label, Header((int(high), int(wide)), bool(colour)))
            for path, offset, size, label, high, wide, colour in data["entries"]
        )
        return Index(entries, {str(reason): int(count) for reason, count in data["left_out"].items()})
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None


def _plain(index: Index) -> dict[str, Any]:
    rows = [
        [one.member.path, one.member.offset, one.member.size, one.label, *one.header.size, one.header.colour]
        for one in index.entries
    ]
    return {"entries": rows, "left_out": index.left_out}

"""Shards that lie, or hold what is no image: one line that names shard and member, at once."""

from __future__ import annotations

import io
import random
import tarfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from data.shard_files import picture, tar

from ddarts_ext.data import load
from ddarts_ext.data.shards.reading import read_shard

pytest.importorskip("PIL.Image")
pytestmark = pytest.mark.usefixtures("cache")


def special(kind: bytes, **fields: Any) -> Callable[[tarfile.TarFile], None]:
    def add(archive: tarfile.TarFile) -> None:
        info = tarfile.TarInfo("x.png")
        info.type = kind
        for name, value in fields.items():
            setattr(info, name, value)
        archive.addfile(info)

    return add


def built(path: Path, *adds: Callable[[tarfile.TarFile], None], **how: Any) -> Path:
    with tarfile.open(path, "w", **how) as archive:
        for add in adds:
            add(archive)
    return path


def member(name: str, content: bytes) -> Callable[[tarfile.TarFile], None]:
    def add(archive: tarfile.TarFile) -> None:
        info = tarfile.TarInfo(name)
        info.size = len(content)
        archive.addfile(info, io.BytesIO(content))

    return add


def changed(path: Path, place: int, content: bytes) -> Path:
    """A shard of one image whose header is changed; the check sum is made right again."""
    built(path, member("a.png", picture(0)), member("a.cls", b"0"))
    data = bytearray(path.read_bytes())
    data[place : place + len(content)] = content
    data[148:156] = b" " * 8
    data[148:156] = b"%06o\0 " % sum(data[:512])
    path.write_bytes(data)
    return path


def negative(size: int) -> bytes:
    return b"\xff" + (256**11 + size).to_bytes(11, "big")


HOSTILE: Mapping[str, tuple[Callable[[Path], Path], str]] = {
    "nothing": (lambda p: tar(p, []), "must hold images as KEY.jpg"),
    "empty": (lambda p: (p.write_bytes(b""), p)[1], "it is empty"),
    "noise": (
        lambda p: (p.write_bytes(random.Random(0).randbytes(4096)), p)[1],
        "invalid header|no header",
    ),
    "gzip": (lambda p: built(p, member("a.png", b"x")) and repacked(p), "it is compressed by gzip"),
    "symlink": (lambda p: built(p, special(tarfile.SYMTYPE, linkname="/etc/passwd")), "'x.png' is a link"),
    "hardlink": (lambda p: built(p, special(tarfile.LNKTYPE, linkname="a.png")), "'x.png' is a link"),
    "device": (lambda p: built(p, special(tarfile.CHRTYPE)), "'x.png' is a device or a pipe"),
    "pipe": (lambda p: built(p, special(tarfile.FIFOTYPE)), "'x.png' is a device or a pipe"),
    "sparse": (lambda p: sparse(p), "'x.png' is a sparse file"),
    "size": (lambda p: changed(p, 124, b"77777777777\0"), "'a.png' claims 8589934591 bytes at 512"),
    "negative": (lambda p: changed(p, 124, negative(-4096)), "'a.png' lies before|claims"),
    "pax size": (
        lambda p: built(p, special(tarfile.REGTYPE, pax_headers={"size": "-1024"}), format=tarfile.PAX_FORMAT),
        "'x.png' lies before|claims|header",
    ),
    "long header": (lambda p: long_header(p), "a header claims .* bytes, and may have"),
    "truncated": (lambda p: cut(p, 3 * 512 + 100), r"'a\.png' claims \d+ bytes at 1536, and the file has 1636"),
    "truncated header": (lambda p: cut(p, 512 + 512 + 100), "no header of a member at byte 1024"),
    "no label": (lambda p: tar(p, [("a.png", picture(0))]), "'a.png' has no label"),
    "word": (
        lambda p: tar(p, [("a.png", picture(0)), ("a.cls", b"cat")]),
        "'a.cls' must be a whole number .*b'cat'",
    ),
    "minus": (lambda p: tar(p, [("a.png", picture(0)), ("a.cls", b"-1")]), "'a.cls' must be a whole number"),
    "long": (lambda p: tar(p, [("a.png", b"x"), ("a.cls", b"1" * 5000)]), "'a.cls' must be a whole number"),
    "json": (lambda p: tar(p, [("a.png", b"x"), ("a.json", b"[" * 100_000)]), "'a.json' is not JSON"),
    "json list": (lambda p: tar(p, [("a.png", b"x"), ("a.json", b"[1]")]), "'a.json' must be an object with a label"),
    "json null": (lambda p: tar(p, [("a.png", b"x"), ("a.json", b'{"label": true}')]), "'a.json' must be an object"),
    "huge json": (
        lambda p: tar(p, [("a.png", b"x"), ("a.json", b" " * (1 << 21))]),
        "a label, and has 2097152",
    ),
    "twice": (lambda p: tar(p, [("a.png", b"x"), ("a.cls", b"0"), ("a.jpg", b"x")]), "'a.jpg' has the key of 'a.png'"),
    "no image": (lambda p: tar(p, [("a.png", b"no"), ("a.cls", b"0")]), r"shard\.tar:a\.png is not an image"),
    "one class": (lambda p: tar(p, [("a.png", picture(0)), ("a.cls", b"0")]), "2 or more classes, got 1"),
    "mixed": (
        lambda p: tar(
            p, [("a.png", picture(0)), ("a.cls", b"0"), ("b.png", picture(1)), ("b.json", b'{"label": "cat"}')]
        ),
        "labels must be numbers or names in all shards, got 0 and 'cat'",
    ),
}


def sparse(path: Path) -> Path:
    """As GNU tar writes a file with a hole: its map before its content."""
    fields = {"major": "1", "minor": "0", "name": "x.png", "realsize": "99"}
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as archive:
        info = tarfile.TarInfo("x.png")
        info.pax_headers = {f"GNU.sparse.{name}": value for name, value in fields.items()}
        info.size = 512
        archive.addfile(info, io.BytesIO(b"1\n0\n0\n".ljust(512, b"\0")))
    return path


def repacked(path: Path) -> Path:
    import gzip

    path.write_bytes(gzip.compress(path.read_bytes()))
    return path


def cut(path: Path, length: int) -> Path:
    built(path, member("b.cls", b"1"), member("a.png", picture(0)), member("a.cls", b"0"))
    path.write_bytes(path.read_bytes()[:length])
    return path


def long_header(path: Path) -> Path:
    """A name in a header of its own that is said to be 1 GiB long."""
    info = tarfile.TarInfo("././@LongLink")
    info.type, info.size = tarfile.GNUTYPE_LONGNAME, 1 << 30
    path.write_bytes(info.tobuf(tarfile.GNU_FORMAT) + bytes(4096))
    return path


@pytest.mark.parametrize("name", HOSTILE)
def test_what_is_wrong_with_a_shard_is_one_line(tmp_path: Path, name: str) -> None:
    make, message = HOSTILE[name]
    path = make(tmp_path / "shard.tar")
    began = time.monotonic()
    with pytest.raises(ValueError, match=message) as raised:
        load(path)
    assert time.monotonic() - began < 5
    said = str(raised.value)
    assert said.startswith("data: ")
    assert "\n" not in said
    assert len(said) < 500
    assert "shard.tar" in said or name == "mixed"


def test_any_bytes_are_images_or_one_line(tmp_path: Path) -> None:
    """Bytes of headers changed at random, with and without a right check sum."""
    whole = tar(
        tmp_path / "whole.tar", [("a.png", picture(0)), ("a.cls", b"0"), ("n" * 150 + ".cls", b"1")]
    ).read_bytes()
    chance = random.Random(0)
    path = tmp_path / "shard.tar"
    refused = 0
    for _ in range(400):
        data = bytearray(whole)
        begin = 512 * chance.randrange(len(data) // 512)
        for _ in range(chance.choice((1, 3, 30))):
            data[begin + chance.randrange(512)] = chance.choice((0, 0x30, 0x37, 0x80, 0xFF, chance.randrange(256)))
        if chance.random() < 0.7:
            data[begin + 148 : begin + 156] = b" " * 8
            data[begin + 148 : begin + 156] = b"%06o\0 " % sum(data[begin : begin + 512])
        path.write_bytes(data[: chance.randrange(len(data))] if chance.random() < 0.2 else data)
        said = outcome(path)
        if said is not None:
            refused += 1
            assert said.startswith(f"data: {path} is not a shard that can be read: ")
            assert "\n" not in said
    assert refused > 100


def outcome(path: Path) -> str | None:
    try:
        read_shard(path)
    except ValueError as error:
        return str(error)
    return None

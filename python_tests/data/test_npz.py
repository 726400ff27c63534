"""Arrays of other people: read as they are meant, or refused in one line that says why."""

from __future__ import annotations

import io
import os
import struct
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ddarts_ext.data import MemorySplit, load
from ddarts_ext.data.arrays import channels_first


def write_npz(path: Path, **changes: Any) -> Path:
    random = np.random.RandomState(0)
    arrays: dict[str, Any] = {
        "x_train": random.randint(0, 256, (6, 5, 7, 3), dtype=np.uint8),
        "y_train": np.arange(6) % 3,
        "x_test": random.randint(0, 256, (3, 5, 7, 3), dtype=np.uint8),
        "y_test": np.arange(3),
    }
    arrays.update(changes)
    np.savez(path, **{name: array for name, array in arrays.items() if array is not None})
    return path


def labels_of(path: Path) -> tuple[list[int], list[int], tuple[str, ...]]:
    data = load(path)
    assert isinstance(data.train, MemorySplit)
    assert isinstance(data.test, MemorySplit)
    return data.train.labels.tolist(), data.test.labels.tolist(), data.classes


def test_npz_keeps_pixels_and_labels(tmp_path: Path) -> None:
    path = write_npz(tmp_path / "small.npz")
    data = load(path)
    assert (data.name, data.size, data.channels, len(data.classes)) == ("small", (5, 7), 3, 3)
    with np.load(path) as arrays:
        ((images, labels),) = data.train.batches(torch.tensor([[4, 0]]))
        assert np.array_equal(images.permute(0, 2, 3, 1).numpy(), arrays["x_train"][[4, 0]])
        assert labels.tolist() == [1, 0]
    grey = write_npz(tmp_path / "grey.npz", x_train=np.zeros((6, 4, 4), np.uint8), x_test=np.zeros((3, 4, 4), np.uint8))
    assert load(grey).channels == 1
    assert not load(grey).augmentation.flip
    assert load(grey, flip=True).augmentation.flip


def test_labels_that_are_numbers(tmp_path: Path) -> None:
    y = {"y_train": np.arange(12.0).reshape(6, 2), "y_test": np.ones((3, 2), np.float32)}
    found = load(write_npz(tmp_path / "a.npz", **y))
    assert found.numbers
    assert found.classes == ("0", "1")
    assert torch.equal(found.train.labels, torch.arange(12.0).view(6, 2))


@pytest.mark.parametrize("values", [[0, 1, 2], [1, 2, 3], [0, 1, 255], [7, 4000001, 4000002], [0, 1, 2**40]])
@pytest.mark.parametrize("dtype", [np.int64, np.uint64])
def test_classes_are_the_labels_that_occur(tmp_path: Path, values: list[int], dtype: Any) -> None:
    path = write_npz(tmp_path / "a.npz", y_train=np.array(values * 2, dtype), y_test=np.array(values[::-1]))
    assert labels_of(path) == ([0, 1, 2] * 2, [2, 1, 0], tuple(map(str, values)))
    assert ("named by the labels" in load(path).note) == (values != [0, 1, 2])


def test_a_class_may_be_missing_in_test(tmp_path: Path) -> None:
    path = write_npz(tmp_path / "a.npz", y_train=np.array([[5], [3], [3], [5], [9], [9]]), y_test=np.array([9, 9, 3]))
    assert labels_of(path) == ([1, 0, 0, 1, 2, 2], [2, 2, 0], ("3", "5", "9"))


@pytest.mark.parametrize(
    ("shape", "first"),
    [
        ((6, 32, 32, 3), False),
        ((6, 3, 32, 32), True),
        ((6, 1, 28, 28), True),
        ((6, 28, 28, 1), False),
        ((6, 3, 8, 8), True),
        ((6, 3, 5, 3), False),  # both readings are possible: the documented one
        ((6, 32, 32, 4), False),
        ((6, 4, 32, 32), True),
        ((6, 8, 8, 8), False),
        ((6, 32, 32), False),
    ],
)
def test_the_place_of_the_channels_is_recognised(tmp_path: Path, shape: tuple[int, ...], first: bool) -> None:
    x = np.random.RandomState(0).randint(0, 256, shape, dtype=np.uint8)
    data = load(write_npz(tmp_path / "a.npz", x_train=x, x_test=x[:3]))
    assert isinstance(data.train, MemorySplit)
    expected = x[:, None] if x.ndim == 3 else x if first else x.transpose(0, 3, 1, 2)
    assert np.array_equal(data.train.images.numpy(), expected)
    assert (data.channels, *data.size) == expected.shape[1:]
    assert ("[N, C, H, W]" in data.note) == first
    assert channels_first(shape, "") == first


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"y_test": None}, "lacks y_test"),
        ({"x_train": np.zeros((6, 5, 7, 3))}, r"x_train in .* must be uint8 \[N, H, W\]"),
        ({"x_train": np.zeros((6, 0, 7, 3), np.uint8)}, r"not empty, got uint8 \[6, 0, 7, 3\]"),
        ({"x_train": np.zeros((6, 3, 32, 32), np.uint8)}, "images of one size"),
        (
            {"x_train": np.zeros((6, 32, 32, 32), np.uint8), "x_test": np.zeros((3, 32, 32, 32), np.uint8)},
            r"at most 16 channels, got \[6, 32, 32, 32\]",
        ),
        ({"y_train": np.arange(4)}, r"y_train in .* must be 6 whole numbers from 0, got int64 \[4\]"),
        ({"y_train": np.arange(6.0)}, r"must be 6 whole numbers from 0, got float64 \[6\]"),
        ({"y_train": np.eye(6, dtype=int)}, r"must be 6 whole numbers from 0, got int64 \[6, 6\]"),
        ({"y_train": np.arange(6).reshape(2, 3)}, r"got int64 \[2, 3\]"),
        ({"y_train": np.array([0, 1, 2, -7, 0, 1])}, "whole numbers from 0, got -7 at 3"),
        ({"y_train": np.array([0, 1, 2, 2**63, 0, 1], np.uint64)}, "got 9223372036854775808 at 3"),
        ({"y_test": np.array([0, 1, 12])}, "has the label 12 in y_test, which y_train has not"),
        ({"x_test": np.zeros((3, 4, 4, 3), np.uint8)}, "images of one size"),
        ({"x_train": np.array([{}], dtype=object)}, "plain arrays: x_train is an object array"),
        ({"y_train": np.zeros(6, int), "y_test": np.zeros(3, int)}, "at least 2 classes, got 1"),
    ],
)
def test_npz_errors(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load(write_npz(tmp_path / "bad.npz", **changes))


def with_member(path: Path, name: str, content: bytes, **options: Any) -> Path:
    """The good archive with one member replaced."""
    write_npz(path)
    with zipfile.ZipFile(path) as archive:
        members = {info.filename: archive.read(info) for info in archive.infolist()}
    with zipfile.ZipFile(path, "w", **options) as archive:
        for member, held in {**members, name: content}.items():
            archive.writestr(member, held)
    return path


def header(shape: str, dtype: str = "|u1", version: bytes = b"\x01\x00") -> bytes:
    text = f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    return b"\x93NUMPY" + version + struct.pack("<H", len(text)) + text


def as_file(array: Any) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (header("(1000000, 1000, 1000)"), r"claims uint8 \[1000000, 1000, 1000\], 1000000000000 bytes"),
        (header("(10**40,)"), "x_train"),
        (header("(-1, -1, 4)") + bytes(4), "does not hold"),
        (header("(6, 5, 7, 3)") + bytes(100), "does not hold"),
        (header("(6, 5, 7, 3)") + bytes(1000), "does not hold"),
        (header("(6, 5, 7, 3)", "|O") + bytes(630), "object array"),
        (header("(6, 5, 7, 3)", "nonsense") + bytes(630), "plain arrays"),
        (header("(" * 500), "plain arrays"),
        (b"\x93NUMPY\x09\x00" + bytes(200), "version"),
        (b"", "plain arrays"),
        (b"no array at all", "plain arrays"),
    ],
)
def test_headers_that_lie(tmp_path: Path, content: bytes, message: str) -> None:
    with pytest.raises(ValueError, match=message) as raised:
        load(with_member(tmp_path / "a.npz", "x_train.npy", content))
    assert "\n" not in str(raised.value)


def test_compression_by_deflate_alone(tmp_path: Path) -> None:
    good = as_file(np.zeros((6, 5, 7, 3), np.uint8))
    load(with_member(tmp_path / "a.npz", "x_train.npy", good, compression=zipfile.ZIP_DEFLATED))
    for other in (zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA):
        with pytest.raises(ValueError, match="another method than deflate"):
            load(with_member(tmp_path / "b.npz", "x_train.npy", good, compression=other))


def test_more_than_is_free_is_refused_before_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from ddarts_ext.data import archive

    monkeypatch.setattr(archive, "available_bytes", lambda: 900)
    with pytest.raises(ValueError, match="they take 1 MiB, and 1 MiB are free"):
        load(write_npz(tmp_path / "a.npz"))


@pytest.mark.parametrize("what", ["text", "empty", "array", "encrypted", "cut", "flipped", "method", "names"])
def test_files_that_are_no_archive(tmp_path: Path, what: str) -> None:
    path = write_npz(tmp_path / "a.npz")
    raw = bytearray(path.read_bytes())
    if what == "encrypted":  # the flag in the local and in the central header
        raw[6] |= 1
        raw[raw.index(b"PK\x01\x02") + 8] |= 1
    if what == "flipped":
        raw[raw.index(b"\x93NUMPY") + 200] ^= 255
    if what == "method":
        raw[8] = raw[raw.index(b"PK\x01\x02") + 10] = 99
    contents = {
        "text": b"no archive",
        "empty": b"",
        "array": as_file(np.zeros(3)),
        "cut": bytes(raw[: len(raw) // 2]),
        "names": bytes(raw).replace(b"x_train.npy", b"\xff\xfe\x00\x00ain.npy"),
    }
    path.write_bytes(contents.get(what, bytes(raw)))
    with pytest.raises(ValueError, match=r"data: .*a\.npz must ") as raised:
        load(path)
    assert "\n" not in str(raised.value)


def test_a_compressed_member_that_is_broken(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    x = np.random.RandomState(0).randint(0, 256, (6, 5, 7, 3), dtype=np.uint8)
    np.savez_compressed(path, x_train=x, y_train=np.arange(6) % 3, x_test=x, y_test=np.arange(6) % 3)
    raw = bytearray(path.read_bytes())
    for place in range(60, 400, 7):
        raw[place] ^= 85
    path.write_bytes(bytes(raw))
    with pytest.raises(ValueError, match="plain arrays"):
        load(path)


def test_what_would_be_waited_for_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.npz")
    with pytest.raises(ValueError, match="no regular file"):
        load(tmp_path / "pipe.npz")

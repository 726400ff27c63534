"""Files and folders of any content: a data set that can be read to its last image, or one line that says why not."""

from __future__ import annotations

import io
import os
import tempfile
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fuzzing import fuzz
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from ddarts_ext.data import Dataset, load

Image = pytest.importorskip("PIL.Image")


def loaded(path: Path) -> Dataset | None:
    """What is read; nothing but the three errors, in one line of bounded length, may come instead."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            data = load(path)
    except (ValueError, TypeError, OSError) as error:
        _check_line(str(error))
        return None
    for split in (data.train, data.test):
        for images, labels in split.batches(torch.arange(len(split))[None]):
            assert images.dtype == torch.uint8
            assert images.shape == (len(split), data.channels, *data.size)
            assert 0 <= int(labels.min()) <= int(labels.max()) < len(data.classes)
    return data


def _check_line(text: str, part: str = "") -> None:
    assert part in text
    assert "\n" not in text
    assert len(text) < 1000


@st.composite
def damaged(draw: Callable[..., Any], content: bytes) -> bytes:
    """The content with some bytes changed, a piece moved, or its end lost."""
    out = bytearray(content)
    for _ in range(draw(st.integers(0, 6))):
        if not out:
            break
        place = draw(st.integers(0, len(out) - 1))
        out[place] = draw(st.sampled_from((0, 1, 127, 128, 255)) | st.integers(0, 255))
    if draw(st.booleans()) and out:
        first, second, length = (draw(st.integers(0, len(out) - 1)) for _ in range(3))
        out[first : first + length % 32] = out[second : second + length % 32]
    if draw(st.integers(0, 3)) == 0:
        del out[draw(st.integers(0, len(out))) :]
    return bytes(out)


def archive(**members: Any) -> bytes:
    file = io.BytesIO()
    np.savez_compressed(file, **members)
    return file.getvalue()


X = np.arange(4 * 6 * 5, dtype=np.uint8).reshape(4, 6, 5)
GOOD = archive(x_train=X, y_train=np.arange(4) % 2, x_test=X, y_test=np.arange(4) % 2)
NAMES = ("x_train", "y_train", "x_test", "y_test")


@fuzz(600)
@given(damaged(GOOD))
def test_damaged_archives(content: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.npz"
        path.write_bytes(content)
        loaded(path)


@fuzz(600)
@given(
    st.tuples(
        *[
            st.one_of(
                arrays.arrays(
                    arrays.scalar_dtypes() if part[0] == "y" else st.just(np.uint8),
                    arrays.array_shapes(min_dims=0, max_dims=5, min_side=0, max_side=4),
                ),
                arrays.arrays(np.int64, 3, elements=st.sampled_from((0, 1, 2, 255, -1, 2**40))),
                arrays.arrays(np.uint8, (3, 4, 4)),
            )
            for part in NAMES
        ]
    )
)
def test_archives_of_any_arrays(values: tuple[Any, ...]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.npz"
        np.savez(path, **dict(zip(NAMES, values, strict=True)))
        loaded(path)


@fuzz(600)
@given(
    text=st.one_of(
        st.text(max_size=80),
        st.builds(
            "{{'descr': {!r}, 'fortran_order': {!r}, 'shape': {!r}, }}\n".format,
            st.sampled_from(("|u1", "|O", "<i8", "<f4", ">u2", "|S0", "<U9999999", "|V8", "", [("a", "|u1")], 3)),
            st.booleans() | st.none(),
            st.lists(st.integers() | st.booleans() | st.just("4"), max_size=5).map(tuple),
        ),
    ),
    version=st.sampled_from((1, 2, 3, 4)),
    rest=st.binary(max_size=64),
)
def test_archives_with_any_header(text: str, version: int, rest: bytes) -> None:
    header = text.encode("utf-8", "replace")
    length = len(header).to_bytes(2 if version == 1 else 4, "little")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.npz"
        path.write_bytes(GOOD)
        with zipfile.ZipFile(io.BytesIO(GOOD)) as good, zipfile.ZipFile(path, "w") as written:
            for name in NAMES:
                other = b"\x93NUMPY" + bytes((version, 0)) + length + header + rest
                written.writestr(f"{name}.npy", good.read(f"{name}.npy") if name != "x_train" else other)
        loaded(path)


def picture(form: str, mode: str, size: tuple[int, int], **options: Any) -> bytes:
    file = io.BytesIO()
    Image.new(mode, size, 77 if mode in ("L", "P", "I;16", "1") else None).save(file, form, **options)
    return file.getvalue()


EXIF = Image.Exif()
EXIF[274] = 6
PICTURES = [
    *(picture("PNG", mode, (7, 5)) for mode in ("1", "L", "LA", "P", "RGB", "RGBA", "I;16")),
    *(picture("TIFF", mode, (6, 6)) for mode in ("L", "RGB", "RGBA", "CMYK", "LAB", "I;16", "I;16B", "I", "F")),
    picture("TIFF", "RGB", (6, 6), compression="tiff_lzw"),
    picture("JPEG", "RGB", (9, 4), exif=EXIF),
    picture("JPEG", "CMYK", (9, 4)),
    picture("GIF", "P", (5, 5)),
    picture("BMP", "RGB", (4, 4)),
    picture("PPM", "RGB", (4, 4)),
    picture("WEBP", "RGBA", (6, 3)),
]
WORDS = st.sampled_from(
    (
        *("train", "test", "val", "a", "b", "x.png", "y.JPG", "z.tif", "w.gif", ".ipynb_checkpoints", "._x.png"),
        *("@eaDir", "notes.txt", "#recycle", "é", "-", "a b", "\udcff.png"),
    )
)


@fuzz(600)
@given(st.sampled_from(PICTURES).flatmap(damaged))
def test_damaged_pictures(content: bytes) -> None:
    """The header check and the decoder agree on the three errors, whatever Pillow makes of the bytes."""
    from ddarts_ext.data import UnreadableImage
    from ddarts_ext.data.decode import read_header, read_picture

    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        path = Path(folder) / "a.png"
        path.write_bytes(content)
        for read in (
            read_header,
            lambda file: read_picture(file, (8, 8), 1),
            lambda file: read_picture(file, (3, 9), 3),
        ):
            try:
                read(path)
            except UnreadableImage as error:
                _check_line(str(error), str(path))


entries = st.lists(
    st.tuples(
        st.lists(WORDS, min_size=1, max_size=4),
        st.sampled_from(("picture",) * 8 + ("damaged", "text", "empty", "folder", "link", "pipe")),
        st.integers(0, 2**16),
    ),
    max_size=14,
)


@fuzz(600)
@given(entries, st.booleans(), st.data())
def test_folders_of_anything(found: list[tuple[list[str], str, int]], begun: bool, data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as name:
        root = Path(name) / "images"
        root.mkdir()
        if begun:
            found = [(["train", label, f"{i}.png"], "picture", i) for label in "ab" for i in range(5)] + found
        for parts, kind, number in found:
            path = root.joinpath(*parts)
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                if kind == "folder":
                    path.mkdir()
                elif kind == "link":
                    path.symlink_to(root.joinpath(*data.draw(st.lists(WORDS, max_size=3))))
                elif kind == "pipe":
                    os.mkfifo(path)
                elif path.is_fifo():
                    continue  # nothing reads what would be written
                else:
                    content = PICTURES[number % len(PICTURES)]
                    other = {"text": b"text", "empty": b""}.get(kind, content)
                    path.write_bytes(data.draw(damaged(content)) if kind == "damaged" else other)
            except OSError:
                continue  # the place is taken, or leads in circles
        for path in (root, root / "train"):
            loaded(path)

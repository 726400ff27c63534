"""Image folders as people have them: every file counts for size and colour, and nothing else becomes a class."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Any

import pytest
import torch

from ddarts_ext.data import Dataset, MemorySplit, UnreadableImage, load
from ddarts_ext.data import folder as folder_module
from ddarts_ext.data.stream import StreamSplit

Image = pytest.importorskip("PIL.Image")


def write_images(root: Path, splits: tuple[str, ...] = ("train", "test"), classes: str = "ab", count: int = 5) -> Path:
    for split in splits:
        for value, name in enumerate(classes):
            folder = root / split / name
            folder.mkdir(parents=True)
            for i in range(count):
                Image.new("RGB", (10, 8), (100 * value, i, 7)).save(folder / f"{i}.png")
    return root


def images_of(data: Dataset) -> Any:
    assert isinstance(data.train, MemorySplit)
    return data.train.images


def test_image_folder(tmp_path: Path) -> None:
    data = load(write_images(tmp_path / "pets"))
    assert (data.name, data.classes, data.size, data.channels) == ("pets", ("a", "b"), (8, 10), 3)
    ((images, labels),) = data.train.batches(torch.tensor([[7]]))
    assert labels.item() == 1
    assert images[0, :, 0, 0].tolist() == [100, 2, 7]
    assert data.note == "images of 8x10, colour"


@pytest.mark.parametrize(
    ("sizes", "size"),
    [
        ([(6, 6)] + [(96, 96)] * 9, (96, 96)),  # the first file does not decide
        ([(96, 96)] * 10, (96, 96)),
        ([(640, 480)] * 10, (224, 224)),
        ([(48, 40)] * 6 + [(5000, 3)] * 4, (40, 48)),
        ([(300, 100)] * 10, (100, 224)),
    ],
)
def test_the_size_is_the_median(tmp_path: Path, sizes: list[tuple[int, int]], size: tuple[int, int]) -> None:
    for i, wide in enumerate(sizes):
        folder = tmp_path / "train" / "ab"[i % 2]
        folder.mkdir(parents=True, exist_ok=True)
        Image.new("L", wide).save(folder / f"{i:02}.png")
    data = load(tmp_path)
    assert data.size == size
    others = sum(wide != size[::-1] for wide in sizes)
    assert (f"{others} of 10 files are scaled and cut" in data.note) == (others > 0)
    assert load(tmp_path, image_size=12).size == (12, 12)
    assert "images of 12x12" in load(tmp_path, image_size=12).note


def test_one_colour_image_makes_all_colour(tmp_path: Path) -> None:
    root = write_images(tmp_path)
    for i in range(5):
        for part in ("train", "test"):
            Image.new("L", (10, 8), i).save(root / part / "a" / f"{i}.png")
    data = load(root)
    assert data.channels == 3
    assert "10 of 20 files are grey" in data.note
    assert images_of(data)[3, :, 0, 0].tolist() == [3, 3, 3]
    assert images_of(data)[8, :, 0, 0].tolist() == [100, 3, 7]


def test_turned_photos_count_as_they_are_looked_at(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[274] = 6
    for name in "ab":
        (tmp_path / "train" / name).mkdir(parents=True)
        for i in range(5):
            Image.new("L", (40, 30)).save(tmp_path / "train" / name / f"{i}.jpg", exif=exif)
    assert load(tmp_path).size == (40, 30)


def test_without_test_a_fifth_is_held_out(tmp_path: Path) -> None:
    data = load(write_images(tmp_path, ("train",)))
    assert (len(data.train), len(data.test)) == (8, 2)
    assert "held out" in data.note


def test_of_two_held_out_parts_one_counts_and_the_other_is_said(tmp_path: Path) -> None:
    data = load(write_images(tmp_path, ("train", "val", "test")))
    assert (len(data.train), len(data.test)) == (10, 10)
    assert "1 folder val, as images of test are held out" in data.note


@pytest.mark.parametrize("count", [5, 6, 9])
def test_a_flat_folder_of_classes(tmp_path: Path, count: int) -> None:
    root = write_images(tmp_path, ("",), classes="abc", count=count)
    data = load(root)
    assert data.classes == ("a", "b", "c")
    assert (len(data.train), len(data.test)) == (3 * (count - 1), 3)
    assert isinstance(data.test, MemorySplit)
    assert data.test.labels.tolist() == [0, 1, 2]
    assert data.test.images[:, 1, 0, 0].tolist() == [4, 4, 4]
    assert "held out" in data.note


@pytest.mark.parametrize(("train", "test"), [("train", "val"), ("Train", "TEST"), ("Training", "Testing")])
def test_names_of_the_parts(tmp_path: Path, train: str, test: str) -> None:
    data = load(write_images(tmp_path, (train, test)))
    assert (len(data.train), len(data.test), data.classes) == (10, 10, ("a", "b"))


def litter(root: Path) -> None:
    """What file servers, notebooks, archivers and devices leave in a folder of images."""
    for folder in (root, root / "train", root / "test", root / "train" / "a", root / "test" / "b"):
        for name in (".ipynb_checkpoints", "@eaDir", "__MACOSX", "x.png"):
            (folder / name).mkdir()
            Image.new("L", (3, 3), 255).save(folder / name / "1.png")
        (folder / "._0.png").write_bytes(b"\0\5\x16\7")
        (folder / ".DS_Store").write_bytes(b"")
        (folder / "Thumbs.db").write_bytes(b"")
    for folder in (root / "train" / "a", root / "test" / "b"):
        os.mkfifo(folder / "pipe.png")
        (folder / "loop").symlink_to(folder)
        (folder / "null.png").symlink_to("/dev/zero")
        with socket.socket(socket.AF_UNIX) as listener:
            here = os.getcwd()
            os.chdir(folder)  # paths of sockets must be short
            listener.bind("socket.png")
            os.chdir(here)
    (root / "train" / "self").symlink_to(root / "train" / "self")


def test_what_is_no_image_is_never_a_class(tmp_path: Path) -> None:
    clean = load(write_images(tmp_path / "clean"))
    write_images(tmp_path / "littered")
    litter(tmp_path / "littered")
    data = load(tmp_path / "littered")
    assert data.classes == clean.classes
    assert torch.equal(images_of(data), images_of(clean))
    assert len(data.test) == len(clean.test)
    for said in (
        "6 pipes, sockets and devices with the name of an image",
        "4 folders with the name of an image",
        "2 links to folders within a class",
        "2 files without the suffix of an image",
    ):
        assert said in data.note


def test_links_to_images_and_class_folders_are_followed(tmp_path: Path) -> None:
    write_images(tmp_path / "real")
    (tmp_path / "linked" / "train").mkdir(parents=True)
    for name in "ab":
        (tmp_path / "linked" / "train" / name).symlink_to(tmp_path / "real" / "train" / name)
    (tmp_path / "linked" / "test" / "a").mkdir(parents=True)
    (tmp_path / "linked" / "test" / "a" / "1.png").symlink_to(tmp_path / "real" / "test" / "a" / "1.png")
    data = load(tmp_path / "linked")
    assert (len(data.train), len(data.test)) == (10, 1)
    assert "1 of 2 classes have no held-out image, such as b" in data.note
    (tmp_path / "linked" / "test" / "a" / "2.png").symlink_to(tmp_path / "gone.png")
    with pytest.raises(ValueError, match=r"2\.png is a link that leads to no file"):
        load(tmp_path / "linked")


def test_images_below_class_folders_belong_to_the_class(tmp_path: Path) -> None:
    root = write_images(tmp_path)
    (root / "train" / "b" / "more" / "deep").mkdir(parents=True)
    Image.new("RGB", (10, 8)).save(root / "train" / "b" / "more" / "deep" / "x.JPEG")
    data = load(root)
    assert isinstance(data.train, MemorySplit)
    assert data.train.labels.tolist() == [0] * 5 + [1] * 6


def streamed(root: Path, monkeypatch: pytest.MonkeyPatch) -> Dataset:
    monkeypatch.setattr(folder_module, "IN_MEMORY_BYTES", 0)
    data = load(root)
    assert isinstance(data.train, StreamSplit)
    return data


@pytest.mark.parametrize("rows", [[[3, 8]], [[3, 8], [0, 1], [9, 3]]])
def test_large_folders_stream_the_same_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rows: list[list[int]]
) -> None:
    root = write_images(tmp_path)
    kept = list(load(root).train.batches(torch.tensor(rows)))
    data = streamed(root, monkeypatch)
    for (images, labels), (expected, numbers) in zip(
        data.to("cpu").train.batches(torch.tensor(rows)), kept, strict=True
    ):
        assert torch.equal(images, expected)
        assert torch.equal(labels, numbers)


@pytest.mark.parametrize("part", ["train", "test"])
def test_a_corrupt_header_is_found_before_a_stream_begins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, part: str
) -> None:
    root = write_images(tmp_path, count=40)
    monkeypatch.setattr(folder_module, "_SAMPLE", 2)
    monkeypatch.setattr(folder_module, "_TEST_SAMPLE", 2)
    (root / part / "b" / "7.png").write_bytes(b"no image")
    with pytest.raises(UnreadableImage, match=rf"{part}/b/7\.png is not an image"):
        streamed(root, monkeypatch)


def test_a_sample_is_decoded_before_a_stream_begins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = write_images(tmp_path)
    for part in ("train", "test"):
        path = root / part / "b" / "4.png"
        good = path.read_bytes()
        path.write_bytes(good[:50])
        with pytest.raises(UnreadableImage, match=rf"{part}/b/4\.png is not an image"):
            streamed(root, monkeypatch)
        path.write_bytes(good)


@pytest.mark.parametrize("rows", [[[0, 1]], [[0, 1], [8, 9], [2, 3]]])
def test_a_file_that_breaks_later_stops_the_stream_with_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rows: list[list[int]]
) -> None:
    data = streamed(write_images(tmp_path), monkeypatch)
    broken = tmp_path / "train" / ("a" if len(rows) == 1 else "b") / ("1.png" if len(rows) == 1 else "4.png")
    broken.write_bytes(broken.read_bytes()[:50])
    batches = data.train.batches(torch.tensor(rows))
    for _ in range(len(rows) // 2):
        next(batches)
    with pytest.raises(UnreadableImage) as raised:
        next(batches)
    assert str(raised.value).startswith(f"data: {broken} is not an image that can be read: ")
    assert "\n" not in str(raised.value)


def test_a_file_that_becomes_a_pipe_does_not_hang_the_stream(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = streamed(write_images(tmp_path), monkeypatch)
    (tmp_path / "train" / "a" / "0.png").unlink()
    os.mkfifo(tmp_path / "train" / "a" / "0.png")
    with pytest.raises(UnreadableImage, match=r"0\.png .*no regular file"):
        list(data.train.batches(torch.tensor([[0], [1]])))


def test_a_disk_that_does_not_answer_ends_the_stream(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import time

    from ddarts_ext.data import stream

    data = streamed(write_images(tmp_path), monkeypatch)
    monkeypatch.setattr(stream, "TIMEOUT", 0.5)
    monkeypatch.setattr(stream, "read_picture", lambda *_: time.sleep(3))
    with pytest.raises(ValueError, match=r"data: images could not be streamed by worker processes: .*timed out"):
        list(data.train.batches(torch.tensor([[0], [1]])))


def test_errors(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="must hold train/<class>/<images>"):
        load(tmp_path)
    with pytest.raises(ValueError, match="2 or more classes, got 1"):
        load(write_images(tmp_path / "one", classes="a"))
    with pytest.raises(FileNotFoundError, match="has val without train"):
        load(write_images(tmp_path / "untrained", ("val", "more")))
    root = write_images(tmp_path / "two")
    for size in (0, -3, 5000, 2.0, True, "8"):
        with pytest.raises(ValueError, match="image_size must be a whole number from 1 to 4096"):
            load(root, image_size=size)  # type: ignore[arg-type]
    (root / "test" / "c").mkdir()
    with pytest.raises(ValueError, match="has the class 'c', which the training folder has not"):
        load(root)
    broken = write_images(tmp_path / "broken")
    (broken / "train" / "a" / "3.png").write_bytes(b"no image")
    with pytest.raises(UnreadableImage, match=r"3\.png is not an image"):
        load(broken)
    empty = write_images(tmp_path / "empty")
    (empty / "train" / "c").mkdir()
    with pytest.raises(ValueError, match="train/c must hold images"):
        load(empty)
    with pytest.raises(ValueError, match="a class of 5 or more images"):
        load(write_images(tmp_path / "few", ("train",), count=4))


def test_grey_of_16_bits_keeps_its_levels(tmp_path: Path) -> None:
    import numpy as np

    for k, name in enumerate(("dark", "bright")):
        (tmp_path / "train" / name).mkdir(parents=True)
        for i in range(5):
            level = np.full((8, 8), 8000 + 20000 * k + 256 * i, np.uint16)
            Image.fromarray(level).save(tmp_path / "train" / name / f"{i}.png")
    assert images_of(load(tmp_path)).unique().tolist() == [31, 32, 33, 34, 109, 110, 111, 112]

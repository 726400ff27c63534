"""Shards of .tar files give what a folder of the same images gives, and say in one line what they are not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from data.shard_files import Files, picture, tar

from ddarts_ext.data import Dataset, MemorySplit, UnreadableImage, load
from ddarts_ext.data import folder as folder_module
from ddarts_ext.data.identity import identity
from ddarts_ext.data.order import canonical_order
from ddarts_ext.data.shards import index as index_module
from ddarts_ext.data.shards.reading import read_shard
from ddarts_ext.data.stream import StreamSplit
from ddarts_ext.search import Searcher

pytest.importorskip("PIL.Image")
pytestmark = pytest.mark.usefixtures("cache")


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    """A folder, and shards of the same images in another order: two of train, whose keys are mixed, and one of val."""
    root, shards = tmp_path / "pets", tmp_path / "shards" / "pets"
    files: dict[str, Files] = {"train-000": [], "train-001": [], "val-0": []}
    for number, (part, count) in enumerate((("train", 12), ("val", 4))):
        for label, name in enumerate(("cat", "dog")):
            (root / part / name).mkdir(parents=True)
            for i in range(count):
                content = picture(10 * label + i + number)
                (root / part / name / f"{name}{i:02}.png").write_bytes(content)
                where = f"train-00{i % 2}" if part == "train" else "val-0"
                files[where] += [(f"{name}{i:02}.cls", str(label).encode()), (f"{name}{i:02}.png", content)]
    for where, members in files.items():
        tar(shards / f"{where}.tar", members)
    (shards / "classes.txt").write_text("cat\ndog\n")
    return root, shards


def streamed(data: str | Path, monkeypatch: pytest.MonkeyPatch) -> Dataset:
    monkeypatch.setattr(folder_module, "IN_MEMORY_BYTES", 0)
    found = load(data)
    assert isinstance(found.train, StreamSplit)
    return found


@pytest.mark.parametrize("large", [False, True])
def test_they_are_what_the_folder_is(pair: tuple[Path, Path], large: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    root, shards = pair
    if large:
        monkeypatch.setattr(folder_module, "IN_MEMORY_BYTES", 0)
    folder, packed = load(root), load(f"shards:{shards}")
    assert isinstance(packed.train, StreamSplit if large else MemorySplit)
    for name in ("name", "classes", "size", "channels", "mean", "std", "augmentation", "note"):
        assert getattr(packed, name) == getattr(folder, name), name
    for mine, theirs in ((packed.train, folder.train), (packed.test, folder.test)):
        assert mine.keys() == theirs.keys()
        rows = torch.randperm(len(mine), generator=torch.Generator().manual_seed(0)).view(4, -1)
        for (images, labels), (expected, numbers) in zip(mine.batches(rows), theirs.batches(rows), strict=True):
            assert torch.equal(images, expected)
            assert torch.equal(labels, numbers)
    orders = canonical_order(packed.train), canonical_order(folder.train)
    assert identity(packed, orders[0]) == identity(folder, orders[1])


def test_a_search_of_them_is_that_of_the_folder(
    pair: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first epoch on the folder and the second, resumed, on the shards: as both on the folder."""
    monkeypatch.setattr(folder_module, "IN_MEMORY_BYTES", 0)
    root, shards = pair
    settings: dict[str, Any] = {"cells": 3, "channels": 2, "steps": 1, "batch": 12, "device": "cpu", "seed": 1}

    def search(data: Any, out: str, epochs: int) -> Any:
        return Searcher(data, "ddarts", **settings, epochs=epochs, out=tmp_path / out, resume=True).search()

    whole = search(str(root), "folder", 2)
    search(str(root), "both", 1)
    both = search(f"shards:{shards}", "both", 2)
    assert both.genotype == whole.genotype
    for name in ("train", "valid"):
        assert [record[name] for record in both.history] == [record[name] for record in whole.history]


def test_ways_to_say_which(pair: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shards = pair[1]
    expected = load(shards)  # a folder that holds nothing but shards says it by itself
    monkeypatch.chdir(shards.parent)
    for said in (
        f"shards:{shards}",
        "shards:pets/*.tar",
        "shards:pets/{train-{000..001},val-0}.tar",
        "shards:pets/train-00[01].tar::pets/val-0.tar",
    ):
        found = load(said)
        assert (found.train.keys(), found.test.keys(), found.classes, found.name) == (
            *(expected.train.keys(), expected.test.keys(), expected.classes, "pets"),
        )
    (tmp_path / "parts" / "train").mkdir(parents=True)
    (tmp_path / "parts" / "val").mkdir()
    for name in ("train-000", "train-001", "val-0"):
        part, _, number = name.partition("-")
        (tmp_path / "parts" / part / f"{number}.tar").write_bytes((shards / f"{name}.tar").read_bytes())
    (tmp_path / "parts" / "classes.txt").write_text("cat\ndog\n")
    for again in (load(tmp_path / "parts"), load(f"shards:{tmp_path}/parts/*/*.tar")):
        assert (again.train.keys(), again.test.keys()) == (expected.train.keys(), expected.test.keys())
        assert again.classes == ("cat", "dog")


def test_a_folder_of_classes_beside_its_archive_stays_one(pair: tuple[Path, Path]) -> None:
    root, shards = pair
    (root / "pets.tar").write_bytes((shards / "val-0.tar").read_bytes())
    (root / "train" / "cat.tar").write_bytes((shards / "val-0.tar").read_bytes())
    assert len(load(root).train) == 24


def test_without_val_every_fifth_is_held_out(pair: tuple[Path, Path]) -> None:
    root, shards = pair
    (shards / "val-0.tar").unlink()
    for path in (root / "val").rglob("*.png"):
        path.unlink()
    for folder in ("val/cat", "val/dog", "val"):
        (root / folder).rmdir()
    packed, folder = load(shards), load(root)
    assert isinstance(packed.test, MemorySplit)
    assert isinstance(folder.test, MemorySplit)
    assert torch.equal(packed.test.images, folder.test.images)
    assert "no test or val shards: every fifth training image of each class is held out" in packed.note
    assert len(load(shards / "train-000.tar").train) == 10  # one shard alone


@pytest.mark.parametrize(
    ("labels", "classes"),
    [
        ([b'{"label": 3}', b'{"label": 7, "text": "x"}'], ("3", "7")),
        ([b'{"cls": 3}', b"7"], ("3", "7")),
        ([b'{"label": "dog"}', b'{"label": "cat"}'], ("cat", "dog")),
        ([b" 0\n", b"1"], ("0", "1")),
    ],
)
def test_labels(tmp_path: Path, labels: list[bytes], classes: tuple[str, ...]) -> None:
    files: Files = []
    for i in range(10):
        label = labels[i % 2]
        suffix = "json" if label.startswith(b"{") else "cls"
        files += [(f"deep/{i}.JPG", picture(i, "jpeg")), (f"deep/{i}.{suffix}", label), (f"deep/{i}.txt", b"a pet")]
    data = load(tar(tmp_path / "a.tar", files))
    assert data.classes == classes
    assert data.train.labels.tolist() == [0] * 4 + [1] * 4
    assert "left out: 10 members that are neither KEY.<image> nor KEY.cls nor KEY.json" in data.note


def test_the_index_is_read_again_when_a_shard_changes(
    pair: tuple[Path, Path], cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shards = pair[1]
    read: list[str] = []

    def counted(path: Path) -> Any:
        read.append(path.name)
        return read_shard(path)

    monkeypatch.setattr(index_module, "read_shard", counted)
    first = load(shards)
    assert sorted(read) == ["train-000.tar", "train-001.tar", "val-0.tar"]
    again = load(shards)
    assert len(read) == 3
    assert (again.note, again.train.keys()) == (first.note, first.train.keys())
    files = [(f"{i}.png", picture(i)) for i in range(4)] + [(f"{i}.cls", b"1") for i in range(4)]
    tar(shards / "val-0.tar", files)
    assert len(load(shards).test) == 4
    assert read[3:] == ["val-0.tar"]
    for path in (cache / "ddarts_ext" / "shards").iterdir():
        path.write_text('{"version": 1, "entries": [[1]]')
    assert load(shards).train.keys() == first.train.keys()
    assert len(read) == 7


def test_a_cache_that_cannot_be_written_is_done_without(
    pair: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert len(load(pair[1]).train) == 24


def test_a_shard_that_breaks_later_stops_the_stream_with_its_name(
    pair: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    data = streamed(pair[1], monkeypatch)
    assert isinstance(data.train, StreamSplit)
    member = data.train.files[3].path
    content = bytearray(member.shard.read_bytes())  # type: ignore[union-attr]
    content[member.offset + 40 : member.offset + member.size] = bytes(member.size - 40)  # type: ignore[union-attr]
    member.shard.write_bytes(content)  # type: ignore[union-attr]
    for rows in ([[3]], [[0], [3]]):
        with pytest.raises(
            UnreadableImage, match=r"^data: .*/train-001\.tar:cat03\.png is not an image that can be read"
        ):
            list(data.train.batches(torch.tensor(rows)))
    member.shard.write_bytes(content[: member.offset + 20])  # type: ignore[union-attr]
    with pytest.raises(UnreadableImage, match=r"train-001\.tar:cat03\.png is not an image that can be read"):
        list(data.train.batches(torch.tensor([[3]])))


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ("none.tar", "'none.tar' does not exist"),
        ("{000..002}.tar", "'000.tar' does not exist"),
        ("*.tar", r"'\*\.tar' does not exist"),
        ("{5..2}.tar", r"a range of shards must rise, .*got \{5\.\.2\}"),
        ("{0..999999999}.tar", "a range of shards must rise, to 100,000"),
        (".", "must hold .tar files, or train/ with such, got none"),
    ],
)
def test_patterns_are_checked(said: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises((ValueError, FileNotFoundError), match=message) as raised:
        load(f"shards:{said}")
    assert str(raised.value).startswith("data: ")


def test_parts_are_compared(pair: tuple[Path, Path]) -> None:
    shards = pair[1]
    files = [("a.png", picture(0)), ("a.cls", b"2")]
    tar(shards / "val-1.tar", files)
    with pytest.raises(ValueError, match=r"val-1\.tar:a\.png has the label 2, which no training image has"):
        load(shards)
    (shards / "train-000.tar").unlink()
    (shards / "train-001.tar").unlink()
    with pytest.raises(FileNotFoundError, match=r"shards must have a part to train with, and .* are val"):
        load(shards)


def test_names_of_classes_are_checked(pair: tuple[Path, Path]) -> None:
    names = pair[1] / "classes.txt"
    for content, message in (
        ("cat", "labels must be below the 1 lines of classes.txt, got 1"),
        ("cat\ncat", "must have different names, got 'cat' twice"),
    ):
        names.write_text(content)
        with pytest.raises(ValueError, match=message):
            load(pair[1])
    names.write_bytes(b"\xff\xfe\xff")
    with pytest.raises(ValueError, match=r"classes\.txt must be names of classes in UTF-8"):
        load(pair[1])
    names.unlink()
    assert load(pair[1]).classes == ("0", "1")

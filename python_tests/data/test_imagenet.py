"""ImageNet as it is downloaded, unpacked and rearranged: numbers of WordNet, their names, a val without folders."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from data.shard_files import picture

from ddarts_ext import load_network
from ddarts_ext.data import MemorySplit, load
from ddarts_ext.data.identity import identity
from ddarts_ext.data.order import canonical_order
from ddarts_ext.genotype import Genotype
from ddarts_ext.training import Trainer
from ddarts_ext.training.evaluate import evaluate

pytest.importorskip("PIL.Image")

NUMBERS = ("n01440764", "n02012849", "n03126707")
LINES = "n01440764 tench, Tinca tinca\nn02012849 crane\nn03126707 crane\nn04522168 vase\n"
NAMED = ("n01440764 tench", "n02012849 crane", "n03126707 crane")
PLACES = {"ILSVRC2012_val_00000001": 2, "ILSVRC2012_val_00000002": 0, "ILSVRC2012_val_00000003": 1}


def write(folder: Path, name: str, value: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(picture(value, "jpeg"))


@pytest.fixture
def download(tmp_path: Path) -> Path:
    """The published tree: val and test are flat, and lists lie three folders above the images."""
    root = tmp_path / "imagenet"
    images = root / "ILSVRC" / "Data" / "CLS-LOC"
    for label, number in enumerate(NUMBERS):
        for i in range(4):
            write(images / "train" / number, f"{number}_{i}.JPEG", 10 * label + i)
    for name, label in PLACES.items():
        write(images / "val", f"{name}.JPEG", 40 + label)
    write(images / "test", "ILSVRC2012_test_00000001.JPEG", 1)
    (root / "LOC_synset_mapping.txt").write_text(LINES)
    rows = [f"{name},{NUMBERS[label]} 85 1 499 272 {NUMBERS[label]} 3 4 5 6" for name, label in PLACES.items()]
    (root / "LOC_val_solution.csv").write_text("\n".join(["ImageId,PredictionString", *rows]) + "\n")
    return root


def rearranged(download: Path, root: Path) -> Path:
    """val in folders as everybody sorts it, without the lists."""
    images = download / "ILSVRC" / "Data" / "CLS-LOC"
    root.mkdir()
    (images / "train").rename(root / "train")
    for name, label in PLACES.items():
        folder = root / "val" / NUMBERS[label]
        folder.mkdir(parents=True, exist_ok=True)
        (images / "val" / f"{name}.JPEG").rename(folder / f"{name}.JPEG")
    return root


def test_the_download_is_read_as_it_is(download: Path, tmp_path: Path) -> None:
    data = load(download)
    inner = load(download / "ILSVRC" / "Data" / "CLS-LOC")
    assert data.classes == inner.classes == NAMED
    assert (len(data.train), len(data.test)) == (len(inner.train), len(inner.test)) == (12, 3)
    assert "names of classes: LOC_synset_mapping.txt" in data.note
    sorted_tree = load(rearranged(download, tmp_path / "sorted"))
    assert sorted_tree.classes == NUMBERS
    for part in ("train", "test"):
        one, other = getattr(data, part), getattr(sorted_tree, part)
        assert isinstance(one, MemorySplit)
        assert torch.equal(one.images, other.images)
        assert torch.equal(one.labels, other.labels)
    orders = canonical_order(data.train), canonical_order(sorted_tree.train)
    assert identity(data, orders[0]) == identity(sorted_tree, orders[1])  # a run goes on with either


def test_names_beside_the_images(download: Path, tmp_path: Path) -> None:
    root = rearranged(download, tmp_path / "sorted")
    (root / "synset_words.txt").write_text(LINES.replace("n03126707 crane\n", ""))
    assert load(root).classes == ("n01440764 tench", "n02012849 crane", "n03126707")


def test_a_network_is_judged_on_images_without_names(download: Path, tmp_path: Path) -> None:
    cell = (("skip_connect", 2, 0), ("max_pool_3x3", 2, 1))
    genotype = Genotype((cell,) * 2, concat=(2,))  # type: ignore[arg-type]
    settings = {"channels": 2, "epochs": 1, "batch": 4, "device": "cpu", "stem": "cifar"}
    Trainer(genotype, str(download), recipe="quick", out=tmp_path / "net", **settings).train()
    named = evaluate(load_network(tmp_path / "net"), str(download))
    plain = evaluate(load_network(tmp_path / "net"), str(rearranged(download, tmp_path / "sorted")))
    assert plain.classes == named.classes == NAMED
    assert torch.equal(plain.confusion, named.confusion)


def test_a_test_folder_without_classes_gives_way_to_val(tmp_path: Path) -> None:
    for name in "ab":
        for i in range(5):
            write(tmp_path / "train" / name, f"{i}.jpg", i)
        write(tmp_path / "val" / name, "0.jpg", 9)
    write(tmp_path / "test", "0.jpg", 0)
    assert len(load(tmp_path).test) == 2


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        (
            "LOC_synset_mapping.txt",
            "tench n01440764",
            r"mapping\.txt:1 must be a WordNet number and names, got 'tench",
        ),
        ("LOC_synset_mapping.txt", "\nn01440764", r"mapping\.txt:2 must be a WordNet number and names"),
        (
            "LOC_val_solution.csv",
            "a,n99999999 1",
            r"solution\.csv must be an image and a class .*, got 'a,n99999999",
        ),
        ("LOC_val_solution.csv", "a,b,c", r"solution\.csv must be an image and a class .*, got 'a,b,c'"),
        ("LOC_val_solution.csv", "a,n01440764 1", r"val/ILSVRC2012_val_0000000\d\.JPEG must have a class in LOC_val"),
    ],
)
def test_lists_that_are_none(download: Path, file: str, content: str, message: str) -> None:
    (download / file).write_text(content)
    with pytest.raises(ValueError, match=message) as raised:
        load(download)
    assert "\n" not in str(raised.value)


def test_a_flat_val_without_its_list_is_named(download: Path) -> None:
    (download / "LOC_val_solution.csv").unlink()
    with pytest.raises(ValueError, match=r"CLS-LOC/val must hold <class>/<images> .*or LOC_val_solution\.csv beside"):
        load(download)

"""A trained network is a thing: read from its folder alone, it sees images as its training did."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from training.small import GENOTYPE, SMALL, stripes

import ddarts_ext
from ddarts_ext.data import Dataset, MemorySplit, UnreadableImage, load
from ddarts_ext.genotype import Genotype
from ddarts_ext.runs.folder import RunFolder
from ddarts_ext.training import TrainedNetwork, Trainer, TrainResult, evaluate, load_network

CPU: dict[str, Any] = {**SMALL, "epochs": 3}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> TrainResult:
    """With the best weights beside the last ones."""
    run = tmp_path_factory.mktemp("runs") / "net"
    return Trainer(GENOTYPE, stripes(), out=run, keep="best", auxiliary_weight=0.4, **CPU).train()


def folder(trained: TrainResult) -> Path:
    assert trained.run is not None
    return trained.run


def test_the_folder_says_all_that_inference_needs(trained: TrainResult) -> None:
    said = json.loads((folder(trained) / "network.json").read_text())
    assert said["classes"] == ["h", "v"]
    assert (said["mean"], said["std"], said["size"], said["in_channels"]) == ([0.4], [0.2], [8, 8], 1)
    assert (said["channels"], said["stem"], said["auxiliary"]) == (4, "cifar", True)
    assert Genotype.from_json(said["genotype"]) == GENOTYPE
    assert said["versions"]["torch"] == torch.__version__
    assert said["versions"]["ddarts_ext"] == ddarts_ext.__version__
    assert said["date"].endswith("+00:00")
    assert said["seconds"] == pytest.approx(sum(record["seconds"] for record in trained.history), abs=1e-3)
    assert said["weights"]["last"] == {"epoch": 3, "accuracy": trained.accuracy}
    assert said["weights"]["best"]["accuracy"] == trained.best_accuracy


def test_the_network_is_read_back(trained: TrainResult) -> None:
    network = ddarts_ext.load_network(folder(trained))
    assert not network.training
    x = torch.randn(3, 1, 8, 8)
    trained.network.eval()
    assert torch.equal(network(x), trained.network(x))
    alone = load_network(folder(trained) / "weights.safetensors")
    assert torch.equal(alone(x), network(x))
    assert alone.description == network.description
    # An ordinary module: it trains on, and is moved.
    network.train()(x).sum().backward()
    assert all(p.grad is not None for name, p in network.named_parameters() if "auxiliary" not in name)


def test_labelled_images_are_judged_as_in_the_training(trained: TrainResult) -> None:
    network, data = load_network(folder(trained)), stripes()
    found = evaluate(network, data)
    assert found.accuracy == trained.accuracy
    assert found.loss == pytest.approx(trained.history[-1]["test"]["loss"], rel=1e-5)
    assert (found.images, found.k, found.top) == (32, 2, 1.0)
    assert int(found.confusion.sum()) == 32
    assert found.confusion.sum(1).tolist() == [16, 16]
    assert evaluate(network, data, "all").images == 96
    assert network.predict(data.test.images).labels == [  # type: ignore[attr-defined]
        "hv"[label]
        for label in network(data.normalise(data.test.images)).argmax(1)  # type: ignore[attr-defined]
    ]


def test_classes_are_matched_by_name(trained: TrainResult) -> None:
    network = load_network(folder(trained))
    swapped = evaluate(network, stripes(("v", "h")))
    assert swapped.confusion.tolist() == evaluate(network, stripes()).confusion.flip(0).tolist()
    with pytest.raises(ValueError, match="classes of stripes must be among those of the network, got 'diagonal'"):
        evaluate(network, stripes(("h", "diagonal")))
    small = MemorySplit(torch.zeros(2, 1, 4, 4, dtype=torch.uint8), torch.arange(2))
    with pytest.raises(ValueError, match=r"must be of 1 channels and 8x8 pixels as in the training, got 1 .* 4x4"):
        evaluate(network, Dataset("tiny", small, small, ("h", "v"), (4, 4), 1, (0.4,), (0.2,), stripes().augmentation))


def photographs(root: Path) -> Path:
    """Colour images of several sizes, of two classes."""
    from PIL import Image

    random = np.random.RandomState(0)
    for name, channel in (("red", 0), ("blue", 2)):
        (root / name).mkdir(parents=True)
        for i in range(10):
            pixels = random.randint(0, 100, (14 + i % 3, 12 + i % 4, 3), dtype=np.uint8)
            pixels[..., channel] += 120
            Image.fromarray(pixels).save(root / name / f"{i}.png")
    return root


def test_files_are_seen_as_the_reader_of_folders_sees_them(tmp_path: Path) -> None:
    pytest.importorskip("PIL")
    from PIL import Image

    root = photographs(tmp_path / "photos")
    Trainer(GENOTYPE, root, out=tmp_path / "net", **CPU).train()
    network, data = load_network(tmp_path / "net"), load(root)
    split = data.test
    assert isinstance(split, MemorySplit)
    paths = [root / name / f"{i}.png" for name in ("blue", "red") for i in (4, 9)]
    expected = network(data.normalise(split.images)).softmax(1)
    assert torch.allclose(network.predict(paths).probabilities, expected, atol=1e-6)
    # The same picture by whatever way it comes.
    picture = Image.open(paths[0])
    array = np.asarray(picture)
    ways: list[Any] = [paths[0], str(paths[0]), picture, array, torch.from_numpy(array.copy()).permute(2, 0, 1)]
    found = [network.predict(way).probabilities for way in [*ways, ways]]
    assert all(torch.equal(row, found[0][0]) for part in found for row in part)
    # Another folder with other median sizes, one class and other files: brought to the size of the network.
    (tmp_path / "others").mkdir()
    for name in ("red", "blue"):
        (tmp_path / "others" / name).mkdir()
        Image.open(paths[0]).resize((40, 30)).convert("L").save(tmp_path / "others" / name / "0.png")
        Image.open(paths[0]).resize((40, 30)).save(tmp_path / "others" / name / "1.png")
        for i in range(2, 6):
            shutil.copy(paths[0], tmp_path / "others" / name / f"{i}.png")
    assert evaluate(network, tmp_path / "others", "all").images == 12
    (tmp_path / "broken.png").write_bytes(b"no picture")
    with pytest.raises(UnreadableImage, match=r"broken\.png"):
        network.predict([paths[0], tmp_path / "broken.png"])
    with pytest.raises(TypeError, match="images must be uint8"):
        network.predict(torch.zeros(3, 8, 8))
    with pytest.raises(TypeError, match="images must be paths, pictures, arrays or tensors, got int"):
        network.predict(3)


def test_the_best_epoch_is_chosen_by_training_images_alone(trained: TrainResult) -> None:
    config = RunFolder(folder(trained), "train").config()
    assert (config["images"]["train"], config["images"]["test"]) == (57, 32)
    best = trained.best
    assert best is not None
    records = [record["held_back"] for record in trained.history]
    ranks = [(record["accuracy"], -record["loss"]) for record in records]
    assert best.epoch == 1 + ranks.index(max(ranks))
    kept = load_network(folder(trained), weights="best")
    assert evaluate(kept, stripes()).accuracy == trained.best_accuracy
    assert trained.best_accuracy == trained.history[best.epoch - 1]["test"]["accuracy"]


def test_the_best_weights_survive_an_interrupt(tmp_path: Path) -> None:
    from ddarts_ext.runs.progress import Progress

    class Stop(Progress):
        lines = 0

        def epoch(self, line: str) -> None:
            self.lines += 1
            if self.lines == 2:
                raise KeyboardInterrupt

    # A rate that falls to nothing and rises again: the first epochs are the best ones.
    settings = {**CPU, "keep": "best", "held_back": 0.3}
    whole = Trainer(GENOTYPE, stripes(), out=tmp_path / "whole", **settings).train()
    with pytest.raises(KeyboardInterrupt):
        Trainer(GENOTYPE, stripes(), out=tmp_path / "cut", progress=Stop(), **settings).train()
    with pytest.raises(FileNotFoundError, match=r"no weights\.safetensors yet; ddarts train --resume"):
        load_network(tmp_path / "cut")
    again = Trainer(GENOTYPE, stripes(), out=tmp_path / "cut", resume=True, **settings).train()
    assert again.best is not None
    assert whole.best is not None
    assert (again.best.epoch, again.best.accuracy) == (whole.best.epoch, whole.best.accuracy)
    kept = [load_file(tmp_path / name / "best.safetensors") for name in ("whole", "cut")]
    assert all(torch.equal(tensor, kept[1][name]) for name, tensor in kept[0].items())


def test_what_is_no_trained_network_is_one_line(trained: TrainResult, tmp_path: Path) -> None:
    copy = tmp_path / "net"
    shutil.copytree(folder(trained), copy)

    def refused(message: str, run: Path = copy, **said: Any) -> None:
        with pytest.raises((ValueError, OSError), match=message) as caught:
            load_network(run, **said)
        assert "\n" not in str(caught.value)

    refused("weights must be one of last, best, got 'first'", weights="first")
    refused("must be the folder of a run", tmp_path)
    text = (copy / "network.json").read_text()
    for name, value, message in (
        ("channels", 8, "must have .* of shape"),
        ("channels", 10**6, "must have .* of shape"),
        ("channels", 10**12, "does not describe a network that can be built"),
        ("channels", "8", "channels must be a whole number"),
        ("std", [0.0], "std of the network must be above 0"),
        ("classes", "hv", "classes must be a list"),
        ("genotype", {}, "genes must be a list"),
        ("version", 9, "version must be 1, got 9"),
    ):
        (copy / "network.json").write_text(json.dumps({**json.loads(text), name: value}))
        refused(message)
    (copy / "network.json").write_text("{")
    refused("not valid JSON")
    (copy / "network.json").write_text(text)
    (copy / "weights.safetensors").write_bytes(b"\0" * 100)
    refused("must be a file of safetensors")
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps({**config, "command": "search"}))
    refused("must be the folder of a training, got that of a search in .*: ddarts train")
    plain = Trainer(GENOTYPE, stripes(), out=tmp_path / "plain", **{**CPU, "epochs": 1}).train()
    refused("trained without --keep best", folder(plain), weights="best")


def test_networks_of_one_input_are_read_back(tmp_path: Path) -> None:
    cell = Genotype.from_nb201("|nor_conv_3x3~0|+|nor_conv_1x1~0|none~1|+|skip_connect~0|avg_pool_3x3~1|none~2|")
    result = Trainer(cell, stripes(), out=tmp_path / "net", **{**CPU, "epochs": 1}).train()
    network = load_network(tmp_path / "net")
    assert isinstance(network, TrainedNetwork)
    x = torch.randn(2, 1, 8, 8)
    assert torch.equal(network(x), result.network.eval()(x))

"""A network and what a search makes of it, trained and judged alike."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from ddarts_ext.cli import app
from ddarts_ext.comparison import optimise
from ddarts_ext.comparison.work import once
from ddarts_ext.distance import architecture_distance
from ddarts_ext.genotype import Genotype
from ddarts_ext.nn.network import build_network
from ddarts_ext.training import load_network
from ddarts_ext.training.config import TrainConfig
from ddarts_ext.training.trainer import Trainer

SEARCH: dict[str, Any] = {"channels": 2, "batch": 16, "epochs": 2, "alpha_start": 1}
TRAIN: dict[str, Any] = {"channels": 2, "epochs": 1, "batch": 16, "recipe": "quick"}


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder, random = tmp_path_factory.mktemp("images"), np.random.RandomState(0)
    arrays = {f"x_{part}": random.randint(0, 256, (40, 8, 8), dtype=np.uint8) for part in ("train", "test")}
    np.savez(folder / "images.npz", **arrays, y_train=np.arange(40) % 2, y_test=np.arange(40) % 2)
    return folder / "images.npz"


def run(images: Path, out: Path, **how: Any) -> Any:
    return optimise("ResNet18", images, out=out, device="cpu", **{"search": SEARCH, "train": TRAIN, **how})


def test_start_and_result_are_trained_alike(images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "optimised"
    found = run(images, out, train_seeds=2)
    start = Genotype.load("ResNet18")
    assert found.distance == architecture_distance(start, found.genotype)
    assert found.gain == found.result.mean - found.start.mean
    assert found.error is not None
    assert found.start.trainings == found.result.trainings == 2
    assert 1 <= found.epochs <= SEARCH["epochs"]
    assert json.loads((out / "optimised.json").read_text()) == found.to_json()
    # Both by one configuration but for the genotype, on images that hold none of those held out.
    configs = [json.loads((out / "networks" / f"{name}-0" / "config.json").read_text()) for name in ("start", "result")]
    assert Genotype.from_json(configs[0].pop("genotype")) == start
    assert Genotype.from_json(configs[1].pop("genotype")) == found.genotype
    assert configs[0] == configs[1]
    assert configs[0]["recipe"] == "quick"
    assert configs[0]["images"]["train"] == 32
    network = build_network(start, channels=TRAIN["channels"], classes=2, in_channels=1)
    assert found.start.parameters == sum(each.numel() for each in network.parameters())
    assert load_network(out / "networks" / "result-1") is not None
    # What is done is not done again.
    monkeypatch.setattr(Trainer, "train", None)
    assert run(images, out, train_seeds=2, resume=True) == found
    with pytest.raises(ValueError, match="train_seeds"):
        run(images, out, train_seeds=1, resume=True)


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"train_seeds": 0}, "optimise: train_seeds must be >= 1, got 0"),
        ({"holdout": 1}, "optimise: holdout must be between 0 and 1, got 1"),
        ({"search": {"chanels": 2}}, "chanels"),
        ({"search": {"method": "darts"}}, "method"),
    ],
)
def test_wrong_arguments_leave_nothing(images: Path, tmp_path: Path, how: dict[str, Any], message: str) -> None:
    with pytest.raises((ValueError, TypeError), match=message):
        run(images, tmp_path / "out", **how)
    assert not (tmp_path / "out").exists()


def test_the_command(images: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    given = ["--set", "channels=2", "--set", "batch=16", "--set", "alpha_start=1", "--epochs", "2", "--input-node", "1"]
    given += ["--train", "channels=2", "--train", "recipe=quick", "--train-epochs", "1", "--device", "cpu"]
    done = CliRunner().invoke(app, ["optimise", "ResNet18", "--data", str(images), "--out", str(out), *given])
    assert done.exit_code == 0, done.output
    assert "points at distance" in done.output
    assert "the search ran to its end: 2 epochs" in done.output
    said = json.loads((out / "config.json").read_text())
    assert said["start"]["input_node"] == 1
    assert said["search"] == {
        "channels": 2,
        "batch": 16,
        "alpha_start": 1,
        "epochs": 2,
    }


def test_a_damaged_result_is_named(tmp_path: Path) -> None:
    (tmp_path / "judged.json").write_text("{")
    with pytest.raises(ValueError, match=r"optimise: .*judged\.json is not a result of this version"):
        once(tmp_path / "judged.json", TrainConfig, lambda: TrainConfig(), "optimise")

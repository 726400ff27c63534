"""Several labels at once and numbers, from a search to the command line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score, precision_score, r2_score, recall_score
from torch.nn import functional as F
from training.small import GENOTYPE, SMALL
from typer.testing import CliRunner

from ddarts_ext import Searcher, Trainer, load_network
from ddarts_ext.cli import app
from ddarts_ext.data import load
from ddarts_ext.export import export
from ddarts_ext.runs.progress import Progress
from ddarts_ext.training import LabelsEvaluation, NumbersEvaluation, TrainedNetwork, evaluate

SEARCH: dict[str, Any] = {"cells": 3, "channels": 2, "batch": 8, "steps": 2, "epochs": 2, "device": "cpu"}
KINDS = ("labels", "numbers")


class Remembers(Progress):
    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, line: str) -> None:
        self.lines.append(line)

    epoch = say


def arrays(count: int = 48) -> dict[str, np.ndarray[Any, Any]]:
    """Squares in up to three of four corners, uint8 [N, 8, 8, 1], and which: [N, 4] of 0 and 1."""
    random = np.random.default_rng(0)
    corners = random.integers(0, 2, (count, 4))
    images = random.integers(0, 60, (count, 8, 8, 1))
    for corner in range(4):
        y, x = 4 * (corner // 2), 4 * (corner % 2)
        images[:, y : y + 4, x : x + 4] += 180 * corners[:, corner, None, None, None]
    return {"images": images.astype(np.uint8), "labels": corners, "numbers": corners.sum(1) / 2 - 1}


def write(folder: Path, kind: str) -> Path:
    made, path = arrays(), folder / f"{kind}.npz"
    x, y = made["images"], made[kind]
    np.savez(path, x_train=x[:36], y_train=y[:36], x_test=x[36:], y_test=y[36:])
    return path


def ran(*arguments: Any) -> str:
    done = CliRunner().invoke(app, [str(argument) for argument in arguments], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


@pytest.fixture(scope="module", params=KINDS)
def trained(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path, Any]:
    """The kind, the data, and a training that has its best weights."""
    folder = tmp_path_factory.mktemp("numbers")
    data = write(folder, request.param)
    rate = {"labels": 0.2, "numbers": 0.02}[request.param]  # at 0.2 squared errors grow, and it is luck where they end
    settings = {**SMALL, "epochs": 8, "lr": rate, "drop_path": 0.0, "weight_decay": 0.0}
    result = Trainer(GENOTYPE, data, out=folder / "net", keep="best", held_back=0.2, auxiliary_weight=0.4, **settings)
    return request.param, data, result.train()


def test_it_is_learned_and_judged(trained: tuple[str, Path, Any]) -> None:
    kind, _, result = trained
    name = {"labels": "f1", "numbers": "mae"}[kind]
    assert result.metric == name
    for part in ("train", "test", "held_back"):
        assert set(result.history[0][part]) == {"loss", name}
    assert result.history[-1]["train"]["loss"] < result.history[0]["train"]["loss"]
    held = [record["held_back"] for record in result.history]
    best = max(held, key=lambda part: (part[name] if kind == "labels" else -part[name], -part["loss"]))
    assert held.index(best) + 1 == result.best.epoch
    assert result.best_accuracy == result.history[result.best.epoch - 1]["test"][name]
    said = json.loads((result.run / "network.json").read_text())
    assert said["task"] == {"labels": "multi-label", "numbers": "values"}[kind]
    assert said["weights"]["last"] == {"epoch": 8, name: result.accuracy}
    config = json.loads((result.run / "config.json").read_text())
    assert (config["loss"], config["metric"]) == ({"labels": "multi-label", "numbers": "mse"}[kind], name)


def outputs(network: TrainedNetwork, data: Path) -> tuple[torch.Tensor, torch.Tensor]:
    split: Any = load(data).test
    with torch.no_grad():
        return network(network.normalise(split.images)), split.labels


def test_it_is_evaluated(trained: tuple[str, Path, Any]) -> None:
    kind, data, result = trained
    network = load_network(result.run)
    found = evaluate(network, data)
    made, right = outputs(network, data)
    assert found.images == 12
    assert found.loss == pytest.approx(result.history[-1]["test"]["loss"], rel=1e-5)
    if kind == "numbers":
        assert isinstance(found, NumbersEvaluation)
        assert found.mae == (pytest.approx(result.accuracy, rel=1e-5),)
        assert found.r2 == (pytest.approx(r2_score(right, made), rel=1e-5),)
        assert found.rmse[0] ** 2 == pytest.approx(found.loss)
    else:
        assert isinstance(found, LabelsEvaluation)
        assert found.f1 == pytest.approx(result.accuracy)
        told = made > 0
        options: dict[str, Any] = {"average": None, "zero_division": 0}
        assert [p or 0 for p in found.precision] == pytest.approx(precision_score(right, told, **options))
        assert [r or 0 for r in found.recall] == pytest.approx(recall_score(right, told, **options))
        assert found.mean_average_precision == pytest.approx(average_precision_score(right, made))
    assert json.loads(json.dumps(found.to_json()))["images"] == 12
    with pytest.raises(ValueError, match=r"labels must be .* as in the training, got classes in digits"):
        evaluate(network, load("digits"))


def test_it_predicts(trained: tuple[str, Path, Any], tmp_path: Path) -> None:
    from PIL import Image

    kind, data, result = trained
    network = load_network(result.run)
    images = load(data).test.images  # type: ignore[attr-defined]
    made, _ = outputs(network, data)
    found = network.predict(images)
    torch.testing.assert_close(found.probabilities, made.sigmoid() if kind == "labels" else made)
    picture = tmp_path / "one.png"
    Image.fromarray(images[0, 0].numpy()).save(picture)
    text, rows = ran("predict", result.run, picture), json.loads(ran("predict", result.run, picture, "--json"))
    if kind == "numbers":
        assert rows[0]["values"] == {"0": pytest.approx(float(made[0, 0]), rel=1e-4)}
        assert f"0 {float(made[0, 0]):.3g}"[:5] in text
        with pytest.raises(ValueError, match="labels must be asked of a network for classes"):
            _ = found.labels
    else:
        expected = [str(i) for i in range(4) if made[0, i] > 0]
        assert rows[0]["labels"] == expected
        assert found.labels[0] == ", ".join(expected)
        assert "%" in text
    said = ran("evaluate", result.run, "--data", data)
    assert {"labels": "mean average precision", "numbers": "mean squared error"}[kind] in said
    assert "12 images" in said


def test_it_is_exported_with_what_its_outputs_mean(trained: tuple[str, Path, Any], tmp_path: Path) -> None:
    kind, data, result = trained
    network = load_network(result.run)
    made, _ = outputs(network, data)
    (path,) = export(network, "torch", tmp_path / "net.pt2", pixels=True)
    pixels = load(data).test.images / 255  # type: ignore[attr-defined]
    found = torch.export.load(path).module()(pixels)
    torch.testing.assert_close(found, made.sigmoid() if kind == "labels" else made, rtol=1e-4, atol=1e-5)
    export(network, "python", tmp_path / "net.py")
    text = (tmp_path / "net.py").read_text()
    assert {"labels": "for 4 labels, several at once", "numbers": "for 1 numbers"}[kind] in text


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("method", ["ddarts", "darts"])
def test_a_search_by_it(kind: str, method: str, tmp_path: Path) -> None:
    """On the command line, interrupted by its number of epochs, and resumed: loss and metric stand in config.json."""
    data, out = write(tmp_path, kind), tmp_path / "run"
    sizes = ["--cells", 3, "--channels", 2, "--batch", 8, "--set", "steps=2"]
    ran("search", "--data", data, "--method", method, "--epochs", 1, *sizes, "--out", out)
    said = ran("search", "--resume", "--out", out, "--epochs", 2)
    name = {"labels": "f1", "numbers": "mae"}[kind]
    assert f"validation {name} of the supernet" in said
    records = [json.loads(line) for line in (out / "history.jsonl").read_text().splitlines()]
    assert len(records) == 2
    assert all(set(record["valid"]) == {"loss", name} for record in records)
    assert set(records[-1]["discretisation"]) == {"rule", "before", "after", "loss_after"}
    whole = Searcher(data, method, **{**SEARCH, "epochs": 2}).search()
    assert whole.metric == name
    other = {"f1": "exact-match", "mae": "mse"}[name]
    with pytest.raises(ValueError, match=rf"search: metric must be '{name}' to resume the run in .*, got '{other}'"):
        Searcher(data, method, out=out, resume=True, metric=other, **SEARCH).search()


@pytest.mark.parametrize("method", ["darts", "ddarts", "sdarts-adv"])
def test_every_loss_of_a_search_is_the_one_that_was_asked_for(method: str) -> None:
    made = arrays()
    result = Searcher(
        (made["images"], made["numbers"]), method, loss=lambda x, y: F.mse_loss(x, y) + 1000, **{**SEARCH, "epochs": 1}
    ).search()
    record = result.history[0]
    assert all(1000 <= record[part]["loss"] < 1100 for part in ("train", "architecture", "valid"))
    assert record["discretisation"]["loss_after"] >= 1000
    second = Searcher(
        (made["images"], made["numbers"]), "darts", order=2, loss=lambda x, y: F.mse_loss(x, y) + 1000,
        **{**SEARCH, "epochs": 1},
    ).search()  # fmt: skip
    assert 1000 <= second.history[0]["architecture"]["loss"] < 1100


def test_mixing_and_smoothing() -> None:
    made = arrays()
    data = (made["images"], made["labels"])
    how: dict[str, Any] = {**SMALL, "epochs": 1, "mixup": 0.2, "cutmix": 1.0, "accumulate": 2, "ema": 0.9}
    progress = Remembers()
    result = Trainer(GENOTYPE, data, class_weights="balanced", progress=progress, **how).train()
    assert 0 <= result.accuracy <= 1
    assert "train: loss multi-label, classes weighted, judged by f1" in progress.lines
    assert any("with 4 numbers each" in line for line in progress.lines)
    assert "held-out f1 " in progress.lines[-1]
    with pytest.raises(ValueError, match=r"label_smoothing must be 0 with loss multi-label, got 0\.1"):
        Trainer(GENOTYPE, data, label_smoothing=0.1, **how)


class Stops(Progress):
    """Ends the run after so many steps."""

    def __init__(self, after: int) -> None:
        self.left = after

    def step(self) -> None:
        self.left -= 1
        if not self.left:
            raise KeyboardInterrupt


@pytest.mark.parametrize("kind", KINDS)
def test_resumed_is_the_same(kind: str, tmp_path: Path) -> None:
    made = arrays()
    data, how = (made["images"], made[kind]), {**SMALL, "epochs": 3, "keep": "best"}
    whole = Trainer(GENOTYPE, data, **how).train()
    with pytest.raises(KeyboardInterrupt):
        Trainer(GENOTYPE, data, out=tmp_path / "run", progress=Stops(4), **how).train()
    again = Trainer(GENOTYPE, data, out=tmp_path / "run", resume=True, **how).train()
    for ours, theirs in zip(again.history, whole.history, strict=True):
        assert all(ours[part] == theirs[part] for part in ("train", "test", "held_back"))
    assert again.best is not None
    assert whole.best is not None
    assert again.best.epoch == whole.best.epoch


def test_compare_and_score_ops_say_what_they_need(tmp_path: Path) -> None:
    from ddarts_ext.comparison import compare

    data = write(tmp_path, "numbers")
    with pytest.raises(ValueError, match="compare: metric must be one of which more is better, got 'mae'"):
        compare(str(data), ["darts"], out=tmp_path / "compare", device="cpu")
    done = CliRunner().invoke(app, ["score-ops", "--data", str(data), "--out", str(tmp_path / "scores.json")])
    assert "data must be images in classes" in str(done.exception)

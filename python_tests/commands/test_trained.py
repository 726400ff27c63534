"""What the command says of a trained network."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch
from training.small import GENOTYPE, SMALL, stripes
from typer.testing import CliRunner

import ddarts_ext
from ddarts_ext import cli
from ddarts_ext.data import MemorySplit
from ddarts_ext.training import Trainer, evaluate, load_network


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A training on stripes, and its images as files and as an archive beside it."""
    import numpy as np
    from PIL import Image

    folder, data = tmp_path_factory.mktemp("trained"), stripes()
    Trainer(GENOTYPE, data, out=folder / "net", keep="best", **{**SMALL, "epochs": 2}).train()
    train, test = data.train, data.test
    assert isinstance(train, MemorySplit)
    assert isinstance(test, MemorySplit)
    for i in range(4):
        Image.fromarray(test.images[i, 0].numpy()).save(folder / f"{i}.png")
    for part, split in (("train", train), ("test", test)):
        for i, (image, label) in enumerate(zip(split.images, split.labels.tolist(), strict=True)):
            where = folder / "photos" / part / "hv"[label]
            where.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image[0].numpy()).save(where / f"{i}.png")
    np.savez(folder / "labels.npz", x_train=train.images, y_train=train.labels, x_test=test.images, y_test=test.labels)
    return folder


def said(*arguments: object) -> str:
    result = CliRunner().invoke(cli.app, [str(part) for part in arguments])
    assert result.exit_code == 0, result.output
    return result.output


def refused(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """The one line of an error."""
    monkeypatch.setattr(sys, "argv", ["ddarts", *map(str, arguments)])
    with pytest.raises(SystemExit) as exit_info:
        cli.main()
    assert exit_info.value.code == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    return error


def test_predict(run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    paths = [run / f"{i}.png" for i in range(4)]
    found = json.loads(said("predict", run / "net", *paths, "--json", "--device", "cpu"))
    data, network = stripes(), load_network(run / "net")
    assert isinstance(data.test, MemorySplit)
    expected = network(data.normalise(data.test.images[:4])).softmax(1)
    assert [row["image"] for row in found] == [str(path) for path in paths]
    values = torch.tensor([[row["probabilities"][name] for name in "hv"] for row in found])
    assert torch.allclose(values, expected, atol=1e-5)
    assert [row["class"] for row in found] == ["hv"[i] for i in expected.argmax(1).tolist()]
    lines = said("predict", run / "net", *paths, "--top", "1", "--weights", "best").splitlines()
    assert [line.partition(": ")[0] for line in lines] == [str(path) for path in paths]
    assert "no-image.png is not an image" in refused(monkeypatch, capsys, "predict", run / "net", "no-image.png")
    assert "weights must be one of last, best" in refused(
        monkeypatch, capsys, "predict", run / "net", paths[0], "--weights", "worst"
    )


def test_evaluate(run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    found = json.loads(said("evaluate", run / "net", "--data", run / "photos", "--json"))
    expected = evaluate(load_network(run / "net"), stripes())
    assert found["accuracy"] == expected.accuracy
    assert found["confusion"] == expected.confusion.tolist()
    assert found["top_2"] == 1.0
    assert f"32 images: accuracy {expected.accuracy:.2%}" in said("evaluate", run / "net", "--data", run / "photos")
    # An archive names its classes by numbers, which are not those of the network.
    assert "classes of labels must be among those of the network, got '0'" in refused(
        monkeypatch, capsys, "evaluate", run / "net", "--data", run / "labels.npz"
    )
    assert "--data must be given" in refused(monkeypatch, capsys, "evaluate", run / "net")


@pytest.mark.parametrize("to", ["torch", "python", "safetensors"])
def test_export(run: Path, to: str, tmp_path: Path) -> None:
    suffix = {"torch": ".pt2", "python": ".py", "safetensors": ".safetensors"}[to]
    out = tmp_path / f"model{suffix}"
    assert str(out) in said("export", run / "net", "--to", to, "--fold", "--out", out)
    assert out.is_file()


def test_version_and_names(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert said("--version").split() == ["ddarts_ext", ddarts_ext.__version__]
    assert {"Trainer", "load_network", "compare", "__version__"} <= set(dir(ddarts_ext))
    assert all(hasattr(ddarts_ext, name) for name in ddarts_ext.__all__)
    from ddarts_ext import __main__

    assert __main__.main is cli.main


@pytest.mark.parametrize(
    ("arguments", "suggestion"),
    [
        (("search", "--data", "digits", "--method", "ddart"), "'ddarts'"),
        (("search", "--data", "digits", "--space", "dart"), "'darts'"),
        (("search", "--data", "digits", "--set", "weigth_lr=1"), "'weight_lr' or 'weight_lr_min'"),
        (("search", "--data", "digits", "--precision", "float23"), "'float32'"),
        (("train", "DARTSV2", "--data", "digits"), "'DARTS_V2'"),
        (("train", "DARTS_V2", "--data", "digits", "--set", "momentun=1"), "'momentum'"),
        (("describe", '{"genes": [["sep_conv3x3:2<-0"]], "concat": [2]}'), "'sep_conv_3x3'"),
    ],
)
def test_did_you_mean(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], suggestion: str
) -> None:
    error = refused(monkeypatch, capsys, *arguments)
    assert error.rstrip().endswith(f"; did you mean {suggestion}?")


def test_an_option_that_is_nearly_one(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert "--epochs" in refused(monkeypatch, capsys, "search", "--data", "digits", "--epcohs", "3")


def test_nothing_is_meant_where_nothing_is_near(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "did you mean" not in refused(monkeypatch, capsys, "search", "--data", "digits", "--method", "annealing")


def test_describe_of_a_run_without_a_genotype_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "config.json").write_text('{"command": "search"}')
    error = refused(monkeypatch, capsys, "describe", tmp_path)
    assert "has no genotype yet" in error
    assert f"ddarts search --resume --out {tmp_path}" in error

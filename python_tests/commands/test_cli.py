"""The commands: what they print, and that wrong input is one line and exit code 2."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from ddarts_ext import cli
from ddarts_ext.search import methods
from ddarts_ext.search.perturbation import PERTURBATIONS
from ddarts_ext.search.samplers import SAMPLERS

CYCLE = '{"genes": [["skip_connect:2<-3", "skip_connect:3<-2"]], "seq": [0], "concat": [2, 3], "reductions": []}'
UNKNOWN_OP = '{"genes": [["conv_9x9:2<-0"]], "seq": [0], "concat": [2], "reductions": []}'
UNKNOWN_NODE = '{"genes": [["skip_connect:9<-0"]], "seq": [0], "concat": [2], "reductions": []}'


def fails(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The one line of an error with exit code 2."""
    monkeypatch.setattr(sys, "argv", ["ddarts", *arguments])
    with pytest.raises(SystemExit) as exit_info:
        cli.main()
    assert exit_info.value.code == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert error.startswith("ddarts: ")
    return error


@pytest.mark.parametrize("command", ["search", "train", "derive", "describe", "distance", "plot", "info", "bench"])
def test_every_command_helps(command: str) -> None:
    result = CliRunner().invoke(cli.app, [command, "--help"])
    assert result.exit_code == 0
    assert "Usage" in result.output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("search",), "--data must be given"),
        (("search", "--data", "/no/such/folder"), "does not exist"),
        (("search", "--data", "digits", "--method", "annealing"), "method must be one of darts, fairdarts, ddarts"),
        (("search", "--data", "digits", "--space", "moon"), "name must be one of"),
        (("search", "--data", "digits", "--channels", "7"), "channels must be even"),
        (("search", "--data", "digits", "--epochs", "0"), "epochs must be >= 1"),
        (("search", "--data", "digits", "--set", "speed=3"), "setting must be one of"),
        (("search", "--data", "digits", "--set", "ablation_sign=up"), "ablation_sign must be one of"),
        (("search", "--data", "digits", "--set", "weight_lr=fast"), "weight_lr must be a number"),
        (("search", "--data", "digits", "--set", "weight_lr"), "--set must be NAME=VALUE"),
        (("search", "--data", "digits", "--device", "abacus"), "device must be auto, cpu, cuda"),
        (("search", "--data", "digits", "--precision", "int4"), "precision must be one of"),
        (("search", "--data", "digits", "--resume"), "out must be the folder of the run to resume"),
        (("train", "no-such-genotype", "--data", "digits"), "genotype"),
        (("train", "DARTS_V2"), "data must be given"),
        (("train", "DARTS_V2", "--data", "digits", "--channels", "9"), "channels must be even"),
        (("train", "DARTS_V2", "--data", "digits", "--set", "luck=1"), "setting must be one of"),
        (("describe", "no-such-genotype"), "genotype"),
        (
            ("search", "--data", "digits", "--set", "alpha_betas=[2, 3]"),
            "alpha_betas must be two numbers from 0 to below 1",
        ),
        (("train", "DARTS_V2", "--data", "digits", "--held-back", "0.3"), "--keep best must be given with --held-back"),
        (("search", "--resume", "--out", "/no/such/run"), "out must be the folder of a run to resume"),
        (("search", "--data", "digits", "--epochs", "1", "--set", "epochs=3"), "--set epochs must be that of --epochs"),
        (("describe", "DARTS_V2", "--index", "odd"), "index must be one of reference, cycle, got 'odd'"),
        (("describe", "DARTS_V2", "--reductions", "odd"), "reductions must be one of auto, from_file, got 'odd'"),
        (("derive", "ResNet18", "--cells", "14"), "derive: genotype must have 2 reduction cells"),
        (("plot", "/no/such/run"), "must be the folder of a run"),
    ],
)
def test_wrong_input_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], message: str
) -> None:
    assert message in fails(monkeypatch, capsys, *arguments)


@pytest.mark.parametrize(
    ("text", "message"), [(UNKNOWN_OP, "conv_9x9"), (UNKNOWN_NODE, "9"), (CYCLE, "source"), ("{", "JSON")]
)
def test_wrong_genotypes_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], text: str, message: str
) -> None:
    path = tmp_path / "genotype.json"
    path.write_text(text)
    assert message in fails(monkeypatch, capsys, "describe", str(path))


def test_folder_with_one_class(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("PIL")
    (tmp_path / "train" / "only").mkdir(parents=True)
    assert "2 or more classes, got 1" in fails(monkeypatch, capsys, "search", "--data", str(tmp_path))


def test_describe_counts_the_published_network() -> None:
    """DARTS_V2 with 20 cells and 36 channels: 3,349,342 parameters and 528,359,040 multiply-adds."""
    result = CliRunner().invoke(cli.app, ["describe", "DARTS_V2", "--layers", "20", "--json"])
    figures = json.loads(result.output)
    assert figures["parameters"] == 3_349_342
    assert figures["multiply_adds"]["convolutions"] == 528_359_040
    assert figures["reductions"] == [6, 13]


def test_derive_writes_a_larger_network(tmp_path: Path) -> None:
    out = tmp_path / "large.json"
    result = CliRunner().invoke(cli.app, ["derive", "D-DARTS_sparse_cifar10", "--cells", "14", "--out", str(out)])
    if result.exit_code:
        pytest.skip("no genotype of individual cells ships with the package")
    assert len(json.loads(out.read_text())["seq"]) == 14


def test_distance_of_an_architecture_to_itself() -> None:
    result = CliRunner().invoke(cli.app, ["distance", "ResNet18", "ResNet18", "--json"])
    assert json.loads(result.output)["distance"] == 0


def test_list_of_methods() -> None:
    output = CliRunner().invoke(cli.app, ["search", "--list"]).output
    assert all(f"  {name}: " in output for name in methods.METHODS)
    assert all(f"  sampler={name}: " in output for name in SAMPLERS)
    assert all(f"  perturbation={name}: " in output for name in PERTURBATIONS)
    assert "zero_one_weight=7.0" in output


def test_search_then_resume_then_train(tmp_path: Path) -> None:
    """The whole path on a tiny archive; --resume takes what is not said from the run, and refuses another setting."""
    random = np.random.RandomState(0)
    arrays = {f"x_{part}": random.randint(0, 256, (12, 4, 4), dtype=np.uint8) for part in ("train", "test")}
    np.savez(tmp_path / "tiny.npz", **arrays, y_train=np.arange(12) % 2, y_test=np.arange(12) % 2)
    run, net = str(tmp_path / "run"), str(tmp_path / "net")
    sizes = ["--cells", "3", "--channels", "2", "--batch", "3", "--epochs", "2", "--set", "steps=1", "--device", "cpu"]
    runner = CliRunner()
    result = runner.invoke(cli.app, ["search", "--data", str(tmp_path / "tiny.npz"), *sizes, "--out", run])
    assert result.exit_code == 0, result.output
    genotype = (tmp_path / "run" / "genotype.json").read_bytes()
    again = runner.invoke(cli.app, ["search", "--resume", "--out", run, "--device", "cpu"])
    assert again.exit_code == 0, again.output
    assert (tmp_path / "run" / "genotype.json").read_bytes() == genotype
    other = runner.invoke(cli.app, ["search", "--resume", "--out", run, "--device", "cpu", "--seed", "5"])
    assert "seed must be 0 to resume" in str(other.exception)
    trained = runner.invoke(
        cli.app,
        [
            "train",
            run,
            "--data",
            str(tmp_path / "tiny.npz"),
            "--channels",
            "2",
            "--epochs",
            "1",
            "--out",
            net,
            "--device",
            "cpu",
        ],
    )
    assert trained.exit_code == 0, trained.output
    assert "held-out accuracy" in trained.output
    assert (tmp_path / "net" / "weights.safetensors").is_file()


def test_settings_are_listed_as_set_takes_them() -> None:
    output = CliRunner().invoke(cli.app, ["search", "--list"]).output
    for line in ("alpha_betas=[0.9, 0.999]", 'rules=["sparse", "edge"]', "temperature_end=null", "early_stop=false"):
        assert f"\n  {line}\n" in output


def test_describe_says_which_network_it_counts() -> None:
    output = CliRunner().invoke(cli.app, ["describe", "DARTS_V2", "--channels", "8"]).output
    assert "with 8 channels, 10 classes, images 3x32x32, stem cifar:\n" in output

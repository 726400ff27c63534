"""``ddarts distance`` in all its forms, its pictures, and the published sizes that ``ddarts describe`` prints."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from ddarts_ext import cli
from ddarts_ext.distance import distance_matrix
from ddarts_ext.genotype import Genotype
from ddarts_ext.genotype.start import Start
from ddarts_ext.plot import plot_run
from ddarts_ext.runs.folder import RunFolder

BASELINES = ("ResNet18", "ResNet50", "Xception", "InceptionV4")


def run(*arguments: str) -> Any:
    result = CliRunner().invoke(cli.app, list(arguments), catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout) if "--json" in arguments else result.stdout


def search_run(folder: Path, result: str, accuracies: tuple[float, ...], alpha_start: int = 2) -> str:
    """The folder of a finished search from ResNet18."""
    files = RunFolder(folder)
    method = {"space": "dartopti", "architect": {"alpha_start": alpha_start}}
    folder.mkdir()
    files.begin({"method": method, "start": Start.load("ResNet18").to_json()})
    files.write_history(
        [
            {"epoch": i, "valid": {"accuracy": a, "loss": 1.0}, "train": {"accuracy": a, "loss": 1.0},
             "distance": {"start": 0.01 * i, "previous": 0.01, "settled": i == 3}}
            for i, a in enumerate(accuracies)
        ]
    )  # fmt: skip
    Genotype.load(result).save(files.genotype_file)
    files.write_json("genotypes.json", {"edge": Genotype.load("ResNet50").to_json()})
    return str(folder)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ((), 0.08349321),
        (("--scores", "mean"), 0.08362997),
        (("--over", "genes"), 0.08349321),
        (("--positional",), None),
    ],
)
def test_two_architectures(options: tuple[str, ...], expected: float | None) -> None:
    found = run("distance", "ResNet18", "ResNet50", "--json", *options)["distance"]
    assert expected is None or found == pytest.approx(expected, abs=5e-9)
    assert f"{found:.6f}\n" == run("distance", "ResNet18", "ResNet50", *options)


def test_cells_that_one_lacks() -> None:
    short = run("distance", "ResNet18", "Xception", "--json")["distance"]
    padded = run("distance", "ResNet18", "Xception", "--pad-with", "1", "--json")["distance"]
    assert padded == pytest.approx((4 * short + 9) / 13)


def test_matrix_and_its_heat_map(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    picture = tmp_path / "pictures" / "heat.png"
    found = run("distance", "--matrix", *BASELINES, "--plot", str(picture), "--json")
    assert found["names"] == list(BASELINES)
    assert found["distances"] == distance_matrix([Genotype.load(name) for name in BASELINES]).tolist()
    assert picture.read_bytes().startswith(b"\x89PNG")
    text = run("distance", "--matrix", "ResNet18", "ResNet50")
    assert text.splitlines()[1].split() == ["ResNet18", "0.000000", "0.083493"]


def test_the_matrix_leaves_out_what_is_not_finished(tmp_path: Path) -> None:
    begun = tmp_path / "begun"
    begun.mkdir()
    (begun / "config.json").write_text("{}")
    result = CliRunner().invoke(cli.app, ["distance", "--matrix", "ResNet18", str(begun), "ResNet50", "--json"])
    assert result.exit_code == 0
    assert json.loads(result.stdout)["names"] == ["ResNet18", "ResNet50"]
    assert result.stderr == f"distance: {begun} is left out, as its search is not finished\n"
    with pytest.raises(ValueError, match="architectures must be finished, one or more, got 1 that are not"):
        run("distance", "--matrix", str(begun))


def test_several_runs(tmp_path: Path) -> None:
    """From start to result: mean, largest, correlation with the gain since the pre-training, or with given gains."""
    pytest.importorskip("matplotlib")
    names = ("ResNet18", "ResNet18_cifar10_sparse", "ResNet18_cifar10_edge")
    folders = [
        search_run(tmp_path / name, name, (0.1, 0.2, 0.2, 0.2 + 0.1 * i), alpha_start=2) for i, name in enumerate(names)
    ]
    picture = tmp_path / "gain.png"
    found = run("distance", "--runs", *folders, "--json", "--plot", str(picture))
    start = Genotype.load("ResNet18")
    expected = distance_matrix([start, *(Genotype.load(name) for name in names)])[0, 1:]
    assert [each["distance"] for each in found["runs"]] == pytest.approx(expected.tolist())
    assert [each["gain"] for each in found["runs"]] == pytest.approx([0.0, 0.1, 0.2])
    assert found["mean"] == pytest.approx(expected.mean())
    assert found["largest"] == pytest.approx(expected.max())
    assert found["correlation"] == pytest.approx(1.0, abs=1e-3)
    assert picture.read_bytes().startswith(b"\x89PNG")
    given = run("distance", "--runs", *folders, "--gains", "2,1,0", "--json")
    assert given["correlation"] == pytest.approx(-found["correlation"])
    by_edge = run("distance", "--runs", folders[0], "--rule", "edge", "--json")
    assert by_edge["largest"] == pytest.approx(0.08349321, abs=5e-9)
    assert "correlation of distance and gain: none" in run("distance", "--runs", folders[0])
    # As `runs/*` of a shell has them: trainings, and searches without a start or a result, are left out.
    for name, config in (("net", {"command": "train"}), ("plain", {"command": "search", "method": {}})):
        (tmp_path / name).mkdir()
        RunFolder(tmp_path / name).begin(config)
        folders.append(str(tmp_path / name))
    among = CliRunner().invoke(cli.app, ["distance", "--runs", *folders, "--json"])
    assert json.loads(among.stdout)["mean"] == pytest.approx(found["mean"])
    assert [line.split(" is left out")[0].rsplit("/", 1)[1] for line in among.stderr.splitlines()] == ["net", "plain"]


def test_distance_over_epochs_is_drawn(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    folder = search_run(tmp_path / "run", "ResNet18", (0.1, 0.2, 0.3, 0.4))
    assert "distance.png" in [path.name for path in plot_run(folder)]


def test_without_matplotlib_one_line_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ValueError, match="pictures need matplotlib"):
        run("distance", "--matrix", "ResNet18", "ResNet50", "--plot", str(tmp_path / "heat.png"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("ResNet18",), "architectures must be two, or any number with --matrix, got 1"),
        (("ResNet18", "ResNet50", "--plot", "x.png"), "--plot must come with --matrix or --runs"),
        (("ResNet18", "ResNet50", "--matrix", "--runs"), "one of --matrix and --runs must be given, got both"),
        (("ResNet18", "ResNet50", "--gains", "1"), "--gains must come with --runs"),
        (("ResNet18", "ResNet50", "--rule", "edge"), "--rule must come with --runs"),
        (("--runs", "here", "--gains", "much"), "--gains must be numbers with commas between them, got 'much'"),
        (("ResNet18", "ResNet50", "--over", "cells"), "over must be one of seq, genes, got 'cells'"),
        (("ResNet18", "ResNet50", "--scores", "best"), "scores: must be one of median, mean or a file, got 'best'"),
        (("ResNet18", "Xception", "--positional"), "positional needs architectures of equal length"),
        (("--runs", "no/such/run"), "no/such/run must be the folder of a run"),
    ],
)
def test_wrong_arguments_are_named(arguments: tuple[str, ...], message: str) -> None:
    with pytest.raises((ValueError, OSError), match=message):
        run("distance", *arguments)


def test_runs_must_be_finished_searches_with_a_start(tmp_path: Path) -> None:
    (tmp_path / "plain").mkdir()
    RunFolder(tmp_path / "plain").begin({"method": {}})
    with pytest.raises(ValueError, match="plain must be a search with a start"):
        run("distance", "--runs", str(tmp_path / "plain"))
    folder = search_run(tmp_path / "begun", "ResNet18", (0.1, 0.2))
    RunFolder(folder).genotype_file.unlink()
    with pytest.raises(ValueError, match="begun must be a finished search"):
        run("distance", "--runs", folder)


@pytest.mark.parametrize(
    ("name", "classes", "parameters", "adds"),
    [
        ("ResNet18", 100, 14166564, None),
        ("ResNet50", 10, 24360522, None),
        ("ResNet18_cifar10_sparse", 10, 36318538, (1922125824, 1931661312)),
        ("ResNet50_cifar10_sparse", 10, 71237450, (3461740544, 3482073088)),
        ("ResNet18_cifar100_sparse", 100, 51521828, None),
        ("Xception_cifar10_sparse", 10, 112863434, (6603116544, 6621859840)),
    ],
)
def test_published_sizes_are_described(name: str, classes: int, parameters: int, adds: tuple[int, int] | None) -> None:
    found = run("describe", name, "--channels", "64", "--classes", str(classes), "--json")
    assert found["parameters"] == parameters
    if adds is not None:
        assert (found["multiply_adds"]["convolutions"], found["multiply_adds"]["with_norms"]) == adds

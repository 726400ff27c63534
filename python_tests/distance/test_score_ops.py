"""The op-score protocol: what it trains, and that a killed run continues."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from ddarts_ext import cli
from ddarts_ext.distance import architecture_distance
from ddarts_ext.distance.op_scores import load_scores
from ddarts_ext.distance.score_ops import Protocol, Task, best_runs, measurements, score_ops, scores
from ddarts_ext.genotype import Genotype
from ddarts_ext.runs.finite import NotFiniteError

TWO_OPS = ("--ops", "skip_connect,max_pool_3x3")
SIZES = ("--channels", "2", "--epochs", "2", "--runs", "1", "--batch", "8", "--cells", "1")


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes, light and dark."""
    rng = np.random.default_rng(0)
    labels = np.arange(48) % 2
    pixels = (rng.integers(0, 128, (48, 8, 8)) + 127 * labels[:, None, None]).astype(np.uint8)
    path = tmp_path_factory.mktemp("images") / "images.npz"
    np.savez(path, x_train=pixels[:32], y_train=labels[:32], x_test=pixels[32:], y_test=labels[32:])
    return path


def protocol(images: Path) -> Protocol:
    return Protocol(str(images), ("skip_connect", "max_pool_3x3"), channels=2, epochs=2, runs=1, batch=8, cells=1)


def test_every_op_on_every_edge_of_three_cells() -> None:
    """12 measurements an op and run: 3 cells of 4 convolutions; the rest of the network stays as it is."""
    whole = Protocol("digits")
    tasks = whole.tasks()
    assert len(tasks) == len(set(tasks)) == 12 * 12 * 4
    assert tasks[144].run == 1
    network = whole.network()
    assert network.layers == 3
    assert network.reduction_cells == (1, 2)
    task = Task("sep_conv_5x5", 1, "4<-3", 0)
    assert task in tasks
    found = task.genotype(network)
    changed = [(i, a, b) for i in range(3) for a, b in zip(network.cells[i], found.cells[i], strict=True) if a != b]
    assert [(i, str(a), str(b)) for i, a, b in changed] == [(1, "simple_conv_3x3:4<-3", "sep_conv_5x5:4<-3")]
    assert {g.source for cell in network.cells for g in cell if g.target == 2} == {1}
    published = Protocol("digits", input_node=0).network()
    assert {g.source for cell in published.cells for g in cell if g.target == 2} == {0}


def test_score_is_the_median_over_edges_of_the_best_run() -> None:
    measured = {
        Task("skip_connect", cell, "2<-1", run): float(10 * cell + run) for cell in range(3) for run in range(2)
    }
    assert best_runs(measured) == {"skip_connect": {"cell 0 2<-1": 1.0, "cell 1 2<-1": 11.0, "cell 2 2<-1": 21.0}}
    assert scores(measured) == {"skip_connect": 11.0}
    measured[Task("skip_connect", 0, "3<-2", 0)] = 41.0
    assert scores(measured) == {"skip_connect": 16.0}
    assert scores(measured, "mean") == {"skip_connect": pytest.approx(18.5)}


def test_killed_run_continues(images: Path, tmp_path: Path) -> None:
    """Killed in the middle of a measurement, with the line of another half written: the rest is measured, once."""
    out = tmp_path / "scores.json"
    lines = tmp_path / "scores.json.jsonl"
    command = [sys.executable, "-m", "ddarts_ext.cli", "score-ops", "--data", str(images), *TWO_OPS, *SIZES]
    process = subprocess.Popen([*command, "--out", str(out)], stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline and (not lines.exists() or lines.read_bytes().count(b"\n") < 3):
            time.sleep(0.005)
    finally:
        process.kill()
        process.wait()
    before = lines.read_bytes()
    done = before.count(b"\n") - 1
    assert 2 <= done < 8
    assert not out.exists()
    with lines.open("ab") as file:
        file.write(b'{"op": "max_p')
    said: list[str] = []
    found = score_ops(protocol(images), out, device="cpu", say=said.append)
    assert said[0] == f"score-ops: {done} of 8 measurements are there, {8 - done} are left"
    assert len(said) == 1 + 8 - done
    after = lines.read_bytes()
    assert after.startswith(before[: before.rfind(b"\n") + 1])
    records = [json.loads(line) for line in after.splitlines()[1:]]
    assert len({(r["op"], r["cell"], r["edge"], r["run"]) for r in records}) == len(records) == 8
    # What was measured in two goes is what one go measures.
    assert score_ops(protocol(images), tmp_path / "whole.json", device="cpu") == found
    assert load_scores(out) == found
    again: list[str] = []
    score_ops(protocol(images), out, device="cpu", say=again.append)
    assert again == ["score-ops: 8 of 8 measurements are there, 0 are left"]


def test_processes_measure_the_same(images: Path, tmp_path: Path) -> None:
    """Two processes; the score file says where it is from, and the distance takes it."""
    out = tmp_path / "scores.json"
    arguments = ["score-ops", "--data", str(images), *TWO_OPS, *SIZES, "--device", "cpu", "--out", str(out)]
    result = CliRunner().invoke(cli.app, [*arguments, "--jobs", "2", "--json"])
    assert result.exit_code == 0, result.output
    alone = score_ops(protocol(images), tmp_path / "alone.json", device="cpu")
    assert json.loads(result.stdout) == {"scores": alone, "file": str(out)}
    data = json.loads(out.read_text())
    assert data["protocol"]["epochs"] == 2
    assert all(len(edges) == 4 for edges in data["edges"].values())
    skips = Genotype(((("skip_connect", 2, 0),),), concat=(2,))  # type: ignore[arg-type]
    pools = Genotype(((("max_pool_3x3", 2, 0),),), concat=(2,))  # type: ignore[arg-type]
    assert architecture_distance(skips, pools, scores=out) == pytest.approx(max(alone.values()) / sum(alone.values()))


def test_a_measurement_that_is_not_finite_is_no_score(images: Path, tmp_path: Path) -> None:
    """The op is named, nothing is written of it, and another learning rate may follow."""
    wild = replace(protocol(images), lr=1e30)
    with pytest.raises(NotFiniteError, match=r"^score-ops: skip_connect on cell 0 2<-1, run 0 has no score: .*finite"):
        score_ops(wild, tmp_path / "scores.json", device="cpu")
    assert not any(name[0] != "." for name in os.listdir(tmp_path))
    assert set(score_ops(protocol(images), tmp_path / "scores.json", device="cpu")) == {"skip_connect", "max_pool_3x3"}


def test_another_protocol_and_another_process_are_refused(images: Path, tmp_path: Path) -> None:
    out = tmp_path / "scores.json"
    path = tmp_path / "scores.json.jsonl"
    with measurements(path, {"epochs": 2}) as (measured, append):
        append(Task("skip_connect", 0, "2<-1", 0), 50.0)
        assert list(measured) == [Task("skip_connect", 0, "2<-1", 0)]
        with pytest.raises(ValueError, match="in use by another process"), measurements(path, {"epochs": 2}):
            pass
    with (
        pytest.raises(ValueError, match=r"epochs must be 2 to continue with the measurements in .*, got 3"),
        measurements(path, {"epochs": 3}),
    ):
        pass
    with pytest.raises(ValueError, match="batch must be None to continue"):
        score_ops(protocol(images), out, device="cpu")
    path.write_text('{"command": "score-ops", "epochs": 2}\nnonsense\n')
    with pytest.raises(ValueError, match=r"jsonl:2 is not a measurement"), measurements(path, {"epochs": 2}):
        pass


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--ops", "conv_9x9"), "ops must be among .* got 'conv_9x9'"),
        (("--ops", "skip_connect,skip_connect"), "ops must be distinct"),
        (("--runs", "0"), "runs must be >= 1, got 0"),
        (("--jobs", "0"), "jobs must be an integer >= 1, got 0"),
        (("--statistic", "mode"), "statistic must be one of median, mean, got 'mode'"),
        (("--input-node", "2"), "input_node must be 0 or 1, got 2"),
        (("--device", "abacus"), "device must be auto, cpu, cuda"),
    ],
)
def test_wrong_arguments_are_named(arguments: tuple[str, ...], message: str, tmp_path: Path) -> None:
    command = ["score-ops", "--data", "digits", "--out", str(tmp_path / "scores.json"), *arguments]
    with pytest.raises(ValueError, match=message):
        CliRunner().invoke(cli.app, command, catch_exceptions=False)
    assert os.listdir(tmp_path) == []

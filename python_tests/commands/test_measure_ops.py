"""``ddarts measure-ops``: the sizes of the search, the table, and how well it predicts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from ddarts_ext.cli import app
from ddarts_ext.costs import LatencyTable
from ddarts_ext.data import load
from ddarts_ext.search import Searcher
from ddarts_ext.search.cost import sizes_of

SMALL = ["--data", "digits", "--method", "darts", "--cells", "3", "--channels", "2", "--seconds", "0.01"]


def said(*arguments: str) -> str:
    done = CliRunner().invoke(app, ["measure-ops", *arguments])
    assert done.exit_code == 0, done.exception
    return done.output


def test_measured_searched_and_compared(tmp_path: Path) -> None:
    path = tmp_path / "ops.json"
    lines = said(*SMALL, "--out", str(path)).splitlines()
    table = LatencyTable.load(path)
    assert lines[-1] == f"table in {path}"
    assert lines[-2].startswith(f"{len(table.ops)} ops, the rest of a network")
    assert {"torch", "threads", "cpu"} <= {*table.device}
    run = Searcher("digits", "darts", cells=3, channels=2, budget="latency=10s", latency_table=str(path))
    assert sizes_of(run.config, load("digits")) == table.sizes
    lines = said(str(path), "--check", "4", "--seconds", "0.01").splitlines()
    assert len(lines) == 5
    assert lines[-1].startswith("correlation ")
    found = json.loads(said(str(path), "--check", "4", "--seconds", "0.01", "--json"))
    assert len(found["predicted_ms"]) == len(found["measured_ms"]) == 4


def test_the_network_of_a_start(tmp_path: Path) -> None:
    path = tmp_path / "ops.json"
    start = ["--data", "digits", "--method", "dartopti", "--start", "ResNet18", "--channels", "2", "--seconds", "0.01"]
    said(*start, "--out", str(path))
    run = Searcher("digits", "dartopti", start="ResNet18", channels=2, budget="latency=10s", latency_table=str(path))
    assert sizes_of(run.config, load("digits")) == LatencyTable.load(path).sizes


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (SMALL, "--out FILE must be given to measure, or FILE and --check N to compare"),
        ([*SMALL, "--out", "ops.json", "--batch", "0"], "batch must be >= 1, got 0"),
        (["--out", "ops.json"], "--data must be given"),
        (["none.json", "--check", "4"], "latency_table must be a file of ddarts measure-ops"),
        (["none.json", "--check", "2"], "check must be 3 or more architectures, got 2"),
        ([*SMALL, "--method", "dartopti", "--out", "ops.json"], "start must be given for method dartopti"),
    ],
)
def test_what_is_refused(arguments: list[str], message: str) -> None:
    done = CliRunner().invoke(app, ["measure-ops", *arguments])
    assert isinstance(done.exception, (ValueError, OSError))
    assert message in str(done.exception)

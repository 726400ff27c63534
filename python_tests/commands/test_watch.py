"""``ddarts watch`` tells what a folder tells, and ends with the run."""

from __future__ import annotations

import json
import os
import threading
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

from ddarts_ext import Genotype, cli
from ddarts_ext.runs.watching import look


def write(path: Path, epochs: int, *, kind: str = "search", total: int = 4) -> None:
    path.mkdir(exist_ok=True)
    config = {"command": kind, "data": "[red]digits", "epochs": total, "recipe": "few", "images": {"train": 300}}
    config |= {"method": {"name": "ddarts", "epochs": total}, "division": {"weights": {"images": 100}}}
    (path / "config.json").write_text(json.dumps(config))
    part = {"loss": 1.25, "accuracy": 0.5}
    records = [
        {"epoch": epoch, "train": part, "valid" if kind == "search" else "test": part, "seconds": 2.0}
        for epoch in range(epochs)
    ]
    (path / "history.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))


def test_a_run_that_goes_on(tmp_path: Path) -> None:
    write(tmp_path, 2)
    seen = look(tmp_path)
    assert seen.rows[0] == ("1", "1.250", "50.00%", "1.250", "50.00%", "50", "2.0")
    assert seen.state in ("epoch 2 of 4, 0:00:04 left", "epoch 2 of 4, 0:00:03 left")
    assert not seen.ended
    long_ago = time.time() - 3600
    os.utime(tmp_path / "history.jsonl", (long_ago, long_ago))
    assert "no sign for 1:00:0" in look(tmp_path).state


def test_a_training_and_a_run_that_has_hardly_begun(tmp_path: Path) -> None:
    write(tmp_path, 1, kind="train")
    assert look(tmp_path).rows[0][5] == "150"
    (tmp_path / "network.json").write_text("{}")
    assert look(tmp_path).state == "epoch 1 of 4, finished after 0:00:02"
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "config.json").write_text("{}")
    assert look(tmp_path / "empty").state == "epoch 0 of ?, waiting for the first epoch"


def test_once(tmp_path: Path) -> None:
    write(tmp_path, 3)
    result = CliRunner().invoke(cli.app, ["watch", str(tmp_path), "--once", "--lines", "2"], env={"COLUMNS": "300"})
    assert result.exit_code == 0, result.exception
    assert "search ddarts on [red]digits" in result.stdout
    rows = [line.split() for line in result.stdout.splitlines() if "50.00%" in line]
    assert [row[0] for row in rows] == ["2", "3"]


def test_it_ends_with_the_run(tmp_path: Path) -> None:
    write(tmp_path, 1)

    def go_on() -> None:
        time.sleep(0.5)
        write(tmp_path, 4)
        Genotype.load("DARTS_V1").save(tmp_path / "genotype.json")

    thread = threading.Thread(target=go_on)
    thread.start()
    result = CliRunner().invoke(cli.app, ["watch", str(tmp_path), "--every", "0.1"], env={"COLUMNS": "300"})
    thread.join()
    assert result.exit_code == 0, result.exception
    assert "epoch 4 of 4, finished after 0:00:08" in result.stdout


def test_other_input_is_refused(tmp_path: Path) -> None:
    for arguments, message in (
        ([str(tmp_path)], "watch: .* must be the folder of a run"),
        ([str(tmp_path), "--lines", "0"], "watch: lines must be at least 1, got 0"),
        ([str(tmp_path), "--every", "nan"], "watch: every must be at least 0.1, got nan"),
    ):
        result = CliRunner().invoke(cli.app, ["watch", *arguments])
        with pytest.raises((ValueError, OSError), match=message):
            raise result.exception or AssertionError(result.stdout)


@pytest.mark.parametrize("kind", ["compare", "optimise", "score-ops"])
def test_what_is_no_single_run_is_not_waited_for(kind: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"command": kind}))
    with pytest.raises(ValueError, match=f"must be the folder of a search or a training, got one of '{kind}'"):
        look(tmp_path)

"""Several seeds by one call are as many single searches, in folders of their own, and go on after a kill."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from ddarts_ext import Genotype, Searcher
from ddarts_ext.cli import app
from ddarts_ext.reporting.sources import read_sources
from ddarts_ext.runs.watching import look
from ddarts_ext.search import search_seeds
from ddarts_ext.search.seeds import SeedResult, SeedResults, stored

SMALL: dict[str, Any] = {"cells": 3, "channels": 4, "epochs": 1, "search_fraction": 0.1}
WORDS = [f"--{name.replace('_', '-')}={value}" for name, value in SMALL.items()]


def run(*arguments: str) -> Any:
    return CliRunner().invoke(app, ["search", *arguments], catch_exceptions=False)


@pytest.mark.parametrize("jobs", [1, 2])
def test_results_are_those_of_single_searches(jobs: int, tmp_path: Path) -> None:
    said: list[str] = []
    found = search_seeds(
        "digits", "fairdarts", seeds=2, seed=3, out=tmp_path / "all", device="cpu", jobs=jobs, say=said.append, **SMALL
    )
    assert [result.seed for result in found.results] == [3, 4]
    for result in found.results:
        alone = Searcher("digits", "fairdarts", seed=result.seed, device="cpu", **SMALL).search()
        assert result.genotype == alone.genotype
        assert result.valid == alone.history[-1]["valid"]["accuracy"]
        assert result.rule == alone.rule
        assert Genotype.load(tmp_path / "all" / f"seed-{result.seed}" / "genotype.json") == alone.genotype
    assert found[3].genotype != found[4].genotype
    assert len(said) == 2
    assert Genotype.load(tmp_path / "all" / "genotype.json") == found.best.genotype
    written = json.loads((tmp_path / "all" / "seeds.json").read_text())
    assert written["best"] == found.best.seed
    assert [one["valid"] for one in written["results"]] == [one.valid for one in found.results]


def result(seed: int, valid: float | None, *, higher: bool = True) -> SeedResult:
    return SeedResult(seed, None, "darts", "metric", valid, higher, 1.0)  # type: ignore[arg-type]


def test_the_best_is_that_of_the_metric_and_the_first_of_equal_ones() -> None:
    assert SeedResults((result(0, 0.2), result(1, 0.5), result(2, 0.5))).best.seed == 1
    assert SeedResults((result(0, 20.0, higher=False), result(1, 5.0, higher=False))).best.seed == 1
    assert SeedResults((result(0, None), result(1, None))).best.seed == 0
    assert SeedResults((result(0, None), result(1, 0.0))).best.seed == 1


@pytest.mark.parametrize("method", ["random", "isdarts"])
def test_any_method(method: str, tmp_path: Path) -> None:
    settings = {**SMALL, "epochs": 2, "shrink_steps": 1, "shrink_interval": 1} if method == "isdarts" else SMALL
    found = search_seeds("digits", method, seeds=2, out=tmp_path, device="cpu", **settings)
    assert len(found.results) == 2
    assert found.best in found.results


def test_text_is_judged_by_perplexity(tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    text.write_text("the cat sat on the mat and the dog sat on the log\n" * 200)
    found = search_seeds(f"text:{text}", seeds=2, out=tmp_path / "runs", device="cpu", epochs=1, channels=8, batch=4)
    assert found.best.metric == "perplexity"
    assert found.best.valid == min(one.valid for one in found.results if one.valid is not None)


def test_the_command_goes_on_with_more_seeds_and_epochs(tmp_path: Path) -> None:
    out = str(tmp_path / "runs")
    first = run("--data", "digits", "--method", "darts", *WORDS, "--seeds", "1", "--out", out, "--device", "cpu")
    assert first.exit_code == 0, first.output
    assert stored(out) == {"data": "digits", "method": "darts", "seed": 0, "seeds": 1, **SMALL}
    more = run("--resume", "--out", out, "--seeds", "2", "--epochs", "2", "--device", "cpu")
    assert more.exit_code == 0, more.output
    assert "seed 1: accuracy" in more.output
    for seed in (0, 1):
        lines = Path(out, f"seed-{seed}", "history.jsonl").read_text().splitlines()
        assert len(lines) == 2
    fewer = CliRunner().invoke(app, ["search", "--resume", "--out", out, "--seeds", "1"])
    assert isinstance(fewer.exception, ValueError)
    assert "seeds must be 2 or more to resume" in str(fewer.exception)
    alone = run("--resume", "--out", str(Path(out, "seed-1")), "--device", "cpu")
    assert alone.exit_code == 0, alone.output


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"seeds": 0}, "seeds must be an integer >= 1, got 0"),
        ({"seeds": True}, "seeds must be an integer >= 1, got True"),
        ({"seed": -1}, "seed must be an integer >= 0, got -1"),
        ({"epochs": -1}, "epochs must be >= 1, got -1"),
        ({"nothing": 1}, "got 'nothing'"),
        ({"jobs": 0}, "jobs must be an integer >= 1, got 0"),
        ({"jobs": 2, "channels": -4}, "channels must be >= 1, got -4"),
        ({"data": 7}, "data must be a name or a path with several seeds, got int"),
        ({"loss": print}, "loss must be plain data with several seeds, got builtin_function_or_method"),
    ],
    ids=str,
)
def test_wrong_input_leaves_nothing(more: dict[str, Any], words: str, tmp_path: Path) -> None:
    arguments: dict[str, Any] = {"data": "digits", "seeds": 2, **SMALL, **more}
    with pytest.raises((ValueError, TypeError), match=words):
        search_seeds(out=tmp_path / "runs", device="cpu", **arguments)
    assert not (tmp_path / "runs").exists()


@pytest.fixture(scope="module")
def one_seed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one seed; tests copy it."""
    out = tmp_path_factory.mktemp("seeds") / "runs"
    search_seeds("digits", "fairdarts", seeds=1, out=out, device="cpu", **SMALL)
    return out


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"batch": 7}, "batch must be None to resume the run in .*, got 7"),
        ({"foo": 1}, "foo must be None to resume"),
        ({"epochs": 0}, "epochs must be 1 or more to resume"),
        ({"graphs": "perhaps"}, "graphs must be one of"),
        ({"seeds": 3, "batch": 7}, "batch must be None"),
        ({"method": "darts"}, "method must be 'fairdarts' to resume"),
        ({"seed": 1}, "seed must be 0 to resume"),
        ({"data": "images.npz"}, "images must be those of the run|must be"),
    ],
    ids=str,
)
def test_a_refused_resume_changes_nothing(more: dict[str, Any], words: str, one_seed: Path, tmp_path: Path) -> None:
    out = shutil.copytree(one_seed, tmp_path / "runs")
    if "data" in more:
        images = np.zeros((40, 8, 8), np.uint8), np.arange(40) % 4
        np.savez(tmp_path / "images.npz", x_train=images[0], y_train=images[1], x_test=images[0], y_test=images[1])
        more = {"data": str(tmp_path / "images.npz")}
    before = {file: file.read_bytes() for file in out.rglob("*.json")}
    given = {"data": "digits", "method": "fairdarts", "seeds": 1, **SMALL, **more}
    with pytest.raises(ValueError, match=words):
        search_seeds(out=out, resume=True, device="cpu", **given)
    assert {file: file.read_bytes() for file in out.rglob("*.json")} == before
    again = search_seeds("digits", "fairdarts", seeds=1, out=out, resume=True, device="cpu", **SMALL)
    assert len(again.results) == 1


def test_images_may_lie_elsewhere_when_a_search_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, (60, 8, 8), dtype=np.uint8), np.arange(60) % 3
    np.savez(tmp_path / "images.npz", x_train=images[0], y_train=images[1], x_test=images[0], y_test=images[1])
    monkeypatch.chdir(tmp_path)
    settings = {"cells": 3, "channels": 4, "epochs": 1, "batch": 8}
    search_seeds("images.npz", "darts", seeds=1, out="runs", device="cpu", **settings)
    Path("other").mkdir()
    monkeypatch.chdir(tmp_path / "other")
    found = search_seeds("../images.npz", "darts", seeds=2, out="../runs", resume=True, device="cpu", **settings)
    assert len(found.results) == 2


def test_a_new_call_takes_no_run_that_is_there(one_seed: Path, tmp_path: Path) -> None:
    shutil.copytree(one_seed / "seed-0", tmp_path / "runs" / "seed-1")
    with pytest.raises(ValueError, match=r"out must be a new folder, or use --resume, got one with .*seed-1"):
        search_seeds("digits", "fairdarts", seeds=2, out=tmp_path / "runs", device="cpu", **SMALL)
    assert [entry.name for entry in (tmp_path / "runs").iterdir()] == ["seed-1"]


def test_a_single_run_is_not_one_of_several_and_the_reverse(one_seed: Path) -> None:
    several = CliRunner().invoke(app, ["search", "--resume", "--out", str(one_seed / "seed-0"), "--seeds", "2"])
    assert "out must be the folder of a search --seeds, got that of 'search'" in str(several.exception)
    with pytest.raises(KeyError, match="seeds are 0, got 9"):
        search_seeds("digits", "fairdarts", seeds=1, out=one_seed, resume=True, device="cpu", **SMALL)[9]


def test_reports_show_the_runs_and_watch_asks_for_one(one_seed: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"holds the runs of several seeds, of which one must be given: .*seed-0"):
        look(one_seed)
    found = read_sources([one_seed])
    assert [source.name for source in found] == ["seed-0"]


@pytest.mark.parametrize("words", [["--seeds", "2", "--set", "jobs=2"], ["--set", "seeds=2"], ["--set", "data=digits"]])
def test_settings_do_not_say_what_options_say(words: list[str], tmp_path: Path) -> None:
    found = CliRunner().invoke(app, ["search", "--data", "digits", "--out", str(tmp_path / "runs"), *words])
    name = words[-1].partition("=")[0]
    assert str(found.exception) == f"--set {name} must be said as --{name}"


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["--data", "digits", "--jobs", "2"], "--seeds must be given with --jobs and --backend"),
        (["--data", "digits", "--seeds", "2"], "--out must be given with --seeds"),
    ],
)
def test_the_command_refuses_half_of_it(words: list[str], complaint: str) -> None:
    found = CliRunner().invoke(app, ["search", *words])
    assert isinstance(found.exception, ValueError)
    assert complaint in str(found.exception)


def test_a_killed_call_goes_on_to_the_same_results(tmp_path: Path) -> None:
    settings = {**SMALL, "epochs": 3}
    whole = search_seeds("digits", "darts", seeds=2, out=tmp_path / "whole", device="cpu", **settings)
    code = (
        "from ddarts_ext.search import search_seeds\n"
        "if __name__ == '__main__':\n"
        f"    search_seeds('digits', 'darts', seeds=2, out={str(tmp_path / 'cut')!r}, device='cpu', jobs=2, "
        f"**{settings!r})\n"
    )
    script = tmp_path / "script.py"
    script.write_text(code)
    process = subprocess.Popen([sys.executable, str(script)], env=os.environ | {"OMP_NUM_THREADS": "1"})
    try:
        end = time.monotonic() + 120
        while not list((tmp_path / "cut").glob("seed-*/checkpoint.pt")):
            assert process.poll() is None
            assert time.monotonic() < end
            time.sleep(0.05)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    end = time.monotonic() + 60
    while True:  # until the workers have seen that their parent is gone, and let go of their folders
        try:
            again = search_seeds(
                "digits", "darts", seeds=2, out=tmp_path / "cut", resume=True, device="cpu", **settings
            )
            break
        except ValueError as error:
            assert "in use by another process" in str(error)  # noqa: PT017
            assert time.monotonic() < end
            time.sleep(0.2)
    assert [one.genotype for one in again.results] == [one.genotype for one in whole.results]
    assert [one.valid for one in again.results] == [one.valid for one in whole.results]

"""Run folders and settings of any content: what was saved is taken up, or one line says why not."""

from __future__ import annotations

import io
import json
import shutil
import sys
import time
from contextlib import redirect_stderr, redirect_stdout, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fuzzing import fuzz
from hypothesis import given
from hypothesis import strategies as st
from runs.small import noise

from ddarts_ext import cli
from ddarts_ext.commands.options import parsed
from ddarts_ext.comparison.plan import Contender
from ddarts_ext.search import settings as search_settings
from ddarts_ext.search.searcher import Searcher
from ddarts_ext.training import config as training_settings

FILES = ("config.json", "history.jsonl", "checkpoint.pt", "checkpoint.previous.pt", "genotype.json")
SIZES = ["--channels", "2", "--cells", "3", "--batch", "4", "--epochs", "3", "--set", "steps=1", "--device", "cpu"]


def command(*arguments: str) -> tuple[int, str]:
    """Exit code and standard error of the command, within this process."""
    out, err, before = io.StringIO(), io.StringIO(), sys.argv
    sys.argv = ["ddarts", *arguments]
    try:
        with redirect_stdout(out), redirect_stderr(err), pytest.raises(SystemExit) as ended:
            cli.main()
    finally:
        sys.argv = before
    return int(ended.value.code or 0), err.getvalue()


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A search of three epochs, and the same with a fourth begun: its states by epoch are what may be taken up."""
    folder = tmp_path_factory.mktemp("fuzz")
    random = np.random.RandomState(0)
    arrays = {f"x_{part}": random.randint(0, 256, (12, 4, 4), dtype=np.uint8) for part in ("train", "test")}
    np.savez(folder / "images.npz", **arrays, y_train=np.arange(12) % 2, y_test=np.arange(12) % 2)
    out = str(folder / "run")
    code, said = command("search", "--data", str(folder / "images.npz"), "--method", "darts", *SIZES, "--out", out)
    assert code == 0, said
    return folder / "run"


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The states that searches take up; they end there."""
    found: list[Any] = []

    def search(self: Searcher) -> Any:
        with self.keeping.session():
            found.append(self._start())
        raise KeyboardInterrupt

    monkeypatch.setattr(Searcher, "search", search)
    return found


@st.composite
def bytes_changed(draw: st.DrawFn) -> tuple[str, Any]:
    """A file, and what happens to its bytes."""
    kind = draw(st.sampled_from(("flip", "cut", "insert", "delete", "other", "replace")))
    numbers = draw(st.lists(st.integers(0, 2**20), min_size=1, max_size=4))
    content = draw(st.binary(max_size=40))
    name, source = draw(st.sampled_from(FILES)), draw(st.sampled_from(FILES))

    def change(folder: Path) -> None:
        file = folder / name
        old = bytearray(file.read_bytes())
        if kind == "flip":
            for number in numbers:
                old[number % len(old)] ^= 1 << number % 8
        elif kind == "cut":
            del old[numbers[0] % len(old) :]
        elif kind == "insert":
            place = numbers[0] % len(old)
            old[place:place] = content
        elif kind == "other":
            old = bytearray((folder / source).read_bytes())
        elif kind == "replace":
            old = bytearray(content)
        if kind == "delete":
            file.unlink()
        else:
            file.write_bytes(old)

    return f"{kind} {name}", change


plain = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 9) | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@st.composite
def settings_changed(draw: st.DrawFn) -> tuple[str, Any]:
    """A value somewhere in a configuration or a history, and what stands there instead."""
    name, value = draw(st.sampled_from(("config.json", "history.jsonl"))), draw(plain)
    path, removed = draw(st.lists(st.integers(0, 40), min_size=1, max_size=4)), draw(st.booleans())

    def change(folder: Path) -> None:
        file = folder / name
        lines = [
            json.loads(x) for x in ([file.read_text()] if name == "config.json" else file.read_text().split("\n")[:-1])
        ]
        place: Any = lines
        for step in path:
            keys: list[Any] = list(place) if isinstance(place, dict) else list(range(len(place)))
            key = keys[step % len(keys)]
            if not isinstance(place[key], (dict, list)) or not place[key] or step is path[-1]:
                break
            place = place[key]
        if removed:
            del place[key]
        else:
            place[key] = value
        file.write_text("".join(json.dumps(line) + "\n" for line in lines))

    return f"{'remove from' if removed else 'set in'} {name}", change


@fuzz(180)
@given(changes=st.lists(bytes_changed() | settings_changed(), min_size=1, max_size=2))
def test_a_damaged_run_is_taken_up_as_it_was_or_refused_in_one_line(
    changes: list[tuple[str, Any]], run: Path, started: list[Any], tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("damaged") / "run"
    shutil.copytree(run, folder)
    for _, change in changes:
        with suppress(OSError, ValueError, IndexError, ZeroDivisionError):  # what the first change has destroyed
            change(folder)
    started.clear()
    data = str(run.parent / "images.npz")
    began = time.process_time()
    code, said = command("search", "--resume", "--out", str(folder), "--device", "cpu", "--data", data)
    assert time.process_time() - began < 60
    assert code in (2, 130)
    if code == 2:
        last = said.splitlines()[-1]
        assert last.startswith("ddarts: "), said
        assert len(last) < 1000
    else:
        assert_as_saved(started[0], run)
    shutil.rmtree(folder.parent)


def assert_as_saved(state: Any, run: Path) -> None:
    """The alphas are those of the history; a state without an epoch is a new one."""
    records = [json.loads(line) for line in (run / "history.jsonl").read_text().splitlines()]
    if state.epoch:
        table = state.architecture.by_cell(state.architecture.table.detach())
        assert torch.equal(table, torch.tensor(records[state.epoch - 1]["alphas"]))
        assert [record["epoch"] for record in state.history] == list(range(state.epoch))
    assert all(torch.isfinite(tensor).all() for tensor in state.net.state_dict().values())


words = st.sampled_from(sorted({*search_settings.OPTIONS, *training_settings.OPTIONS})) | st.text(max_size=6)
hostile = ["1e999", "-1", "0", "10" * 30, "NaN", "[" * 3000, "1e-320", "[1e400]", "true", "none", "2.5", "9" * 5000]
values = plain.map(json.dumps) | st.text(max_size=12) | st.sampled_from([*hostile, '"\\ud800"'])


@fuzz(600)
@given(
    said=st.lists(st.tuples(words, values), min_size=1, max_size=3),
    method=st.sampled_from(("darts", "ddarts", "isdarts")),
)
def test_settings_are_taken_or_refused(said: list[tuple[str, str]], method: str) -> None:
    dataset = noise()
    for resolve in (
        lambda given: search_settings.resolve(dataset, method, "cpu", given),
        lambda given: training_settings.resolve(dataset, given),
    ):
        began = time.process_time()
        with suppress(ValueError, TypeError, OSError):
            json.dumps(resolve(parsed([f"{name}={value}" for name, value in said])).to_json())
        with suppress(ValueError, TypeError, OSError):
            Contender.parse(f"{method}:" + ",".join(f"{name}={value}" for name, value in said))
        assert time.process_time() - began < 10


@fuzz(180)
@given(said=st.lists(st.tuples(words, values), min_size=1, max_size=2))
def test_wrong_settings_are_one_line_of_the_command(said: list[tuple[str, str]], run: Path, started: list[Any]) -> None:
    data, pairs = str(run.parent / "images.npz"), [x for name, value in said for x in ("--set", f"{name}={value}")]
    if any("\x00" in pair for pair in pairs):
        return  # no argument of a process has one
    code, text = command("search", "--data", data, "--method", "darts", *SIZES, *pairs)
    assert code in (2, 130)
    assert code == 130 or text.splitlines()[-1].startswith("ddarts: ")
    assert len(text) < 3000

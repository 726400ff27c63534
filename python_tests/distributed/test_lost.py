"""A rank that is killed: the others end with one line, and the run goes on, also with other ranks."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from distributed.launch import Started, cli


@pytest.fixture
def images(tmp_path: Path) -> Path:
    random = np.random.default_rng(0)
    arrays = {}
    for part, count in (("train", 72), ("test", 12)):
        arrays[f"x_{part}"] = random.integers(0, 256, (count, 8, 8), dtype=np.uint8)
        arrays[f"y_{part}"] = np.arange(count) % 2
    np.savez(tmp_path / "images.npz", **arrays)
    return tmp_path / "images.npz"


def search(images: Path, out: Path, epochs: int) -> list[str | Path]:
    small = ["--cells", "3", "--channels", "4", "--set", "steps=2", "--set", "alpha_start=0", "--batch", "12"]
    return cli("search", "--data", images, "--epochs", str(epochs), "--device", "cpu", "--out", out, *small)


def train(images: Path, out: Path, epochs: int) -> list[str | Path]:
    small = ["--channels", "4", "--batch", "12", "--cells", "3"]
    return cli("train", "DARTS_V2", "--data", images, "--epochs", str(epochs), "--device", "cpu", "--out", out, *small)


def epochs(out: Path) -> int:
    history = out / "history.jsonl"
    return len(history.read_text().splitlines()) if history.is_file() else 0


def under_way(command: list[str | Path], out: Path, world: int) -> Started:
    """A run that has saved an epoch."""
    before, until = epochs(out), time.monotonic() + 300
    run = Started(world, command, out.parent)
    while epochs(out) <= before:
        assert time.monotonic() < until
        assert all(process.poll() is None for process in run.processes), run.wait()
        time.sleep(0.05)
    return run


def killed(command: list[str | Path], out: Path, world: int, rank: int) -> None:
    """Kill a rank, and see how the others end."""
    run = under_way(command, out, world)
    run.kill(rank)
    began = time.monotonic()
    ended = run.wait(60)
    assert time.monotonic() - began < 60
    assert [code for code, _, _ in ended] == [-9 if place == rank else 2 for place in range(world)], ended
    said = [line for place, (_, _, text) in enumerate(ended) if place != rank for line in text.splitlines()]
    lines = [line for line in said if line.startswith("ddarts:")]
    assert len(lines) == 1, said
    assert "another rank has ended or does not answer" in lines[0]
    assert not any("Traceback" in line for line in said)


def test_a_search_survives_the_loss_of_a_rank(images: Path) -> None:
    out = images.parent / "run"
    killed(search(images, out, 500), out, 3, 1)
    first = epochs(out)
    assert first
    # With fewer, and with one that is alone.
    killed([*cli("search", "--out", out, "--resume", "--device", "cpu")], out, 2, 1)
    assert epochs(out) > first
    config = json.loads((out / "config.json").read_text())
    assert config["method"]["batch"] == 12


@pytest.mark.parametrize("kind", ["search", "train"])
def test_a_signal_to_one_rank_ends_all_after_the_same_step(images: Path, kind: str) -> None:
    out = images.parent / "run"
    run = under_way((search if kind == "search" else train)(images, out, 500), out, 2)
    run.processes[1].terminate()
    ended = run.wait(60)
    assert [code for code, _, _ in ended] == [143, 143], ended
    lines = [line for _, _, text in ended for line in text.splitlines() if line.startswith("ddarts:")]
    assert len(lines) == 1
    assert "interrupted" in lines[0]
    killed(cli(kind, "--out", out, "--resume", "--device", "cpu"), out, 3, 2)


def test_after_an_error_among_ranks_python_is_not_finalised() -> None:
    """Threads of the process group may still let go of tensors, which would abort the process then."""
    program = """
import atexit, sys
from ddarts_ext.runs import joining

class Last:
    def __del__(self):
        sys.stderr.write("finalised")

last = Last()
atexit.register(print, "registered", end="")
if sys.argv[1] == "error":
    joining._failing = 1
joining.end(3)
"""
    # A starter ends the others as soon as one has failed.
    waiting = """
import os, signal
from ddarts_ext.runs import interrupts, joining

class Store:
    def add(self, name, number):
        os.kill(os.getpid(), signal.SIGTERM)
        return 1

interrupts.listen()
joining._leave = lambda: None
os.environ.update(RANK="0", WORLD_SIZE="2", MASTER_ADDR="localhost")
joining._failing, joining._store, joining._MOMENT = 2, Store(), 0.1
joining.end(3)
"""
    assert subprocess.run([sys.executable, "-c", waiting], capture_output=True).returncode == 3
    for kind, last in (("error", ""), ("none", "finalised")):
        ended = subprocess.run([sys.executable, "-c", program, kind], capture_output=True, text=True)
        assert (ended.returncode, ended.stdout, ended.stderr) == (3, "registered", last)


def test_the_first_rank_may_be_the_one(images: Path) -> None:
    out = images.parent / "net"
    killed(train(images, out, 500), out, 2, 0)


@pytest.mark.parametrize("kind", ["search", "train"])
@pytest.mark.parametrize("world", [1, 2])
def test_a_run_that_was_cut_off_ends_with_other_ranks(images: Path, kind: str, world: int) -> None:
    """More epochs than it was begun with, by another number of processes."""
    out, make = images.parent / "run", search if kind == "search" else train
    for ranks, count in ((3 - world, 1), (world, 2)):
        more = ["--resume"] if count == 2 else []
        for rank, (code, said, errors) in enumerate(
            Started(ranks, [*make(images, out, count), *more], images.parent).wait()
        ):
            assert code == 0, errors
            assert bool(said) == (rank == 0)
            assert bool(errors) == (rank == 0)
    assert epochs(out) == 2
    wanted = "genotype.json" if kind == "search" else "weights.safetensors"
    assert (out / wanted).is_file()

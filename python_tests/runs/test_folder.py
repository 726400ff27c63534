"""A run folder holds whole files, refuses what does not belong to it, and survives a process that is killed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from ddarts_ext.runs.folder import RunFolder, write_whole

# Forks a child for every run, so that torch is imported once: OUT/whole runs through, OUT/killed is killed five times.
SEARCHES = """
import os, random, signal, sys, time
from pathlib import Path
import torch
from ddarts_ext.data import Augmentation, Dataset, MemorySplit
from ddarts_ext.search.searcher import Searcher
torch.set_num_threads(1)

def search(out):
    g = torch.Generator().manual_seed(0)
    def split(n):
        return MemorySplit(torch.randint(0, 256, (n, 1, 4, 4), generator=g, dtype=torch.uint8), torch.arange(n) % 2)
    data = Dataset("noise", split(16), split(4), ("a", "b"), (4, 4), 1, (0.5,), (0.25,), Augmentation(crop_padding=1))
    Searcher(data, "ddarts", cells=3, channels=2, steps=1, epochs=12, batch=4, ablation_inactive="random", seed=3,
             out=out, resume=True, device="cpu").search()

def started(out):
    child = os.fork()
    if child == 0:
        search(out)
        os._exit(0)
    return child

def ended(child):
    # Looks without taking the exit status, so that the number stays this child's.
    return os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None

def epochs(out):
    history = out / "history.jsonl"
    return len(history.read_text().splitlines()) if history.exists() else 0

root = Path(sys.argv[1])
began = time.monotonic()
assert os.waitpid(started(root / "whole"), 0)[1] == 0
epoch_seconds = (time.monotonic() - began) / 12
moments = random.Random(5)
for _ in range(5):
    done, child = epochs(root / "killed"), started(root / "killed")
    # One epoch further, so that the kills fall into different epochs; then at any moment of the next.
    while epochs(root / "killed") == done and not ended(child):
        time.sleep(0.001)
    time.sleep(moments.random() * epoch_seconds / 2)
    os.kill(child, signal.SIGKILL)  # of a child that has ended, but was not waited for, this does nothing
    os.waitpid(child, 0)
    print("killed after epoch", epochs(root / "killed"))
assert os.waitpid(started(root / "killed"), 0)[1] == 0
"""


def test_a_file_is_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_whole(path, b"old")
    write_whole(path, b"new")
    assert path.read_bytes() == b"new"
    assert os.listdir(tmp_path) == ["file"]


def test_history_and_checkpoint_come_back(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    assert folder.open({"seed": 1}, resume=False) is None
    folder.save({"epoch": 1, "tensor": torch.ones(2)}, [{"epoch": 0, "loss": 0.5}])
    assert folder.history() == [{"epoch": 0, "loss": 0.5}]
    again = RunFolder(tmp_path / "run").open({"seed": 1}, resume=True)
    assert again is not None
    assert again["epoch"] == 1
    assert torch.equal(again["tensor"], torch.ones(2))


def test_other_runs_are_refused(tmp_path: Path) -> None:
    RunFolder(tmp_path).open({"seed": 1, "device": "cpu"}, resume=False)
    with pytest.raises(ValueError, match="search: out must be a new folder"):
        RunFolder(tmp_path).open({"seed": 1}, resume=False)
    with pytest.raises(ValueError, match="search: seed must be 1 to resume"):
        RunFolder(tmp_path).open({"seed": 2, "device": "cpu"}, resume=True)
    RunFolder(tmp_path).open({"seed": 1, "device": "cuda"}, resume=True, changeable=("device",))


def test_broken_files_are_named(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"no config\.json"):
        folder.config()
    folder.checkpoint_file.write_bytes(b"not a checkpoint")
    with pytest.raises(ValueError, match=r"checkpoint\.pt is not a checkpoint"):
        folder.checkpoint()
    folder.config_file.write_text("{")
    with pytest.raises(ValueError, match=r"config\.json is not valid JSON"):
        folder.config()


def test_a_killed_search_resumes_to_the_same_result(tmp_path: Path) -> None:
    """Killed at random moments, then finished: the same genotype and the same history but for time and memory."""
    script = tmp_path / "searches.py"
    script.write_text(SEARCHES)
    subprocess.run([sys.executable, str(script), str(tmp_path)], check=True, timeout=300)
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert (killed / "genotype.json").read_bytes() == (whole / "genotype.json").read_bytes()
    assert timeless(killed) == timeless(whole)


def timeless(folder: Path) -> list[dict[str, Any]]:
    records = [json.loads(line) for line in (folder / "history.jsonl").read_text().splitlines()]
    return [{k: v for k, v in record.items() if k not in ("seconds", "memory_mib")} for record in records]

"""How the command ends where it is stopped, or where the machine has not what it needs: one line and the exit code."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import ddarts_ext
from ddarts_ext import cli
from ddarts_ext.search.searcher import Searcher

IMPORTING = """
import importlib.abc, sys, time

class Slow(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name == "ddarts_ext.cli":
            print("importing", flush=True)
            time.sleep(100)

sys.meta_path.insert(0, Slow())
import ddarts_command
ddarts_command.main()
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_during_imports_is_one_line(number: int) -> None:
    package = str(Path(ddarts_ext.__file__).parents[1])  # the one under test, installed or not
    child = subprocess.Popen(
        [sys.executable, "-c", IMPORTING],
        env=os.environ | {"PYTHONPATH": os.pathsep.join([package, os.environ.get("PYTHONPATH", "")])},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A job in the background may have inherited that it is to be ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert child.stdout is not None
    assert child.stdout.readline() == "importing\n"
    child.send_signal(number)
    _, said = child.communicate(timeout=60)
    assert (child.returncode, said) == (128 + number, "ddarts: interrupted before anything was begun\n")


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.\nMore lines"), "memory"),
        (MemoryError(), "memory"),
        (
            RuntimeError("[enforce fail at alloc_cpu.cpp:117] err == 0. DefaultCPUAllocator: can't allocate memory"),
            "out of memory",
        ),
        (
            OSError(errno.ENOSPC, "No space left on device", "runs/x/checkpoint.pt"),
            "no space is left on the disk (runs/x",
        ),
        (ValueError("search: method must be one of\ndarts, got " + "x" * 100_000), "must be one of darts"),
        (KeyboardInterrupt(), "--resume"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_ends_a_run_is_one_line(
    error: BaseException, words: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def search(self: Searcher) -> None:
        raise error

    monkeypatch.setattr(Searcher, "search", search)
    monkeypatch.setattr(sys, "argv", ["ddarts", "search", "--data", "digits"])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == (130 if isinstance(error, KeyboardInterrupt) else 2)
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1
    assert said[0].startswith("ddarts: ")
    assert words in said[0]
    assert len(said[0]) < 1100

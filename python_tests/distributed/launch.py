"""Starts the ranks of a run as processes of their own, as torchrun does, and waits for them."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import ddarts_ext

WORKER = Path(__file__).parent / "worker.py"
ROOT = Path(ddarts_ext.__file__).parents[1]


class Started:
    """``world`` processes of ``command``; a single one is an ordinary process."""

    def __init__(self, world: int, command: Sequence[str | Path], folder: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        common = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "MASTER_ADDR": "127.0.0.1"}
        common |= {"MASTER_PORT": str(port), "WORLD_SIZE": str(world), "LOCAL_WORLD_SIZE": str(world)}
        common |= {"CUDA_VISIBLE_DEVICES": ""}
        self.processes = [
            subprocess.Popen(
                [sys.executable, *map(str, command)],
                env={**common, "RANK": str(rank), "LOCAL_RANK": str(rank)},
                cwd=folder,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            for rank in range(world)
        ]

    def kill(self, rank: int) -> None:
        self.processes[rank].send_signal(signal.SIGKILL)

    def wait(self, timeout: float = 400) -> list[tuple[int, str, str]]:
        """Exit code, standard output and standard error of every rank."""
        try:
            said = [process.communicate(timeout=timeout) for process in self.processes]
        finally:
            for process in self.processes:
                process.kill()
        return [(process.returncode, *both) for process, both in zip(self.processes, said, strict=True)]


def cli(*arguments: str | Path) -> list[str | Path]:
    return ["-m", "ddarts_ext", *arguments]

"""What workers of Ray are given to do."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any


def begin(device: str) -> str:
    return device


def place_of(task: int, context: str) -> tuple[int, str, str, int]:
    import ray
    import torch

    return task, context, ray.get_runtime_context().get_node_id(), torch.get_num_threads()


def meets(task: tuple[str, str, str], context: str) -> tuple[int, str, str, int]:
    """Ends when the other task is there."""
    folder, mine, other = task
    Path(folder, mine).touch()
    deadline = time.monotonic() + 60
    while not Path(folder, other).exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    return place_of(0, context)


def wrong(task: int, context: str) -> Any:
    raise ValueError(f"search: task {task} is wrong")


def ends(task: int, context: str) -> Any:
    os._exit(1)

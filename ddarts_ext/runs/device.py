"""Where a run computes, how precisely, and how repeatably."""

from __future__ import annotations

import os
import resource
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch

PRECISIONS = ("float32", "bf16")


def choose_device(device: str | torch.device | None, command: str) -> torch.device:
    """The device of that name; None takes a GPU where there is one. Raises ValueError for one that is not there."""
    if device is None or str(device) == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        chosen = torch.device(device)
    except RuntimeError as error:
        raise ValueError(f"{command}: device must be auto, cpu, cuda or cuda:N, got {device!r}") from error
    if chosen.type not in ("cpu", "cuda"):
        raise ValueError(f"{command}: device must be auto, cpu, cuda or cuda:N, got {str(device)!r}")
    if chosen.type == "cuda" and not torch.cuda.is_available():
        raise ValueError(
            f"{command}: device must be cpu, as torch {torch.__version__} sees no GPU here, got {str(device)!r}"
        )
    return chosen


def autocast(device: torch.device, precision: str) -> Callable[[], AbstractContextManager[object]]:
    """Makes the context in which networks run: bfloat16 needs no scaler, so nothing waits for the device."""
    if precision == "bf16":
        return lambda: torch.autocast(device.type, dtype=torch.bfloat16)
    return nullcontext


@contextmanager
def repeatable(deterministic: bool) -> Iterator[None]:
    """Within it, with ``deterministic``, torch takes deterministic algorithms, or raises where there is none."""
    if not deterministic:
        yield
        return
    # cuBLAS reads this when its first handle is made; a value the user has set stays.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    before = torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.benchmark
    torch.use_deterministic_algorithms(True)
    torch.backends.cudnn.benchmark = False
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0])
        torch.backends.cudnn.benchmark = before[1]


def peak_memory_mib(device: torch.device) -> float:
    """Largest memory so far: of tensors on a GPU, of the whole process on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)


def synchronize(device: torch.device) -> None:
    """Wait for the device, so that a clock read afterwards counts its work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)

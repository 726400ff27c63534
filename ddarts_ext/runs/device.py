"""Where a run computes, how precisely, and how repeatably."""

from __future__ import annotations

import functools
import hashlib
import os
import resource
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch

from ddarts_ext.runs.ranks import Ranks, current

PRECISIONS = ("float32", "bf16")


MOST_THREADS = 4096
"""Of a processor in one machine; torch crashes where it cannot start as many as it was told."""


def set_threads(threads: int, command: str) -> None:
    """Have torch compute with so many threads. Raises ValueError for a number of threads that nobody has."""
    if not 1 <= threads <= MOST_THREADS:
        raise ValueError(f"{command}: threads must be an integer from 1 to {MOST_THREADS}, got {threads}")
    torch.set_num_threads(threads)


def choose_device(device: str | torch.device | None, command: str) -> torch.device:
    """The device of that name; None takes a GPU where there is one. Raises ValueError for one that is not there.

    Of several ranks each takes the GPU of its number on its machine.
    """
    ranks = current()
    if ranks.several:
        return _of_rank(str(device or "auto"), command, ranks)
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


def _of_rank(device: str, command: str, ranks: Ranks) -> torch.device:
    if device not in ("auto", "cpu", "cuda"):
        raise ValueError(
            f"{command}: device must be auto, cpu or cuda with several ranks, each of which takes a GPU of its own, "
            f"got {device!r}"
        )
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if device == "cpu" or (device == "auto" and not count):
        return torch.device("cpu")
    if ranks.beside > count:
        raise ValueError(
            f"{command}: device must be cpu, or the ranks of a machine as many as its GPUs at most, got {count} GPUs "
            f"for {ranks.beside} ranks"
        )
    torch.cuda.set_device(ranks.local)
    return torch.device("cuda", ranks.local)


def autocast(device: torch.device, precision: str) -> Callable[[], AbstractContextManager[object]]:
    """Makes the context in which networks run: bfloat16 needs no scaler, so nothing waits for the device.

    Warns, once a process, where bfloat16 is slower than float32: on a CPU without instructions for it.
    """
    if precision != "bf16":
        return nullcontext
    if device.type == "cpu" and not _computes_bfloat16():
        _warn_of_slow_bfloat16()
    return lambda: _bfloat16(device)


def _computes_bfloat16() -> bool:
    """Whether the processor has AVX512-BF16, and torch uses it."""
    return torch.backends.cpu.get_cpu_capability() == "AVX512" and bool(torch.cpu._is_avx512_bf16_supported())


@functools.cache
def _warn_of_slow_bfloat16() -> None:
    warnings.warn(
        "precision: bf16 is slower than float32 on a CPU without AVX512-BF16 (1.1 times as long a step, measured with "
        "AVX2); all it saves is a third of the memory",
        stacklevel=3,
    )


@contextmanager
def _bfloat16(device: torch.device) -> Iterator[None]:
    """Autocast whose copies of weights end with it.

    torch keeps them to the end of the outermost context, and a run is within one (:func:`own_state`): every step would
    go on computing with the weights of the first.
    """
    try:
        with torch.autocast(device.type, dtype=torch.bfloat16):
            yield
    finally:
        torch.clear_autocast_cache()


@contextmanager
def own_state(command: str, device: torch.device) -> Iterator[None]:
    """Within it, gradients are on and autocast is off, whatever the caller has switched in his thread.

    Raises ValueError for a default dtype or a default device that would make tensors of another kind everywhere: those
    are of the whole process, and nobody else's to change.
    """
    if torch.get_default_dtype() != torch.float32:
        raise ValueError(f"{command}: torch's default dtype must be torch.float32, got {torch.get_default_dtype()}")
    if torch.get_default_device().type != "cpu":
        raise ValueError(f"{command}: torch's default device must be cpu, got {torch.get_default_device()}")
    with torch.inference_mode(False), torch.enable_grad(), torch.autocast(device.type, enabled=False):
        yield


class _Deterministic:
    """Switches of the whole process: on as long as any thread wants them, then what they were before."""

    lock = threading.Lock()
    users = 0
    before = (False, False, False)


@contextmanager
def repeatable(deterministic: bool) -> Iterator[None]:
    """Within it, with ``deterministic``, torch takes deterministic algorithms, or raises where there is none."""
    if not deterministic:
        yield
        return
    shared = _Deterministic
    with shared.lock:
        if not shared.users:
            # cuBLAS reads this when its first handle is made; a value the user has set stays.
            os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
            shared.before = (
                torch.are_deterministic_algorithms_enabled(),
                torch.is_deterministic_algorithms_warn_only_enabled(),
                torch.backends.cudnn.benchmark,
            )
            torch.use_deterministic_algorithms(True)
            torch.backends.cudnn.benchmark = False
        shared.users += 1
    try:
        yield
    finally:
        with shared.lock:
            shared.users -= 1
            if not shared.users:
                torch.use_deterministic_algorithms(shared.before[0], warn_only=shared.before[1])
                torch.backends.cudnn.benchmark = shared.before[2]


def restore_generator(generator: torch.Generator, state: torch.Tensor) -> None:
    """Give a generator its state back; where that is of another kind of device, a seed that follows from it.

    Raises RuntimeError or TypeError for what is no state.
    """
    if state.numel() == generator.get_state().numel():
        generator.set_state(state)
    else:
        generator.manual_seed(int.from_bytes(hashlib.blake2b(state.numpy().tobytes(), digest_size=7).digest(), "big"))


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

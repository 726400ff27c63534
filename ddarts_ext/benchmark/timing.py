"""Time and memory of benchmarks: steps timed in turn, the bandwidth of a copy, the peak of a process."""

from __future__ import annotations

import gc
import math
import resource
import statistics
import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from pathlib import Path

import torch

from ddarts_ext.benchmark.kernels import tf32

TURN = 20.0  # ms


def check_seconds(command: str, seconds: float) -> None:
    """ValueError unless it is a time to measure for."""
    if not 0 < seconds < math.inf:
        raise ValueError(f"{command}: seconds must be above 0 and finite, got {seconds:g}")


def interleave(
    steps: Mapping[str, Callable[[], None]],
    device: str,
    seconds: float,
    *,
    warmup: int = 2,
    least: int = 5,
    lead: int = 0,
) -> dict[str, list[float]]:
    """Milliseconds of each step, taken in turn, in alternating order, until the time is spent (``least`` rounds).

    A turn is one step, or as many as fill ``TURN`` ms, so that short steps are timed among their like and not on the
    caches that a long one left. ``lead`` steps begin a turn untimed: a step that fills a turn by itself, as one of a
    whole network does, is then timed after its like too, with the caches and the heap that it finds in a training
    loop. As in ``timeit``, garbage is collected between turns and not within.
    """
    repeats = {}
    for name, step in steps.items():
        for _ in range(warmup):
            _milliseconds(step, 1, device)
        repeats[name] = max(1, min(50, int(TURN / max(_milliseconds(step, 1, device), 1e-3))))
    times: dict[str, list[float]] = {name: [] for name in steps}
    end = time.perf_counter() + seconds
    names = list(steps)
    collecting = gc.isenabled()
    gc.freeze()
    gc.disable()
    try:
        while time.perf_counter() < end or len(times[names[0]]) < least:
            for name in names:
                for _ in range(lead):
                    _milliseconds(steps[name], 1, device)
                times[name].append(_milliseconds(steps[name], repeats[name], device))
                gc.collect()
            names.reverse()
    finally:
        gc.unfreeze()
        if collecting:
            gc.enable()
    return times


def _milliseconds(step: Callable[[], object], repeats: int, device: str) -> float:
    if device == "cpu":
        start = time.perf_counter()
        for _ in range(repeats):
            step()
        return (time.perf_counter() - start) * 1e3 / repeats
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
    torch.cuda.synchronize()
    begin.record()
    for _ in range(repeats):
        step()
    end.record()
    torch.cuda.synchronize()
    return float(begin.elapsed_time(end)) / repeats


def product_rate(device: str) -> float:
    """GFLOP/s of the library's product of large matrices in full float32, on all threads that torch has."""
    size = 1024 if device == "cpu" else 8192
    left = torch.ones((size, size), device=device)
    out = torch.empty_like(left)
    with tf32(False) if device != "cpu" else nullcontext():
        times = [_milliseconds(lambda: torch.mm(left, left, out=out), 1, device) for _ in range(9)]
    return 2 * size**3 / statistics.median(times[2:]) / 1e6


def peak_resident_bytes() -> int:
    """The largest resident size this process has had. getrusage would count that of the process it was forked from."""
    status = Path("/proc/self/status")
    if status.exists():
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def copy_bandwidth(device: str) -> float:
    """GB/s (read plus written) of a copy far larger than the caches."""
    source = torch.ones((64 << 20 if device == "cpu" else 1 << 30) // 4, device=device)
    target = torch.empty_like(source)
    times = [_milliseconds(lambda: target.copy_(source), 1, device) for _ in range(9)]
    return 2 * source.nbytes / statistics.median(times[2:]) / 1e6

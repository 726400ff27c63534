"""Times of CUDA kernels by themselves: graphs that are replayed, and what the profiler saw on the device.

An op on a small map takes a few microseconds, less than the Python around it: events around a call would time Python.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch


@dataclass(frozen=True)
class Profile:
    """What ran on the device: how many kernels and copies, how long the device was busy, and both by name."""

    launches: int
    busy_ms: float
    by_name: Mapping[str, tuple[int, float]]

    def table(self, rows: int = 20) -> str:
        """The kernels that took longest, one line each: share, milliseconds, launches, name."""
        ranked = sorted(self.by_name.items(), key=lambda item: -item[1][1])
        total = sum(ms for _, ms in self.by_name.values()) or 1.0
        lines = [f"{'share':>6} {'ms':>9} {'launches':>8}  kernel"]
        lines += [f"{ms / total:6.1%} {ms:9.3f} {count:8}  {name[:90]}" for name, (count, ms) in ranked[:rows]]
        return "\n".join(lines)


@contextmanager
def tf32(allowed: bool) -> Iterator[None]:
    """Convolutions and products of float32 in TF32, or not: said explicitly either way, and set back at the end."""
    cudnn, products = torch.backends.cudnn, torch.backends.cuda.matmul
    before = cudnn.allow_tf32, products.allow_tf32
    cudnn.allow_tf32 = products.allow_tf32 = allowed
    try:
        yield
    finally:
        cudnn.allow_tf32, products.allow_tf32 = before


def captured(runs: Sequence[Callable[[], object]]) -> torch.cuda.CUDAGraph | None:
    """One CUDA graph of all runs, one after the other; None where one of them cannot be captured."""
    stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for run in [*runs[:1], *runs]:  # the library chooses its algorithms, and compiled code compiles
            run()
    torch.cuda.current_stream().wait_stream(stream)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    try:
        with torch.cuda.graph(graph):
            for run in runs:
                run()
    except RuntimeError:
        torch.cuda.synchronize()  # raises what a capture cannot be blamed for
        return None
    graph.replay()
    torch.cuda.synchronize()
    return graph


def profiled(step: Callable[[], object]) -> Profile:
    """One step under the profiler."""
    from torch.profiler import ProfilerActivity, profile

    torch.cuda.synchronize()
    with profile(activities=[ProfilerActivity.CUDA]) as profiler:
        step()
        torch.cuda.synchronize()
    return on_device(profiler.events() or ())


def on_device(events: Iterable[Any]) -> Profile:
    """The events that ran on the device; time in which several ran at once is counted once."""
    spans: list[tuple[float, float]] = []
    by_name: dict[str, tuple[int, float]] = {}
    for event in events:
        if "CUDA" not in str(event.device_type) or getattr(event, "is_user_annotation", False):
            continue
        begin, end = float(event.time_range.start), float(event.time_range.end)
        spans.append((begin, end))
        count, milliseconds = by_name.get(event.name, (0, 0.0))
        by_name[event.name] = count + 1, milliseconds + (end - begin) / 1e3
    busy, reached = 0.0, float("-inf")
    for begin, end in sorted(spans):
        busy += max(0.0, end - max(begin, reached))
        reached = max(reached, end)
    return Profile(len(spans), busy / 1e3, by_name)


def sound() -> bool:
    """Whether the device still answers: after an illegal access nothing does."""
    try:
        torch.cuda.synchronize()
    except RuntimeError:
        return False
    return True

"""``ddarts_ext.accelerate`` on other people's code: training steps before and after, and the call itself.

The DARTS supernet of ``eager_supernet.py`` (8 cells, C=16), then what ``eager_conventions.py`` holds. Outputs and
gradients of both are compared first. These are the figures of ``docs/drop-in.md``.
"""

from __future__ import annotations

import copy
import statistics
import time
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ddarts_ext import accelerate
from ddarts_ext.acceleration.bench_module import Workload, rows_of
from ddarts_ext.acceleration.gain import LEAST
from ddarts_ext.benchmark import Row, batches, neighbour

TARGETS = {"": {"eager": 6.0}, " channels-last": {"eager channels-last": 3.0}}  # on a CPU
CONVENTION_TARGETS = {"": {"eager": 1.5}}  # where anything is replaced at all
DENSE_TARGETS = {"": {"eager": LEAST}}  # most of the time goes into a dense convolution an edge, before and after
DENSE = ("NAS-Bench-201 cell, GDAS",)
START_UP = 2000.0  # ms
CALLS = 3


def inputs(size: int, device: str) -> tuple[Tensor, Tensor]:
    """Images and the weights [cells, edges, ops] of all ops."""
    generator = torch.Generator().manual_seed(1)
    images = torch.randn(size, 3, 32, 32, generator=generator)
    return images.to(device), torch.randn(8, 14, 7, generator=generator).sigmoid().to(device)


def measure(device: str, *, seconds: float = 1.0, **_: object) -> list[Row]:
    """Rows of both layouts, before and after, and of the call of ``accelerate``."""
    torch.manual_seed(0)
    before: nn.Module = neighbour(__file__, "eager_supernet").EagerSupernet().to(device)
    accelerate(neighbour(__file__, "eager_supernet").EagerSupernet(cells=1).to(device))  # loads what torch loads late
    rows = [*start_up(before, None), *start_up(before, inputs(batches(device)[0], device))]
    after = copy.deepcopy(before)
    accelerate(after, strict=True)
    for size in batches(device):
        workload = Workload("accelerate", f"DARTS 8 cells C=16 [{size},3,32,32]", before, after, inputs(size, device))
        rows += rows_of(workload, device, seconds, TARGETS if device == "cpu" else {}, steps=("training step",))
    for name, make in neighbour(__file__, "eager_conventions").CONVENTIONS.items():
        model, arguments = make()
        rows += convention(name, model.to(device), [argument.to(device) for argument in arguments], device, seconds)
    return rows


def start_up(model: nn.Module, example: Sequence[Tensor] | None) -> list[Row]:
    """The time of a call of ``accelerate``, by the clock and of all threads."""
    timers = {"the call itself": time.perf_counter, "the call itself, CPU time": time.process_time}
    times: dict[str, list[float]] = {name: [] for name in timers}
    for _ in range(CALLS):
        fresh = copy.deepcopy(model)
        starts = {name: timer() for name, timer in timers.items()}
        accelerate(fresh, None if example is None else tuple(example))
        for name, timer in timers.items():
            times[name].append(1e3 * (timer() - starts[name]))
    case = "DARTS 8 cells C=16 " + ("without example" if example is None else "with example")
    rows = []
    for name, found in times.items():
        median, bounds = statistics.median(found), (min(found), max(found))
        speedup, required = {"2 s": START_UP / median}, {"2 s": 1.0}
        rows.append(Row("accelerate", case, name, median, bounds, CALLS, None, None, speedup, required))
    return rows


def convention(name: str, model: nn.Module, arguments: list[Tensor], device: str, seconds: float) -> list[Row]:
    """Rows of one model; one that is left alone is timed all the same, and its name says so."""
    after = copy.deepcopy(model)
    report = accelerate(after, tuple(arguments))
    case = name if report else f"{name} ({'; '.join(entry.reason for entry in report.left)})"
    reached = DENSE_TARGETS if name in DENSE else CONVENTION_TARGETS
    targets = reached if device == "cpu" and report else {}
    workload = Workload("accelerate", case, model, after, arguments)
    return rows_of(workload, device, seconds, targets, steps=("training step",))

"""One case measured: every candidate proved equal, then timed. A candidate that fails takes no other with it."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch

from ddarts_ext.benchmark.case import LAYOUTS, ROTATED_BYTES, Case, exact_results, place, prove, runner, tensors
from ddarts_ext.benchmark.kernels import captured, profiled, tf32
from ddarts_ext.benchmark.report import Failure, Row
from ddarts_ext.benchmark.timing import copy_bandwidth, interleave, product_rate


@dataclass(frozen=True)
class Candidate:
    """One implementation in one layout; on a GPU also in TF32. compiled: whether torch.compile is part of it."""

    name: str
    function: Callable[..., Any]
    layout: torch.memory_format
    in_tf32: bool = False


@dataclass(frozen=True)
class Times:
    """Milliseconds of one call, how they were taken, and on a GPU the launches of a call."""

    milliseconds: Sequence[float]
    timer: str
    launches: int | None = None


def candidates(case: Case, device: str, compiled: bool) -> Iterator[Candidate]:
    """What is compared and timed, by name; TF32 where the case runs convolutions or products."""
    functions = {"eager": case.reference, "kernel": case.kernel}
    if compiled:
        functions["compiled"] = torch.compile(case.reference, dynamic=False)
    both = (False, True) if device != "cpu" and case.library else (False,)
    for in_tf32 in both:
        for name, function in functions.items():
            for suffix, layout in LAYOUTS.items():
                yield Candidate(name + suffix + (" tf32" if in_tf32 else ""), function, layout, in_tf32)


def measure(
    case: Case,
    device: str = "cpu",
    *,
    seconds: float = 1.0,
    compiled: bool = False,
    copy: float | None = None,
    products: float | None = None,
    failures: list[Failure] | None = None,
) -> list[Row]:
    """Compares, then times all candidates of ``case`` for about ``seconds`` seconds.

    On a CPU they take turns; on a GPU each is timed alone, as a CUDA graph over rotating inputs. compiled: also times
    ``torch.compile`` of the reference. copy: GB/s of a large copy; products: GFLOP/s of a large product
    (default: measured here). failures: candidates that fail are appended to it and left out; without it the first
    failure is raised.
    """
    copy = copy_bandwidth(device) if copy is None else copy
    products = product_rate(device) if products is None and case.flops else products
    first = case.inputs()
    with tf32(False) if device != "cpu" else nullcontext():
        expected = exact_results(case, first, device)
    times: dict[str, Times] = {}
    steps: dict[str, Callable[[], None]] = {}
    for candidate in candidates(case, device, compiled):
        try:
            with tf32(candidate.in_tf32) if device != "cpu" else nullcontext():
                inputs = place(first, device, candidate.layout)
                found = runner(candidate.function, inputs, case.backward)()
                prove(case, candidate.name, found, expected, in_tf32=candidate.in_tf32)
                del found
                if device == "cpu":
                    steps[candidate.name] = _step(runner(candidate.function, inputs, case.backward))
                else:
                    times[candidate.name] = _on_gpu(case, candidate, inputs, device, seconds)
        except Exception as error:
            if failures is None:
                raise
            failures.append(Failure(case.op, case.name, candidate.name, one_line(error)))
    if steps:
        taken = interleave(steps, device, seconds)
        times |= {name: Times(values, "clock") for name, values in taken.items()}
    return _rows(case, times, copy, products)


def one_line(error: BaseException) -> str:
    """What an error says, on one line."""
    words = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {words[0]}"[:400]


def _step(run: Callable[[], object]) -> Callable[[], None]:
    def step() -> None:
        run()

    return step


def _on_gpu(case: Case, candidate: Candidate, inputs: Sequence[Any], device: str, seconds: float) -> Times:
    """Rotating over more bytes of inputs than the last-level cache holds: one graph replayed, else the profiler."""
    size = sum(tensor.nbytes for tensor in tensors(inputs))
    buffers = [inputs] + [
        place(inputs, device, candidate.layout) for _ in range(min(64, ROTATED_BYTES // max(size, 1)))
    ]
    runs = [runner(candidate.function, buffer, case.backward) for buffer in buffers]
    graph = captured(runs)
    launches = profiled(runs[0]).launches
    if graph is not None:
        taken = interleave({"": graph.replay}, device, seconds / 4)[""]
        return Times([value / len(runs) for value in taken], "graph", launches)
    return Times([profiled(run).busy_ms for run in (runs * 5)[: max(5, min(20, len(runs)))]], "profiler", launches)


def _rows(case: Case, times: Mapping[str, Times], copy: float, products: float | None) -> list[Row]:
    medians = {name: statistics.median(each.milliseconds) for name, each in times.items()}
    rows = []
    for name, each in times.items():
        values = each.milliseconds
        bandwidth = case.bytes / medians[name] / 1e6 if name.startswith("kernel") else None
        counted = bandwidth is not None and products is not None and case.flops > 0
        roof = max(case.bytes / copy, case.flops / products) / 1e6 if counted and products else None
        speedup = {other: medians[other] / medians[name] for other in medians if not other.startswith("kernel")}
        required = {
            key.split(" / ")[0]: least
            for key, least in case.targets.items()
            if name == (key.split(" / ")[1] if " / " in key else "kernel channels-last")
        }
        low, high = statistics.quantiles(values, n=4)[::2] if len(values) > 1 else (values[0], values[0])
        rows.append(
            Row(
                case.op, case.name, name, medians[name], (low, high), len(values), bandwidth,
                bandwidth / copy if bandwidth is not None else None, speedup, required,
                launches=each.launches, timer=each.timer,
                share_of_roof=None if roof is None else roof / medians[name],
            )
        )  # fmt: skip
    return rows

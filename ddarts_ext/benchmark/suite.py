"""Benchmarks of the ops: equality first, then eager, compiled reference and kernel timed in turn in one run.

The cases live in ``benchmarks/bench_<op>.py`` (one ``cases(device)`` function a file, plain data); this module proves
that the implementations of a case agree, times them interleaved and tabulates. ``ddarts bench`` and
``pytest benchmarks/`` both end here. How to write a case: ``benchmarks/README.md``.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from ddarts_ext.benchmark.case import LAYOUTS, ROTATED_BYTES, Case, compare, place, runner, tensors
from ddarts_ext.benchmark.files import load_file
from ddarts_ext.benchmark.report import Report, Row, device_stamp, table
from ddarts_ext.benchmark.timing import copy_bandwidth, interleave


def measure(
    case: Case, device: str = "cpu", *, seconds: float = 1.0, compiled: bool = False, copy: float | None = None
) -> list[Row]:
    """Compares, then times all candidates of ``case`` in turn for about ``seconds`` seconds.

    compiled: also times ``torch.compile`` of the reference. copy: GB/s of a large copy (default: measured here).
    """
    copy = copy_bandwidth(device) if copy is None else copy
    functions = {"eager": case.reference, "kernel": case.kernel}
    if compiled:
        functions["compiled"] = torch.compile(case.reference, dynamic=False)
    first = case.inputs()
    candidates = {
        name + suffix: (function, place(first, device, layout))
        for name, function in functions.items()
        for suffix, layout in LAYOUTS.items()
    }
    compare(case, candidates, device)
    steps = {name: _rotating(case, name, pair, device) for name, pair in candidates.items()}
    times = interleave(steps, device, seconds)
    medians = {name: statistics.median(values) for name, values in times.items()}
    rows = []
    for name, values in times.items():
        own = name.startswith("kernel")
        bandwidth = case.bytes / medians[name] / 1e6 if own else None
        speedup = {other: medians[other] / medians[name] for other in medians if not other.startswith("kernel")}
        required = {
            key.split(" / ")[0]: least
            for key, least in case.targets.items()
            if name == (key.split(" / ")[1] if " / " in key else "kernel channels-last")
        }
        low, high = statistics.quantiles(values, n=4)[::2] if len(values) > 1 else (values[0], values[0])
        share = bandwidth / copy if bandwidth is not None else None
        rows.append(
            Row(case.op, case.name, name, medians[name], (low, high), len(values), bandwidth, share, speedup, required)
        )
    return rows


def _rotating(
    case: Case, name: str, candidate: tuple[Callable[..., Any], list[Any]], device: str
) -> Callable[[], None]:
    """A step over rotating input buffers: one on a CPU, more bytes than the last-level cache on a GPU."""
    function, inputs = candidate
    buffers = [inputs]
    if device != "cpu":
        size = sum(tensor.nbytes for tensor in tensors(inputs))
        layout = LAYOUTS[" channels-last" if name.endswith("channels-last") else ""]
        buffers += [place(case.inputs(), device, layout) for _ in range(min(64, ROTATED_BYTES // max(size, 1)))]
    runs = [runner(function, buffer, case.backward) for buffer in buffers]
    position = 0

    def step() -> None:
        nonlocal position
        runs[position]()
        position = (position + 1) % len(runs)

    return step


def bench_folder(folder: Path | None = None) -> Path:
    """Where the ``bench_*.py`` files are: ``folder``, else beside the package in a checkout, else inside it."""
    package = Path(__file__).resolve().parents[1]
    places = [folder] if folder is not None else [package.parent / "benchmarks", package / "_benchmarks"]
    for place_ in places:
        if any(place_.glob("bench_*.py")):
            return place_
    raise ValueError(f"bench: folder must hold bench_*.py files, got {', '.join(map(str, places))}")


def load_modules(ops: Sequence[str] | None = None, folder: Path | None = None) -> list[ModuleType]:
    """The ``bench_*.py`` files, or those named ``bench_<op>.py`` for one of ``ops``.

    Each defines ``cases(device)``, or for what is no single op ``measure(device, seconds=, compiled=, copy=)``.
    """
    files = {path.stem.removeprefix("bench_"): path for path in sorted(bench_folder(folder).glob("bench_*.py"))}
    unknown = [op for op in ops or () if op not in files]
    if unknown:
        raise ValueError(f"bench: op must be one of {', '.join(files)}, got {', '.join(unknown)}")
    return [load_file(path) for name, path in files.items() if ops is None or name in ops]


def load_cases(device: str, ops: Sequence[str] | None = None, folder: Path | None = None) -> Iterator[Case]:
    """The cases of all bench files that define ``cases(device)``; only those of ``ops`` where given."""
    for module in load_modules(ops, folder):
        if hasattr(module, "cases"):
            yield from module.cases(device)


def _all_rows(modules: Sequence[ModuleType], device: str, **options: Any) -> Iterator[list[Row]]:
    for module in modules:
        if hasattr(module, "measure"):
            yield module.measure(device, **options)
        for case in module.cases(device) if hasattr(module, "cases") else ():
            yield measure(case, device, **options)


def run(
    ops: Sequence[str] | None = None,
    *,
    device: str = "cpu",
    threads: int | None = None,
    seconds: float = 1.0,
    compiled: bool = False,
    output: Path | None = None,
    folder: Path | None = None,
    show: Callable[[Any], None] | None = None,
) -> Report:
    """What ``ddarts bench`` does: all cases of ``ops`` (default: all), a table through ``show``, JSON to ``output``."""
    if device != "cpu" and not torch.cuda.is_available():
        raise ValueError(f"bench: device must be cpu where torch sees no GPU, got {device}")
    if threads is not None:
        torch.set_num_threads(threads)
    copy = copy_bandwidth(device)
    rows: list[Row] = []
    for measured in _all_rows(load_modules(ops, folder), device, seconds=seconds, compiled=compiled, copy=copy):
        rows += measured
        if output is not None:
            Report(device_stamp(device), copy, rows).write(output)
    report = Report(device_stamp(device), copy, rows)
    if show is not None:
        show(table(rows, f"{report.stamp.get('gpu', report.stamp['cpu'])}, large copy {copy:.1f} GB/s"))
    return report

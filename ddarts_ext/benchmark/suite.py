"""All benchmarks in one run: the files, their cases one by one, what failed, the report.

The cases live in ``benchmarks/bench_<op>.py`` (one ``cases(device)`` function a file, plain data). ``ddarts bench`` and
``pytest benchmarks/`` both end here. How to write a case: ``benchmarks/README.md``.
"""

from __future__ import annotations

import functools
import itertools
import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from ddarts_ext.benchmark.case import Case
from ddarts_ext.benchmark.files import load_file
from ddarts_ext.benchmark.kernels import sound, tf32
from ddarts_ext.benchmark.measurement import measure, one_line
from ddarts_ext.benchmark.report import Failure, Report, Row, device_stamp, table
from ddarts_ext.benchmark.timing import check_seconds, copy_bandwidth, product_rate
from ddarts_ext.runs.device import set_threads
from ddarts_ext.runs.files import check_target


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
    return [load_file(path) for path in _files(ops, folder).values()]


def _files(ops: Sequence[str] | None, folder: Path | None) -> dict[str, Path]:
    """The files by name. Raises ValueError for an op that has none."""
    files = {path.stem.removeprefix("bench_"): path for path in sorted(bench_folder(folder).glob("bench_*.py"))}
    unknown = [op for op in ops or () if op not in files]
    if unknown:
        raise ValueError(f"bench: op must be one of {', '.join(files)}, got {', '.join(unknown)}")
    return {name: path for name, path in files.items() if ops is None or name in ops}


def load_cases(device: str, ops: Sequence[str] | None = None, folder: Path | None = None) -> Iterator[Case]:
    """The cases of all bench files that define ``cases(device)``; only those of ``ops`` where given."""
    for module in load_modules(ops, folder):
        if hasattr(module, "cases"):
            yield from module.cases(device)


@dataclass(frozen=True)
class _Work:
    """One case, or one file that measures by itself: what it is called and what gives its rows."""

    op: str
    case: str
    rows: Callable[..., Iterable[Row]]


def _works(op: str, path: Path, device: str, products: float, failures: list[Failure]) -> list[_Work]:
    """What is to be measured in one file; a file that does not load is a failure."""
    found: list[_Work] = []
    try:
        module = load_file(path)
        if hasattr(module, "measure"):
            found.append(_Work(op, "", functools.partial(_whole, op, module, device)))
        for case in module.cases(device) if hasattr(module, "cases") else ():
            found.append(_Work(case.op, case.name, functools.partial(measure, case, device, products=products)))
    except Exception as error:
        failures.append(Failure(op, "", "", one_line(error)))
    return found


def _whole(op: str, module: ModuleType, device: str, *, failures: list[Failure], **options: Any) -> Iterator[Row]:
    """The rows of a file that measures by itself, in full float32; it may give them one by one."""
    with tf32(False) if device != "cpu" else nullcontext():
        try:
            yield from module.measure(device, **options)
        except Exception as error:
            failures.append(Failure(op, "", "", one_line(error)))


def _in_rounds(lists: Sequence[Sequence[_Work]]) -> Iterator[_Work]:
    """The first of every file, then the second of every file: where time is short, every op has been measured."""
    for several in itertools.zip_longest(*lists):
        yield from (work for work in several if work is not None)


def run(
    ops: Sequence[str] | None = None,
    *,
    device: str = "cpu",
    threads: int | None = None,
    seconds: float = 1.0,
    compiled: str | None = None,
    limit: float | None = None,
    output: Path | None = None,
    folder: Path | None = None,
    show: Callable[[Any], None] | None = None,
) -> Report:
    """What ``ddarts bench`` does: all cases of ``ops`` (default: all), a table through ``show``, JSON to ``output``.

    compiled: also times ``torch.compile`` in cases that have this in their name, or in ``"all"``. limit: seconds after
    which no case is begun; the files then take turns. What fails stands in the report and ends nothing else. ValueError
    where the device is not there, an op has no benchmark, or nothing can be written to ``output``.
    """
    check_seconds("bench", seconds)
    if limit is not None and not 0 <= limit < math.inf:
        raise ValueError(f"bench: limit must be 0 or more seconds and finite, got {limit:g}")
    if output is not None:
        check_target("bench: output", output)
    if device != "cpu" and not torch.cuda.is_available():
        raise ValueError(f"bench: device must be cpu where torch sees no GPU, got {device}")
    if threads is not None:
        set_threads(threads, "bench")
    begun = time.perf_counter()
    copy, stamp = copy_bandwidth(device), device_stamp(device)
    products = product_rate(device)
    rows: list[Row] = []
    failures: list[Failure] = []
    left_out: list[str] = []
    lists = [_works(op, path, device, products, failures) for op, path in _files(ops, folder).items()]
    for work in itertools.chain(*lists) if limit is None else _in_rounds(lists):
        if limit is not None and time.perf_counter() - begun > limit:
            left_out.append(f"{work.op} {work.case}".strip())
            continue
        wanted = compiled is not None and (compiled == "all" or compiled in f"{work.op} {work.case}")
        try:
            for row in work.rows(seconds=seconds, compiled=wanted, copy=copy, failures=failures):
                rows.append(row)
                if output is not None:  # as soon as it is known
                    Report(stamp, copy, rows, failures, left_out, products).write(output)
        except Exception as error:
            failures.append(Failure(work.op, work.case, "", one_line(error)))
        if device != "cpu" and not sound():
            failures.append(
                Failure(work.op, work.case, "", "the GPU no longer answers: nothing after this was measured")
            )
            break
    report = Report(stamp, copy, rows, failures, left_out, products)
    if output is not None:
        report.write(output)
    if show is not None:
        show(
            table(
                rows,
                f"{stamp.get('gpu', stamp['cpu'])}, large copy {copy:.1f} GB/s, large product {products:.0f} GFLOP/s",
            )
        )
        for failure in failures:
            show(f"failed: {failure}")
        if left_out:
            show(f"left out, as {limit:g} s were over: {len(left_out)} cases")
    return report

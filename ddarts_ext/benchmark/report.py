"""What a benchmark run reports: rows, the device they were measured on, JSON and a table."""

from __future__ import annotations

import itertools
import json
import os
import platform
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from ddarts_ext.runs.files import write_whole


@dataclass(frozen=True)
class Failure:
    """What could not be measured: a candidate of a case, or with ``candidate=""`` the case or the whole file."""

    op: str
    case: str
    candidate: str
    error: str

    def __str__(self) -> str:
        return f"{' '.join(filter(None, (self.op, self.case, self.candidate)))}: {self.error}"


@dataclass(frozen=True)
class Row:
    """What was measured for one implementation of one case; times in milliseconds.

    timer: ``clock`` (the host's), ``graph`` (a CUDA graph replayed) or ``profiler`` (kernels alone). share_of_roof:
    the least time that bytes at the speed of a large copy and operations at that of a large product take, over the
    median. launches: kernels
    and copies on the GPU. idle_share: of the time, what the GPU waited for the host. images: how many one call takes.
    """

    op: str
    case: str
    candidate: str
    median_ms: float
    quartiles_ms: tuple[float, float]
    rounds: int
    gigabytes_per_second: float | None
    share_of_copy: float | None
    speedup: Mapping[str, float]
    required: Mapping[str, float]
    peak_bytes: int | None = None
    launches: int | None = None
    idle_share: float | None = None
    timer: str = "clock"
    images: int | None = None
    share_of_roof: float | None = None

    @property
    def met(self) -> bool:
        return all(self.speedup.get(name, 0.0) >= least for name, least in self.required.items())


@dataclass(frozen=True)
class Report:
    stamp: Mapping[str, Any]
    copy_gigabytes_per_second: float
    rows: Sequence[Row]
    failures: Sequence[Failure] = ()
    left_out: Sequence[str] = ()
    product_gigaflops: float | None = None

    def write(self, path: Path) -> None:
        """JSON: stamp, bandwidth of the large copy, rows, failures, what there was no time for."""
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, (json.dumps(asdict(self), indent=1) + "\n").encode())


def device_stamp(device: str) -> dict[str, Any]:
    """What the numbers were measured on."""
    stamp: dict[str, Any] = {
        "device": device,
        "cpu": _cpu_model(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "date": time.strftime("%Y-%m-%d %H:%M:%S%z"),
    }
    if device.startswith("cuda"):
        properties = torch.cuda.get_device_properties(device)
        stamp |= {
            "gpu": properties.name,
            "capability": f"{properties.major}.{properties.minor}",
            "gpu_memory": properties.total_memory,
            "cuda": torch.version.cuda,
            "tf32": "off, and on in the rows that say so",
        }
    return stamp


def _cpu_model() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def table(rows: Iterable[Row], title: str = "") -> Any:
    """What a report looks like in 80 columns: a table for every case, and columns only for what was measured."""
    from rich.console import Group
    from rich.text import Text

    parts: list[Any] = [Text(title, style="bold")] if title else []
    for (op, case), members in itertools.groupby(rows, key=lambda row: (row.op, row.case)):
        several = list(members)
        parts += [Text(f"\n{op} {case}", style="bold"), _table_of(several)]
        for row in several:
            for name, least in row.required.items():
                found = f"{row.speedup[name]:.2f}x" if name in row.speedup else "nothing"
                verdict = "met" if row.speedup.get(name, 0.0) >= least else "missed"
                parts.append(Text(f"{row.candidate}: {least:g}x {name} is required: {verdict}, {found}"))
    return Group(*parts)


def _table_of(rows: Sequence[Row]) -> Any:
    """One case: a line a candidate, its speed-ups over eager last. copy, roof: GB/s and time against what is there."""
    from rich.table import Table

    columns: dict[str, Callable[[Row], str]] = {
        "candidate": lambda row: row.candidate.replace("channels-last", "c-last"),
        "ms": lambda row: f"{row.median_ms:.3f}" if row.median_ms < 1e4 else f"{row.median_ms:.0f}",
        "GB/s": lambda row: "" if row.gigabytes_per_second is None else f"{row.gigabytes_per_second:.1f}",
        "copy": lambda row: "" if row.share_of_copy is None else f"{row.share_of_copy:.0%}",
        "roof": lambda row: "" if row.share_of_roof is None else f"{row.share_of_roof:.0%}",
        "MiB": lambda row: "" if row.peak_bytes is None else f"{row.peak_bytes / 2**20:.0f}",
        "launches": lambda row: "" if row.launches is None else str(row.launches),
        "images/s": lambda row: "" if row.images is None else f"{row.images / row.median_ms * 1e3:.0f}",
        "idle": lambda row: "" if row.idle_share is None else f"{row.idle_share:.0%}",
    }
    names = [row.candidate for row in rows]
    compared = [name for name in ("eager", "eager channels-last") if name in names]
    for name in compared or [name for name in names if name in rows[0].speedup][:2]:
        columns[f"x {name.replace('eager channels-last', 'c-last')}"] = lambda row, name=name: (  # type: ignore[misc]
            f"{row.speedup[name]:.2f}x" if name in row.speedup else ""
        )
    cells = {head: [cell(row) for row in rows] for head, cell in columns.items()}
    shown = [head for head, column in cells.items() if any(column)]
    result = Table(box=None, padding=(0, 1, 0, 0), show_edge=False)
    for head in shown:
        result.add_column(head, justify="left" if head == "candidate" else "right", overflow="fold")
    for line in zip(*(cells[head] for head in shown), strict=True):
        result.add_row(*line)
    return result

"""What a benchmark run reports: rows, the device they were measured on, JSON and a table."""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch


@dataclass(frozen=True)
class Row:
    """What was measured for one implementation of one case; times in milliseconds."""

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

    @property
    def met(self) -> bool:
        return all(self.speedup[name] >= least for name, least in self.required.items())


@dataclass(frozen=True)
class Report:
    stamp: Mapping[str, Any]
    copy_gigabytes_per_second: float
    rows: Sequence[Row]

    def write(self, path: Path) -> None:
        """JSON: stamp, bandwidth of the large copy, rows."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(asdict(self), indent=1) + "\n")


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
    """A rich table, one line a candidate."""
    from rich.table import Table

    heads = ("op", "case", "candidate", "ms", "GB/s", "of copy", "vs eager", "vs channels-last", "MiB", "required")
    result = Table(*heads, title=title)
    for row in rows:
        required = ", ".join(f"{least:g}x {name}" for name, least in row.required.items())
        result.add_row(
            row.op,
            row.case,
            row.candidate,
            f"{row.median_ms:.3f}",
            "" if row.gigabytes_per_second is None else f"{row.gigabytes_per_second:.1f}",
            "" if row.share_of_copy is None else f"{row.share_of_copy:.0%}",
            f"{row.speedup['eager']:.2f}x",
            f"{row.speedup['eager channels-last']:.2f}x",
            "" if row.peak_bytes is None else f"{row.peak_bytes / 2**20:.0f}",
            required and f"{required}: {'met' if row.met else 'missed'}",
        )
    return result

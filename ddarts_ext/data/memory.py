"""How much memory is free, and how a number of bytes is written."""

from __future__ import annotations

import os
from pathlib import Path

import torch

_CGROUP = Path("/sys/fs/cgroup")
_UNLIMITED = 2**63


def available_bytes(device: torch.device | None = None) -> int:
    """Bytes that can still be allocated on ``device``, by default the CPU; a container's limit counts."""
    if device is not None and device.type == "cuda":
        free = int(torch.cuda.mem_get_info(device)[0])
        # What torch holds and does not use is free for it.
        return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return min(_of_system(), _of_group())


def readable(count: int) -> str:
    """``1.5 GiB``; below a GiB whole MiB."""
    return f"{count / 2**30:.1f} GiB" if count >= 2**30 else f"{-(-count // 2**20)} MiB"


def _of_system() -> int:
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _of_group() -> int:
    """What the control group still allows; memory of its file cache would be given back."""
    names = (
        ("memory.max", "memory.current", "memory.stat", "inactive_file"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "memory/memory.stat", "total_inactive_file"),
    )
    for limit_file, used_file, statistics_file, cached in names:
        try:
            limit = (_CGROUP / limit_file).read_text().strip()
            used = int((_CGROUP / used_file).read_text())
            statistics = dict(line.split() for line in (_CGROUP / statistics_file).read_text().splitlines())
        except (OSError, ValueError):
            continue
        return _UNLIMITED if limit == "max" else max(0, int(limit) - used + int(statistics.get(cached, 0)))
    return _UNLIMITED

"""What ``ddarts info`` prints: what was built for what, and which implementation each op runs where."""

from __future__ import annotations

import importlib.metadata
import platform
from typing import Any

import torch
from rich.console import Group, RenderableType
from rich.table import Table

from ddarts_ext import _extension
from ddarts_ext.ops._library import defined_ops


def collect() -> dict[str, Any]:
    """Everything as plain data.

    ``ops[name][device]`` is ``{"runs": "kernel" | "reference", "why_not": str}``.
    """
    status = _extension.load()
    devices = range(torch.cuda.device_count()) if torch.cuda.is_available() else range(0)
    return {
        "version": version(),
        "python": platform.python_version(),
        "torch": {
            "version": torch.__version__,
            "cuda": torch.version.cuda,
            "devices": [
                {
                    "name": torch.cuda.get_device_name(i),
                    "capability": "{}.{}".format(*torch.cuda.get_device_capability(i)),
                }
                for i in devices
            ],
            "threads": torch.get_num_threads(),
        },
        "built": dict(status.record) or None,
        "cpu_capability": status.cpu_capability or None,
        "ops": {op: {device: _implementation(op, device) for device in ("cpu", "cuda")} for op in defined_ops()},
    }


def render(info: dict[str, Any]) -> RenderableType:
    """The same for people: a table of facts and a table of ops, with the reasons below."""
    facts = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    found, built = info["torch"], info["built"]
    devices = ", ".join(f"{device['name']} ({device['capability']})" for device in found["devices"]) or "no CUDA device"
    facts.add_row("ddarts_ext", info["version"])
    facts.add_row("Python", info["python"])
    facts.add_row("torch", f"{found['version']}, CUDA {found['cuda'] or 'none'}, {devices}, {found['threads']} threads")
    facts.add_row("built for", _built(built) if built else "nothing compiled is in use")
    if info["cpu_capability"]:
        facts.add_row("CPU kernels", info["cpu_capability"])
    table = Table("op", "cpu", "cuda")
    reasons: dict[str, None] = {}  # in order, each once
    for op, implementations in info["ops"].items():
        table.add_row(op, *(implementations[device]["runs"] for device in ("cpu", "cuda")))
        for device, implementation in implementations.items():
            if implementation["why_not"]:
                reasons[f"{implementation['runs']} on {device}: {implementation['why_not']}"] = None
    return Group(facts, table, *reasons)


def _implementation(op: str, device: str) -> dict[str, str]:
    reason = _extension.why_not(op, device)
    return {"runs": "reference" if reason else "kernel", "why_not": reason}


def _built(built: dict[str, Any]) -> str:
    cuda = built["cuda"]
    kernels = f"CUDA {cuda['toolkit']} for {cuda['architectures']}" if cuda else f"no CUDA ({built['cuda_reason']})"
    return f"torch {built['torch']}, Python {built['python']}, {'/'.join(built['capabilities'])}, {kernels}"


def version() -> str:
    """The version of the package, as it was installed."""
    try:
        return importlib.metadata.version("ddarts_ext")
    except importlib.metadata.PackageNotFoundError:
        return "not installed"

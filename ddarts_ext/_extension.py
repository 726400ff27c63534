"""Finds the compiled libraries, checks what they were built for, and says why when one is not used.

``_C`` (a Python module) holds the CPU kernels, ``_cuda`` (a plain shared library) the CUDA kernels; loading either
registers its kernels with the ops that Python defined. Without them every op runs its reference.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import json
import os
import sys
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlparse

import torch

from ddarts_ext.ops._library import defined_ops, has_kernel

OLDEST_TORCH = (2, 11)
CAPABILITIES = ("baseline", "avx2", "avx512")  # as csrc/common/cpu_capability.h has them
_FOLDER = Path(__file__).resolve().parent


@dataclass(frozen=True)
class Status:
    """What was loaded. A reason is empty where the library is in use, and a sentence where it is not."""

    cpu_reason: str
    cuda_reason: str
    cpu_capability: str = ""
    record: Mapping[str, Any] = field(default_factory=dict)


_status: Status | None = None


def load() -> Status:
    """Load what was compiled, once. Where something does not fit, one warning names the command that mends it."""
    global _status
    if _status is None:
        _status = _load()
    return _status


def why_not(op: str, device_type: str) -> str:
    """Why the op runs its reference on ``"cpu"`` or ``"cuda"``; the empty string where its compiled kernel runs."""
    if op not in defined_ops():
        raise ValueError(f"why_not: op must be one of {', '.join(defined_ops())}, got {op!r}")
    if device_type not in ("cpu", "cuda"):
        raise ValueError(f"why_not: device_type must be 'cpu' or 'cuda', got {device_type!r}")
    status = load()
    reason = status.cpu_reason if device_type == "cpu" else status.cuda_reason
    if not reason and not has_kernel(op, device_type):
        reason = f"the library was compiled without a {device_type} kernel for it"
    return reason or (_device_reason(status.record) if device_type == "cuda" else "")


def mending_command() -> str:
    """The command that builds the extension anew for the torch of this environment."""
    source = "."
    try:
        text = importlib.metadata.distribution("ddarts_ext").read_text("direct_url.json")
        url = urlparse(json.loads(text)["url"]) if text else None
        if url is not None and url.scheme == "file":
            source = unquote(url.path)
    except (importlib.metadata.PackageNotFoundError, KeyError, ValueError):
        pass
    return f"{sys.executable} -m pip install --force-reinstall --no-deps --no-build-isolation {source}"


def _load() -> Status:
    if os.environ.get("DDARTS_NO_EXTENSION", "") not in ("", "0"):
        return _nothing("DDARTS_NO_EXTENSION is set")
    if _compiled("_C") is None:
        return _nothing("the package was installed without compiled libraries")
    if _release(torch.__version__) < OLDEST_TORCH:
        reason = f"torch {torch.__version__} is older than {OLDEST_TORCH[0]}.{OLDEST_TORCH[1]}"
        return _mismatch(_nothing(reason))
    try:
        module = importlib.import_module("ddarts_ext._C")
    except ImportError as error:
        reason = f"the compiled library does not load: {str(error).splitlines()[0]}"
        return _mismatch(_nothing(reason))
    record = json.loads(module.build_info())
    status = Status("", _load_cuda(record), str(module.cpu_capability()), record)
    _check_wish(str(module.cpu_capability()))
    built_for_other_cuda = torch.version.cuda is not None and bool(status.cuda_reason)
    return _mismatch(status) if built_for_other_cuda and torch.cuda.is_available() else status


def _compiled(name: str) -> Path | None:
    """The library of this name that was built for this Python; those for others may lie beside it."""
    found = (_FOLDER / f"{name}{suffix}" for suffix in EXTENSION_SUFFIXES)
    return next((path for path in found if path.is_file()), None)


def _nothing(reason: str) -> Status:
    """Neither library is in use, for one reason."""
    return Status(cpu_reason=reason, cuda_reason=reason)


def _load_cuda(record: Mapping[str, Any]) -> str:
    """Load the CUDA library, or say why not."""
    library = _compiled("_cuda")
    if library is None or record["cuda"] is None:
        return f"the extension was built for torch {record['torch']} without CUDA kernels: {record['cuda_reason']}"
    toolkit = str(record["cuda"]["toolkit"])
    if torch.version.cuda is None:
        return "torch was built without CUDA"
    if toolkit.split(".")[0] != torch.version.cuda.split(".")[0]:
        return f"the CUDA kernels were built with CUDA {toolkit}, torch {torch.__version__} uses {torch.version.cuda}"
    try:
        torch.ops.load_library(str(library))  # type: ignore[no-untyped-call]
    except OSError as error:
        return f"the CUDA library does not load: {str(error).splitlines()[0]}"
    return ""


def _device_reason(record: Mapping[str, Any]) -> str:
    """Why kernels that are loaded cannot run on the current device. Asks CUDA, so it is not part of loading."""
    if not torch.cuda.is_available():
        return "no CUDA device is visible"
    device = torch.cuda.get_device_capability()
    architectures = str(record["cuda"]["architectures"])
    for entry in architectures.split(";"):
        major, minor = (int(part) for part in entry.removesuffix("+PTX").rstrip("af").split("."))
        if (major == device[0] and minor <= device[1]) or (entry.endswith("+PTX") and (major, minor) <= device):
            return ""
    return f"the device is of architecture {device[0]}.{device[1]}, the kernels were built for {architectures}"


def _check_wish(chosen: str) -> None:
    """A misspelt DDARTS_CPU_CAPABILITY would go unnoticed: every copy gives the same results."""
    wish = os.environ.get("DDARTS_CPU_CAPABILITY", "")
    if wish not in ("", *CAPABILITIES):
        warnings.warn(
            f"ddarts_ext: DDARTS_CPU_CAPABILITY must be one of {', '.join(CAPABILITIES)}, got {wish!r}: it is ignored, "
            f"{chosen} is in use",
            RuntimeWarning,
            stacklevel=2,
        )


def _mismatch(status: Status) -> Status:
    reason = status.cpu_reason or status.cuda_reason
    warnings.warn(
        f"ddarts_ext: {reason}; the reference implementations run instead, slower. To mend it: {mending_command()}",
        RuntimeWarning,
        stacklevel=2,
    )
    return status


def _release(version: str) -> tuple[int, int]:
    major, minor = version.split("+")[0].split(".")[:2]
    return int(major), int(minor)

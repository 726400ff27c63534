"""Which CUDA toolkit compiles the kernels, and for which architectures.

Imports nothing but the standard library; torch is asked only where a function says so.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sysconfig
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

DEFAULT_ARCHITECTURES = "8.0;9.0+PTX"


@dataclass(frozen=True)
class Cuda:
    """A CUDA toolkit that can compile: its compiler, its folder with headers, its version."""

    nvcc: Path
    home: Path
    version: str

    @property
    def include(self) -> Path:
        return self.home / "include"

    @property
    def libraries(self) -> Path:
        return next((d for d in (self.home / "lib64", self.home / "lib") if d.is_dir()), self.home / "lib64")

    @property
    def runtime(self) -> Path:
        """libcudart; the registry's wheels have it without the unversioned name."""
        found = sorted(self.libraries.glob("libcudart.so*"))
        if not found:
            raise SystemExit(f"build: no libcudart.so in {self.libraries}")
        return found[0]


def output_of(*command: str | Path) -> str:
    """What a command says, on both streams; the empty string where it cannot be started."""
    try:
        done = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False)
    except OSError:
        return ""
    return done.stdout + done.stderr


def major(version: str) -> str:
    return version.split(".")[0]


def _home_of(nvcc: Path) -> Path | None:
    """The toolkit that this nvcc compiles with; an nvcc on the PATH may be a wrapper that lies elsewhere."""
    top = re.search(r"^#\$ TOP=(.*)$", output_of(nvcc, "--dryrun", "-E", "-x", "cu", os.devnull), re.MULTILINE)
    return Path(top.group(1).strip()).resolve() if top else None


def _wheel_homes() -> list[Path]:
    """Toolkits installed from a package registry (nvidia-cuda-nvcc and its companions)."""
    found: list[Path] = []
    for key in ("purelib", "platlib"):
        found += sorted(Path(sysconfig.get_path(key)).glob("nvidia/cu*"), reverse=True)
    return found


def _usual_homes() -> list[Path]:
    return [Path("/usr/local/cuda"), *sorted(Path("/usr/local").glob("cuda-*"), reverse=True), Path("/opt/cuda")]


def _has_headers(home: Path | None) -> bool:
    return home is not None and (home / "include" / "cuda_runtime.h").is_file()


def _candidates() -> list[Path]:
    """Every nvcc worth a look, nearest wish first. NVCC names the only one."""
    if os.environ.get("NVCC"):
        return [Path(os.environ["NVCC"])]
    named = [Path(os.environ[key]) for key in ("CUDA_HOME", "CUDA_PATH") if os.environ.get(key)]
    on_path = shutil.which("nvcc")
    compilers = [home / "bin" / "nvcc" for home in named] + ([Path(on_path)] if on_path else [])
    return compilers + [home / "bin" / "nvcc" for home in [*_wheel_homes(), *_usual_homes()]]


def _toolkit(nvcc: Path) -> Cuda | str:
    """The toolkit of this compiler, or what it lacks."""
    release = re.search(r"release (\d+\.\d+)", output_of(nvcc, "--version"))
    if release is None:
        return f"{nvcc} (does not run)"
    named = [Path(os.environ[key]) for key in ("CUDA_HOME", "CUDA_PATH") if os.environ.get(key)]
    homes = [_home_of(nvcc), nvcc.resolve().parent.parent, *named, *_usual_homes()]
    home = next((home for home in homes if home is not None and _has_headers(home)), None)
    return Cuda(nvcc, home, release.group(1)) if home else f"{nvcc} (no include/cuda_runtime.h beside it)"


def find_cuda(wanted: str | None = None) -> Cuda | str:
    """The CUDA toolkit, or a sentence that says why there is none.

    wanted: the version of CUDA that torch was built with. A toolkit of that major version goes before all others; where
    there is none, the first that can compile is returned, and the caller decides.
    """
    found: list[Cuda] = []
    refused: list[str] = []
    for nvcc in dict.fromkeys(_candidates()):
        if not nvcc.is_file():
            continue
        toolkit = _toolkit(nvcc)
        if isinstance(toolkit, str):
            refused.append(toolkit)
        elif wanted is None or major(toolkit.version) == major(wanted):
            return toolkit
        else:
            found.append(toolkit)
    if found:
        return found[0]
    if refused:
        return f"nvcc was found but is of no use: {', '.join(refused)}"
    return "no nvcc on the PATH or in CUDA_HOME"


def cuda_include() -> Path | None:
    """A folder with CUDA's headers, which the emulation of the kernels needs; nvcc itself it does not."""
    cuda = find_cuda()
    if isinstance(cuda, Cuda):
        return cuda.include
    return next((home / "include" for home in _wheel_homes() if _has_headers(home)), None)


def architectures() -> str:
    """TORCH_CUDA_ARCH_LIST, else what the visible devices are (asks torch), else 8.0 and 9.0 with PTX for others."""
    named = os.environ.get("TORCH_CUDA_ARCH_LIST", "").strip()
    if named:
        return named.replace(" ", ";")
    import torch

    if not torch.cuda.is_available():
        return DEFAULT_ARCHITECTURES
    found = sorted({torch.cuda.get_device_capability(i) for i in range(torch.cuda.device_count())})
    return ";".join(f"{major}.{minor}" for major, minor in found) + "+PTX"


def gencode_flags(architecture_list: str) -> list[str]:
    """nvcc's flags for a list such as ``8.0;9.0+PTX``."""
    flags = []
    for entry in architecture_list.split(";"):
        number = entry.removesuffix("+PTX").replace(".", "")
        if not re.fullmatch(r"\d+[af]?", number):
            raise ValueError(f"build: TORCH_CUDA_ARCH_LIST must be numbers such as 8.0;9.0+PTX, got {entry!r}")
        flags.append(f"-gencode=arch=compute_{number},code=sm_{number}")
        if entry.endswith("+PTX"):
            flags.append(f"-gencode=arch=compute_{number},code=compute_{number}")
    return flags


def cmake_architectures(names: Sequence[str]) -> str:
    """What CMAKE_CUDA_ARCHITECTURES means, as an architecture list: ``80-real;90`` is ``8.0;9.0+PTX``."""
    entries = []
    for name in names:
        found = re.fullmatch(r"(\d+)(\d)([af]?)(-real|-virtual)?", name)
        if found is None:
            raise ValueError(f"build: CMAKE_CUDA_ARCHITECTURES must be numbers such as 80-real;90, got {name!r}")
        ten, one, suffix, kind = found.groups()
        entries.append(f"{ten}.{one}{suffix}{'' if kind == '-real' else '+PTX'}")
    return ";".join(entries)

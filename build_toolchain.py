"""Which compilers, sources and flags build the extension: shared by setup.py, CMakeLists.txt, the tests and CI.

Imports nothing but the standard library; torch is asked only where a function says so.
"""

from __future__ import annotations

import getpass
import hashlib
import importlib.util
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from build_cpu import CAPABILITY_FLAGS as CAPABILITY_FLAGS  # scripts and tests ask this module for everything
from build_cpu import CXX_FLAGS, capabilities, capability_flags, named_cxx
from build_cpu import narrow_copy as narrow_copy
from build_cuda import DEFAULT_ARCHITECTURES, Cuda, cmake_architectures, find_cuda, gencode_flags, output_of
from build_cuda import cuda_include as cuda_include

ROOT = Path(__file__).resolve().parent

# LibTorch's stable ABI as of torch 2.11: the compiled libraries serve that version and every later one.
TORCH_TARGET = "-DTORCH_TARGET_VERSION=0x020b000000000000"

STABLE_CXX_FLAGS = [*CXX_FLAGS, TORCH_TARGET]
# Conversions of half precision are written out: the macros forbid the implicit ones, as torch.utils.cpp_extension does.
NVCC_FLAGS = [
    *("-O3", "-std=c++17", "-Xcompiler", "-fPIC,-fvisibility=hidden", "--expt-relaxed-constexpr"),
    *("-D__CUDA_NO_HALF_OPERATORS__", "-D__CUDA_NO_HALF_CONVERSIONS__"),
    *("-D__CUDA_NO_BFLOAT16_CONVERSIONS__", "-D__CUDA_NO_HALF2_OPERATORS__"),
]


def sources(folder: str, *suffixes: str) -> list[str]:
    """Sources below csrc, relative to the root. DDARTS_OPS=a,b keeps the files of these ops alone (development)."""
    wanted = [op for op in os.environ.get("DDARTS_OPS", "").split(",") if op]
    if wanted:
        return [name for op in wanted for name in op_sources(folder, op, *suffixes)]
    found = sorted(path for path in (ROOT / "csrc" / folder).iterdir() if path.suffix in suffixes)
    return [str(path.relative_to(ROOT)) for path in found]


def op_sources(folder: str, op: str, *suffixes: str) -> list[str]:
    """The files ``<op>.*`` and ``<op>_*.*`` of one op."""
    found = sorted((ROOT / "csrc" / folder).glob(f"{op}*"))
    own = [path for path in found if path.stem == op or path.stem.startswith(f"{op}_")]
    return [str(path.relative_to(ROOT)) for path in own if path.suffix in suffixes]


def default_jobs() -> int:
    """Compilers to run at once: as many as cores, but 2 GB of available memory each."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(cores, available_memory() // (2 << 30)))


def available_memory() -> int:
    """Bytes that can be had without swapping: what the kernel says is available, page cache included.

    No more than the container may have, and 2 GB where nobody says anything.
    """
    try:
        told = re.search(r"^MemAvailable:\s+(\d+) kB", Path("/proc/meminfo").read_text(), re.MULTILINE)
        limit = Path("/sys/fs/cgroup/memory.max")
        container = limit.read_text().strip() if limit.is_file() else ""
    except OSError:
        told, container = None, ""
    found = [int(told.group(1)) << 10] if told else []
    found += [int(container)] if container.isdecimal() else []
    return min(found, default=2 << 30)


def write_record(folder: Path, *, version: str, cuda: Cuda | None, cuda_reason: str, architecture_list: str) -> None:
    """Write ``build_record.h``: what the libraries are built for, which the loader compares (asks torch)."""
    import torch

    record = {
        "version": version,
        "torch": torch.__version__,
        "torch_cuda": torch.version.cuda,
        "python": platform.python_version(),
        "compiler": output_of(*named_cxx(), "--version").splitlines()[:1],
        "capabilities": capabilities(),
        "cuda": {"toolkit": cuda.version, "architectures": architecture_list} if cuda else None,
        "cuda_reason": cuda_reason,
    }
    text = f'#define DDARTS_BUILD_RECORD R"record({json.dumps(record)})record"\n'
    path = folder / "build_record.h"
    if not path.is_file() or path.read_text() != text:  # an unchanged file rebuilds nothing
        folder.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def cache_folder() -> Path:
    """Where compiled test libraries and resource reports stay, by a hash of everything that went into them."""
    folder = Path(tempfile.gettempdir()) / f"ddarts-compiled-{getpass.getuser()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    return folder


def compile_cuda(architecture_list: str = DEFAULT_ARCHITECTURES) -> dict[str, str]:
    """Compile every .cu of csrc/cuda; source -> nvcc's words, ptxas' resource report among them (cached by content)."""
    cuda = find_cuda()
    if isinstance(cuda, str):
        raise SystemExit(f"compile-cuda: {cuda}")
    flags = [*NVCC_FLAGS, *gencode_flags(architecture_list), "-Xptxas", "-v"]
    shared = hashlib.sha256(" ".join([str(cuda.nvcc), cuda.version, *flags]).encode())
    for path in sorted([*(ROOT / "csrc").rglob("*.h"), *(ROOT / "csrc").rglob("*.cuh")]):
        shared.update(str(path.relative_to(ROOT)).encode() + b"\0" + path.read_bytes())

    def compile_one(source: str) -> tuple[str, str]:
        digest = shared.copy()
        digest.update((ROOT / source).read_bytes())
        report = cache_folder() / f"{Path(source).stem}-{digest.hexdigest()[:24]}.ptxas"
        if report.exists():
            return source, report.read_text()
        target = report.with_suffix(f".{os.getpid()}.o")
        done = subprocess.run(
            [str(cuda.nvcc), *flags, "-c", str(ROOT / source), "-o", str(target)],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            raise SystemExit(f"compile-cuda: {source} does not compile\n{done.stderr}")
        target.write_text(done.stdout + done.stderr)
        target.replace(report)
        return source, report.read_text()

    with ThreadPoolExecutor(int(os.environ.get("MAX_JOBS") or default_jobs())) as pool:
        return dict(pool.map(compile_one, sources("cuda", ".cu")))


def _project_version() -> str:
    found = re.search(r'^version = "(.+)"$', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    return found.group(1) if found else ""


def record_of_cmake(folder: Path, cuda_architectures: list[str]) -> None:
    """The record of a build by CMake, with the kernels' architectures in its words; none: without CUDA kernels."""
    cuda = find_cuda(torch_cuda()) if cuda_architectures else "built by CMake without DDARTS_CUDA"
    found, reason = (None, cuda) if isinstance(cuda, str) else (cuda, "")
    write_record(
        folder,
        version=_project_version(),
        cuda=found,
        cuda_reason=reason,
        architecture_list=cmake_architectures(cuda_architectures),
    )


def torch_cuda() -> str | None:
    """The version of CUDA that torch was built with (asks torch)."""
    import torch

    return torch.version.cuda


def torch_folder() -> Path:
    """Where torch is installed, without importing it. SystemExit where there is none."""
    found = importlib.util.find_spec("torch")
    if found is None or found.origin is None:
        raise SystemExit("build: torch must be installed, none was found")
    return Path(found.origin).parent


def target_of(arguments: list[str]) -> str:
    """The architecture that ``--target NAME`` names; empty, for this one, where nothing is said."""
    if arguments and (len(arguments) != 2 or arguments[0] != "--target"):
        raise SystemExit(f"compile-cpu: arguments must be --target ARCHITECTURE, got {' '.join(arguments)!r}")
    return arguments[1] if arguments else ""


def main(arguments: list[str]) -> int:
    """What CMakeLists.txt and CI ask: lists are printed with semicolons."""
    what, *rest = arguments or [""]
    if what == "find-cuda":
        cuda = find_cuda()
        print(cuda)
        return 1 if isinstance(cuda, str) else 0
    if what == "cuda-home":
        cuda = find_cuda()
        print("" if isinstance(cuda, str) else cuda.home)
    elif what == "compile-cuda":
        print("\n".join(f"compiled {source}" for source in compile_cuda()))
    elif what == "compile-cpu":
        import build_ninja

        print(f"compiled {build_ninja.compile_cpu(target_of(rest), torch_folder())}")
    elif what == "torch-folder":
        print(torch_folder())
    elif what == "cxx-flags":
        print(";".join(flag for flag in CXX_FLAGS if not flag.startswith("-std=")))
    elif what == "capabilities":
        print(";".join(capabilities()))
    elif what == "capability-flags":
        print(";".join(capability_flags(rest[0])))
    elif what == "stable-flag":
        print(TORCH_TARGET)
    elif what == "record":
        record_of_cmake(Path(rest[0]), rest[1:])
    else:
        print(f"build_toolchain.py: unknown request {what!r}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))

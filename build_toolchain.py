"""Which compilers, sources and flags build the extension: shared by setup.py, CMakeLists.txt, the tests and CI.

Imports nothing but the standard library; torch is asked only where a function says so.
"""

from __future__ import annotations

import getpass
import hashlib
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent

# LibTorch's stable ABI as of torch 2.11: the compiled libraries serve that version and every later one.
TORCH_TARGET = "-DTORCH_TARGET_VERSION=0x020b000000000000"

# -fno-math-errno, -fno-trapping-math: loops with sqrt and selects vectorise; no value changes.
CXX_FLAGS = (
    "-O3 -g0 -std=c++20 -fPIC -fvisibility=hidden -fopenmp-simd "
    f"-fno-math-errno -fno-trapping-math -ffp-contract=fast {TORCH_TARGET}"
).split()
# The macros are those that torch.utils.cpp_extension adds: the same code must compile with and without it.
NVCC_FLAGS = [
    *("-O3", "-std=c++17", "-Xcompiler", "-fPIC,-fvisibility=hidden", "--expt-relaxed-constexpr"),
    *("-D__CUDA_NO_HALF_OPERATORS__", "-D__CUDA_NO_HALF_CONVERSIONS__"),
    *("-D__CUDA_NO_BFLOAT16_CONVERSIONS__", "-D__CUDA_NO_HALF2_OPERATORS__"),
]

# Every csrc/cpu source is compiled once per capability; see csrc/common/simd.h.
CAPABILITY_FLAGS = {"baseline": [], "avx2": ["-mavx2", "-mfma", "-mf16c"]}

DEFAULT_ARCHITECTURES = "8.0;9.0+PTX"


def capabilities() -> list[str]:
    """The CPU capabilities worth compiling on this machine's architecture."""
    return list(CAPABILITY_FLAGS) if platform.machine().lower() in ("x86_64", "amd64") else ["baseline"]


def capability_flags(capability: str) -> list[str]:
    return [f"-DDDARTS_CPU_CAPABILITY={capability}", *CAPABILITY_FLAGS[capability]]


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


def _run(*command: str | Path) -> str:
    try:
        done = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False)
    except OSError:
        return ""
    return done.stdout + done.stderr


def _home_of(nvcc: Path) -> Path | None:
    """The toolkit that this nvcc compiles with; an nvcc on the PATH may be a wrapper that lies elsewhere."""
    top = re.search(r"^#\$ TOP=(.*)$", _run(nvcc, "--dryrun", "-E", "-x", "cu", os.devnull), re.MULTILINE)
    return Path(top.group(1).strip()).resolve() if top else None


def _wheel_homes() -> list[Path]:
    """Toolkits installed from a package registry (nvidia-cuda-nvcc and its companions)."""
    found: list[Path] = []
    for key in ("purelib", "platlib"):
        found += sorted(Path(sysconfig.get_path(key)).glob("nvidia/cu*"), reverse=True)
    return found


def _has_headers(home: Path | None) -> bool:
    return home is not None and (home / "include" / "cuda_runtime.h").is_file()


def find_cuda() -> Cuda | str:
    """The CUDA toolkit, or a sentence that says why there is none."""
    named = [Path(os.environ[key]) for key in ("CUDA_HOME", "CUDA_PATH") if os.environ.get(key)]
    on_path = os.environ.get("NVCC") or shutil.which("nvcc")
    compilers = ([Path(on_path)] if os.environ.get("NVCC") else []) + [home / "bin" / "nvcc" for home in named]
    compilers += [Path(on_path)] if on_path else []
    usual = [Path("/usr/local/cuda"), *sorted(Path("/usr/local").glob("cuda-*"), reverse=True), Path("/opt/cuda")]
    compilers += [home / "bin" / "nvcc" for home in [*_wheel_homes(), *usual]]
    seen = []
    for nvcc in dict.fromkeys(compilers):
        if not nvcc.is_file():
            continue
        release = re.search(r"release (\d+\.\d+)", _run(nvcc, "--version"))
        homes = [_home_of(nvcc), nvcc.resolve().parent.parent, *named, *usual]
        home = next((home for home in homes if home is not None and _has_headers(home)), None)
        if release and home:
            return Cuda(nvcc, home, release.group(1))
        seen.append(f"{nvcc} ({'no include/cuda_runtime.h beside it' if release else 'does not run'})")
    return f"nvcc was found but is of no use: {', '.join(seen)}" if seen else "no nvcc on the PATH or in CUDA_HOME"


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


def default_jobs() -> int:
    """Compilers to run at once: as many as cores, but 3 GB of free memory each."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError):
        free = 3 << 30
    return max(1, min(cores, free // (3 << 30)))


def write_record(folder: Path, *, version: str, cuda: Cuda | None, cuda_reason: str, architecture_list: str) -> None:
    """Write ``build_record.h``: what the libraries are built for, which the loader compares (asks torch)."""
    import torch

    record = {
        "version": version,
        "torch": torch.__version__,
        "torch_cuda": torch.version.cuda,
        "python": platform.python_version(),
        "compiler": _run(os.environ.get("CXX", "c++"), "--version").splitlines()[:1],
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


def main(arguments: list[str]) -> int:
    """What CMakeLists.txt and CI ask: lists are printed with semicolons."""
    what, *rest = arguments or [""]
    if what == "find-cuda":
        cuda = find_cuda()
        print(cuda)
        return 1 if isinstance(cuda, str) else 0
    if what == "compile-cuda":
        print("\n".join(f"compiled {source}" for source in compile_cuda()))
    elif what == "torch-folder":
        import torch

        print(Path(torch.__file__).parent)
    elif what == "pybind11-include":
        import pybind11

        print(pybind11.get_include())
    elif what == "cxx-flags":
        print(";".join(flag for flag in CXX_FLAGS if not flag.startswith("-std=")))
    elif what == "capabilities":
        print(";".join(capabilities()))
    elif what == "capability-flags":
        print(";".join(capability_flags(rest[0])))
    elif what == "record":
        cuda = find_cuda() if rest[1] == "1" else "built by CMake without DDARTS_CUDA"
        found, reason = (None, cuda) if isinstance(cuda, str) else (cuda, "")
        write_record(
            Path(rest[0]),
            version=_project_version(),
            cuda=found,
            cuda_reason=reason,
            architecture_list=DEFAULT_ARCHITECTURES,
        )
    else:
        print(f"build_toolchain.py: unknown request {what!r}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))

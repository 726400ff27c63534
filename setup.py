"""The extension modules and the list of packages; everything else about the package stands in pyproject.toml.

DDARTS_CUDA = auto (default: CUDA kernels where torch has CUDA and a matching nvcc is found) | 1 (a missing toolchain is
an error; works beside a CPU-only torch, to check that the sources compile) | 0. TORCH_CUDA_ARCH_LIST, CUDA_HOME, NVCC,
CXX, CXXFLAGS, LDFLAGS, MAX_JOBS as usual. DDARTS_NO_EXTENSION=1 installs pure Python. DDARTS_OPS=mixed_sum,pool3x3
compiles these alone.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path
from typing import Any

from setuptools import Extension, find_packages, setup
from setuptools.command.build_ext import build_ext

sys.path.insert(0, str(Path(__file__).resolve().parent))
import build_ninja
import build_toolchain as toolchain
from build_cuda import Cuda, architectures, find_cuda, major

ROOT = toolchain.ROOT


def choose_cuda() -> tuple[Cuda | None, str]:
    """The toolkit to build CUDA kernels with, or why none are built. DDARTS_CUDA=1 makes the reason an error."""
    wish = os.environ.get("DDARTS_CUDA", "auto")
    if wish not in ("auto", "0", "1"):
        raise SystemExit(f"build: DDARTS_CUDA must be auto, 0 or 1, got {wish!r}")
    if wish == "0":
        return None, "DDARTS_CUDA=0 was set when it was built"
    wanted = toolchain.torch_cuda()
    if wish == "auto" and wanted is None:
        return None, "torch was built without CUDA"
    cuda = find_cuda(wanted)
    if not isinstance(cuda, str) and (wanted is None or major(cuda.version) == major(wanted)):
        return cuda, ""
    reason = cuda if isinstance(cuda, str) else f"{cuda.nvcc} is CUDA {cuda.version}, torch was built with {wanted}"
    if wish == "1":
        raise SystemExit(f"build: DDARTS_CUDA=1 needs a CUDA toolchain: {reason}")
    return None, reason


def wanted_jobs() -> int:
    """MAX_JOBS, or what cores and memory allow."""
    named = os.environ.get("MAX_JOBS") or str(toolchain.default_jobs())
    if not named.isdecimal() or int(named) < 1:
        raise SystemExit(f"build: MAX_JOBS must be an integer of at least 1, got {named!r}")
    return int(named)


class Build(build_ext):
    """All libraries in one run of ninja."""

    def finalize_options(self) -> None:
        super().finalize_options()
        import torch

        # One folder per torch and Python that survives the build: the next one compiles what changed.
        tag = f"{sys.implementation.cache_tag}-torch{torch.__version__}"
        self.build_temp = str(ROOT / "build" / f"objects-{tag}")

    def build_extensions(self) -> None:
        import torch

        build_ninja.cxx()  # first, for its words where there is no compiler
        cuda, reason = choose_cuda()
        wanted = architectures() if cuda else ""
        jobs = wanted_jobs()
        kernels = f"{cuda.nvcc} for {wanted}" if cuda else f"none ({reason})"
        print(f"ddarts_ext: CUDA kernels: {kernels}; {jobs} compilers at once", flush=True)
        folder, torch_folder = Path(self.build_temp), Path(torch.__file__).parent
        version = self.distribution.get_version()
        toolchain.write_record(folder, version=version, cuda=cuda, cuda_reason=reason, architecture_list=wanted)
        libraries = [build_ninja.cpu_library(self.path_of("_C"), folder, torch_folder)]
        if cuda is not None:
            stand_in = folder / "stand-in" / "libtorch_cuda.so"
            target = self.path_of("_cuda")
            libraries.append(build_ninja.cuda_library(target, torch_folder, stand_in, cuda, wanted))
        build_ninja.build(folder, libraries, cuda.nvcc if cuda else None, jobs)
        build_ninja.check_loads(self.path_of("_C"))

    def path_of(self, library: str) -> Path:
        """Where a library of the package is to be put."""
        return Path(self.get_ext_fullpath(f"ddarts_ext.{library}")).resolve()


def extension_arguments() -> dict[str, Any]:
    """What setup() needs to know of the compiled libraries; nothing for a pure Python installation."""
    if os.environ.get("DDARTS_NO_EXTENSION", "") not in ("", "0"):
        return {}
    if importlib.util.find_spec("torch") is None and {"egg_info", "dist_info", "sdist"} & set(sys.argv):
        return {}  # metadata alone is asked for, before an isolated build has its torch
    modules = [Extension("ddarts_ext._C", ["csrc/bindings.cpp"])]
    if choose_cuda()[0] is not None:
        modules.append(Extension("ddarts_ext._cuda", toolchain.sources("cuda", ".cpp")))
    return {"ext_modules": modules, "cmdclass": {"build_ext": Build}}


# An installed `ddarts bench` reads its cases from the package: benchmarks/ travels as ddarts_ext/_benchmarks.
setup(
    py_modules=["ddarts_command"],
    packages=[*find_packages(include=["ddarts_ext*"]), "ddarts_ext._benchmarks"],
    package_dir={"ddarts_ext._benchmarks": "benchmarks"},
    **extension_arguments(),
)

"""Compiles and links all libraries in one run of ninja, so that no core waits while another library is built.

Not torch.utils.cpp_extension: it builds one library after the other, gives ``x.cpp`` and ``x.cu`` the same object, and
refuses CUDA beside a torch without it.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import build_toolchain as toolchain
from build_cpu import architecture, capabilities, compiler_for, cxx
from build_cuda import Cuda, gencode_flags

RULES = """\
ninja_required_version = 1.5
rule cxx
  command = {cxx} -MMD -MF $out.d $flags -c $in -o $out
  description = $out
  depfile = $out.d
  deps = gcc
rule nvcc
  command = {nvcc} -MD -MF $out.d $flags -c $in -o $out
  description = $out
  depfile = $out.d
  deps = gcc
rule link
  command = {cxx} $in $flags -o $out
  description = $out
"""


@dataclass(frozen=True)
class Object:
    """One compilation: a source below the root, the object below the build folder."""

    source: str
    target: str
    flags: tuple[str, ...]
    rule: str = "cxx"


@dataclass(frozen=True)
class Library:
    """One shared library: its objects in the order in which they are linked, and what else it is linked with."""

    target: Path
    objects: tuple[Object, ...]
    link_flags: tuple[str, ...]


def cpu_library(target: Path, folder: Path, torch_folder: Path) -> Library:
    """The Python module ``_C``: bindings, and every CPU source once per capability.

    The baseline's objects stand first: where the linker merges copies of an inline function, the first one stays, and
    that one must run on every processor.
    """
    include = ("-isystem", str(torch_folder / "include"))
    # Without TORCH_TARGET: torch's copy of pybind11 refuses to be compiled for the stable ABI, and needs nothing of it.
    bindings = [*toolchain.CXX_FLAGS, f"-I{folder}", *include, "-isystem", sysconfig.get_path("include")]
    objects = [Object("csrc/bindings.cpp", "bindings.cpp.o", tuple(bindings)), *kernel_objects(torch_folder)]
    return Library(target, tuple(objects), (*module_flags(), f"-L{torch_folder / 'lib'}", "-ltorch_cpu"))


def kernel_objects(torch_folder: Path, compiler: Sequence[str] = ()) -> list[Object]:
    """What has no Python in it: every CPU source once per capability, and what chooses one."""
    chooses = Object("csrc/common/cpu_capability.cpp", "cpu_capability.cpp.o", tuple(toolchain.CXX_FLAGS))
    include = ("-isystem", str(torch_folder / "include"))
    objects = [chooses]
    for capability in capabilities(compiler):
        flags = (*toolchain.STABLE_CXX_FLAGS, *toolchain.capability_flags(capability, compiler), *include)
        objects += [
            Object(source, f"{capability}/{Path(source).name}.o", flags) for source in toolchain.sources("cpu", ".cpp")
        ]
    return objects


def compile_cpu(target: str, torch_folder: Path) -> Path:
    """The CPU kernels for an architecture (``aarch64``), this one or another: whether they compile.

    What they need of others stays open, so that no torch of that architecture is needed; torch's headers are the same
    for all. Returns one object of all of them, in a folder of ``build``.
    """
    target = architecture(target)
    compiler = compiler_for(target)
    folder = toolchain.ROOT / "build" / f"kernels-{target}"
    library = Library(folder / "kernels.o", tuple(kernel_objects(torch_folder, compiler)), ("-r", "-nostdlib"))
    build(folder, [library], None, int(os.environ.get("MAX_JOBS") or toolchain.default_jobs()), compiler)
    return library.target


def cuda_library(target: Path, torch_folder: Path, stand_in: Path, cuda: Cuda, architecture_list: str) -> Library:
    """The library ``_cuda``. Beside a torch without CUDA it is linked with an empty stand-in for libtorch_cuda.

    What it needs of libtorch_cuda is resolved when it is loaded; to link, a library of that name is enough.
    """
    include = ("-isystem", str(torch_folder / "include"), "-isystem", str(cuda.include))
    host = (*toolchain.STABLE_CXX_FLAGS, "-DUSE_CUDA", *include)
    device = (*toolchain.NVCC_FLAGS, *gencode_flags(architecture_list), *_host_compiler())
    objects = [
        Object(source, f"cuda/{Path(source).name}.o", device, "nvcc") for source in toolchain.sources("cuda", ".cu")
    ]
    objects += [Object(source, f"cuda/{Path(source).name}.o", host) for source in toolchain.sources("cuda", ".cpp")]
    real = torch_folder / "lib" / "libtorch_cuda.so"
    libraries = [f"-L{torch_folder / 'lib'}", f"-L{stand_in.parent}", "-ltorch_cpu", "-Wl,--no-as-needed"]
    libraries += ["-ltorch_cuda", "-Wl,--as-needed", str(cuda.runtime)]
    if not real.is_file():
        make_stand_in(stand_in)
    return Library(target, tuple(objects), ("-shared", *libraries))


def make_stand_in(path: Path) -> None:
    """An empty shared library."""
    path.parent.mkdir(parents=True, exist_ok=True)
    empty = [*cxx(), "-shared", "-x", "c", os.devnull, f"-Wl,-soname,{path.name}", "-o", str(path)]
    subprocess.run(empty, check=True)


def module_flags() -> list[str]:
    """How a Python module is linked: its names of Python are found when it is loaded."""
    return ["-bundle", "-undefined", "dynamic_lookup"] if sys.platform == "darwin" else ["-shared"]


def _host_compiler() -> list[str]:
    """nvcc calls g++ unless it is told otherwise."""
    words = shlex.split(os.environ.get("CXX", ""))
    return ["-ccbin", words[0]] if len(words) == 1 else []


def ninja() -> str:
    """The ninja to call: of this Python's package, which may lie off the PATH, else the one on the PATH."""
    try:
        from ninja import BIN_DIR
    except ImportError:
        BIN_DIR = ""
    found = shutil.which("ninja", path=os.pathsep.join(filter(None, [BIN_DIR, os.environ.get("PATH", "")])))
    if found is None:
        raise SystemExit("build: ninja must be installed, none was found: python -m pip install ninja")
    return found


def build(
    folder: Path, libraries: Sequence[Library], nvcc: Path | None, jobs: int, compiler: Sequence[str] = ()
) -> None:
    """Bring all libraries up to date, with the usual C++ compiler unless another is named.

    The build folder keeps the objects for the next time.
    """
    text = RULES.format(cxx=_dollars(shlex.join(compiler or cxx())), nvcc=_dollars(shlex.quote(str(nvcc or "nvcc"))))
    for library in libraries:
        for each in library.objects:
            text += _statement(each.target, each.rule, [str(toolchain.ROOT / each.source)], each.flags)
            (folder / each.target).parent.mkdir(parents=True, exist_ok=True)
    for library in libraries:
        flags = [*library.link_flags, *shlex.split(os.environ.get("LDFLAGS", ""))]
        text += _statement(str(library.target), "link", [each.target for each in library.objects], flags)
        library.target.parent.mkdir(parents=True, exist_ok=True)
    (folder / "build.ninja").write_text(text)
    command = [ninja(), "-C", str(folder), "-j", str(jobs), *(["-v"] if os.environ.get("VERBOSE") else [])]
    print(" ".join(command), flush=True)
    if subprocess.run(command, check=False).returncode != 0:
        raise SystemExit("build: compiling failed, the compiler's words stand above")


LOADS = """
import importlib.util, sys
sys.path[:] = sys.argv[2:]
import torch
spec = importlib.util.spec_from_file_location("ddarts_ext._C", sys.argv[1])
importlib.util.module_from_spec(spec)
"""


def check_loads(module: Path) -> None:
    """End the build where the Python module it made does not load: the linker leaves open names to be found then."""
    # With the path of this process: where pip builds apart from the environment, torch is on no other.
    command = [sys.executable, "-c", LOADS, str(module), *sys.path]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        said = done.stderr.strip().splitlines()
        raise SystemExit(f"build: {module.name} was built and does not load: {said[-1] if said else done.returncode}")


def _statement(target: str, rule: str, inputs: Sequence[str], flags: Sequence[str]) -> str:
    flags = shlex.join([*flags, *(shlex.split(os.environ.get("CXXFLAGS", "")) if rule == "cxx" else [])])
    return f"build {_path(target)}: {rule} {' '.join(map(_path, inputs))}\n  flags = {_dollars(flags)}\n"


def _path(path: str) -> str:
    return _dollars(path).replace(" ", "$ ").replace(":", "$:")


def _dollars(text: str) -> str:
    return text.replace("$", "$$")

"""Compiles the CUDA path of an op (glue, launchers, kernels) for the emulation, and gives it to the tests as an op.

The library registers the op as ``torch.ops.ddarts_ext_emulated.<op>`` on CPU tensors. It is cached in the temporary
folder by a hash of everything that went into it.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).resolve().parent
NAMESPACE = "ddarts_ext_emulated"
ORDERS = ("forward", "reverse", "random")
_OWNERS = {"relu_pointwise_conv2d": "relu_separable_conv2d", "pool3x3_readers": "pool3x3"}
"""Ops that run on the kernels of another, in whose library they are."""
_CALLED = {
    "relu_separable_conv2d": ("mixed_sum",),
    "mixed_edges": ("mixed_sum", "relu_separable_conv2d", "pool3x3"),
}
"""Ops that call launchers of others."""

if str(ROOT) not in sys.path:
    sys.path.append(str(ROOT))

import build_toolchain as toolchain  # noqa: E402

_schemas = torch.library.Library(NAMESPACE, "FRAGMENT")
_defined: set[str] = set()
_loaded: dict[str, ctypes.CDLL] = {}


def compile_library(sources: list[Path], *, sanitize: bool = False, laboratory: bool = False) -> Path:
    """A shared library of these sources under the emulation. RuntimeError with the compiler's words where it fails.

    sanitize: under AddressSanitizer. laboratory: every access of a kernel is recorded, see ``laboratory.cpp``.
    """
    include = toolchain.cuda_include()
    if include is None:
        raise FileNotFoundError("no CUDA headers: install a toolkit or the nvidia-cuda-nvcc and -runtime packages")
    compiler = toolchain.named_cxx("g++")
    lib = Path(torch.__file__).parent
    # Lines are all that a report of a fault needs, and a third less to write.
    flags = ["-std=c++20", "-O1", "-g1", "-fPIC", "-fvisibility=hidden", "-fno-strict-aliasing", "-DDDARTS_EMULATE"]
    flags += [toolchain.TORCH_TARGET, f"-I{HERE}", "-isystem", str(include), "-isystem", str(lib / "include")]
    flags += ["-fsanitize=address", "-fno-omit-frame-pointer"] if sanitize else []
    # addr2line mistakes files in DWARF 5; a packet that is broken into its values would not be seen as one access
    flags += ["-DDDARTS_LABORATORY", "-g", "-gdwarf-4", "-fno-tree-sra"] if laboratory else []
    own = [HERE / "control.cpp", *([HERE / "laboratory.cpp"] if laboratory else [])]
    how = [torch.__version__, *compiler, *flags]
    library = _cached(sources + own, how, ".so")
    if library.exists():
        return library
    with tempfile.TemporaryDirectory(dir=library.parent) as folder:
        objects = []
        for source in sources + own:
            # The hooks are in the code of the kernels alone; the runtime that answers them has none.
            hooks = ["-fsanitize=thread"] if laboratory and source in _with_kernels(sources) else []
            compiled = _cached([source], [*how, *hooks], ".o")  # ops share launchers
            if not compiled.exists():
                partial = str(Path(folder, compiled.name))
                _compile([*compiler, *flags, *hooks, "-x", "c++", "-c", str(source), "-o", partial])
                os.replace(partial, compiled)
            objects.append(str(compiled))
        partial = str(Path(folder, library.name))
        shared = ["-shared", *(["-fsanitize=address"] if sanitize else [])]
        _compile([*compiler, *shared, *objects, f"-L{lib / 'lib'}", "-ltorch_cpu", "-pthread", "-o", partial])
        os.replace(partial, library)
    return library


def _with_kernels(sources: list[Path]) -> list[Path]:
    return [source for source in sources if source.suffix == ".cu"] or sources


def _cached(sources: list[Path], how: list[str], suffix: str) -> Path:
    """Where lies what is made of these sources and all headers in this way."""
    digest = hashlib.sha256(" ".join(how).encode())
    headers = [*(ROOT / "csrc").rglob("*.h"), *(ROOT / "csrc").rglob("*.cuh"), *HERE.glob("*.h"), *HERE.glob("*.cuh")]
    for path in sorted(headers) + sources:
        digest.update(str(path.relative_to(ROOT)).encode() + b"\0" + path.read_bytes())
    return Path(toolchain.cache_folder() / f"{sources[0].stem}-{digest.hexdigest()[:24]}{suffix}")


def _compile(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)}\n{done.stderr[-8000:]}")


def op_sources(op: str) -> list[Path]:
    """csrc/cuda/<op>.cpp, <op>.cu and <op>_*.cu, what else is in its library, and the launchers of others."""
    owner = _OWNERS.get(op, op)
    names = toolchain.op_sources("cuda", owner, ".cpp", ".cu")
    for other in (other for other, own in _OWNERS.items() if own == owner):
        names += toolchain.op_sources("cuda", other, ".cpp")
    for other in _CALLED.get(owner, ()):
        names += toolchain.op_sources("cuda", other, ".cu")
    return [ROOT / name for name in names]


def load(library: Path) -> ctypes.CDLL:
    """Defines the ops' schemas in the emulation's namespace and loads a library that implements some of them."""
    import ddarts_ext.ops._library as registry

    for name in registry.defined_ops():
        if name in _defined:
            continue
        schema = str(getattr(torch.ops.ddarts_ext, name).default._schema)
        _schemas.define(schema.removeprefix("ddarts_ext::"))
        _defined.add(name)
    torch.ops.load_library(str(library))
    return ctypes.CDLL(str(library))


class Emulated:
    """The ops of ``ddarts_ext`` with their CUDA kernels, on CPU tensors."""

    def op(self, name: str) -> torch._ops.OpOverloadPacket:
        """The op with this name; ``<op>_backward`` comes from the files of ``<op>``."""
        self.library(name)
        return getattr(getattr(torch.ops, NAMESPACE), name)

    def library(self, name: str) -> ctypes.CDLL:
        """The library that has the op."""
        owner = name.removesuffix("_backward")
        owner = _OWNERS.get(owner, owner)
        if owner not in _loaded:
            _loaded[owner] = load(compile_library(op_sources(owner)))
        return _loaded[owner]

    def set_order(self, order: str, seed: int = 0) -> None:
        """In which order blocks and threads take their turns: ``forward``, ``reverse`` or ``random``."""
        for library in _loaded.values():
            library.emulation_set_order(ORDERS.index(order), ctypes.c_uint64(seed))

    def orders(self) -> Iterator[str]:
        """Sets one order after the other; a kernel that lacks a barrier gives other results in one of them."""
        try:
            for order in ORDERS:
                self.set_order(order, seed=1)
                yield order
        finally:
            self.set_order("forward")

    def check_addresses(self, op: str, code: str) -> None:
        """Runs Python code in a process of its own, with the op's kernels under AddressSanitizer.

        The code finds ``torch`` and ``ops`` (the emulated namespace). AssertionError with the report where it fails.
        """
        library = compile_library(op_sources(op), sanitize=True)
        done = run_sanitized(library, f"ops = torch.ops.{NAMESPACE}\n{code}")
        if done.returncode != 0:
            raise AssertionError(f"{op} under AddressSanitizer:\n{(done.stdout + done.stderr)[-6000:]}")


def run_sanitized(library: Path, code: str) -> subprocess.CompletedProcess[str]:
    """Python code, which finds ``torch`` and ``library``, in a process that AddressSanitizer watches."""
    runtime = subprocess.run(
        [*toolchain.named_cxx("g++"), "-print-file-name=libasan.so"], capture_output=True, text=True, check=True
    ).stdout.strip()
    prelude = f"""
import sys; sys.path.insert(0, {str(HERE.parent)!r})
import torch, ddarts_ext
from cuda_emulation import build
library = build.load(build.Path({str(library)!r}))
"""
    environment = os.environ | {
        "LD_PRELOAD": runtime,
        "ASAN_OPTIONS": "detect_leaks=0:detect_odr_violation=0:abort_on_error=0:exitcode=99",
        "OMP_NUM_THREADS": "1",
        "DDARTS_NO_EXTENSION": "1",
    }
    return subprocess.run(
        [sys.executable, "-c", prelude + code], capture_output=True, text=True, env=environment, check=False
    )

"""Which C++ compiler builds the CPU kernels, for which processors, with which flags.

What a compiler is and compiles for is asked of its own macros, so a cross compiler named in ``CXX`` gets the flags of
its target. Imports nothing but the standard library.
"""

from __future__ import annotations

import os
import platform
import re
import shlex
import shutil
import sys
from collections.abc import Sequence
from functools import cache

from build_cuda import output_of

# -fno-math-errno, -fno-trapping-math: loops with sqrt and selects vectorise; no value changes. -fwrapv: as Python's own
# extensions are compiled. -fopenmp-simd: the pragmas alone, no runtime. -Wno-psabi: vectors are passed between
# functions of one file alone.
CXX_FLAGS = [
    *("-O3", "-g0", "-DNDEBUG", "-fwrapv", "-std=c++20", "-fPIC", "-fvisibility=hidden", "-fopenmp-simd"),
    *("-Wall", "-Wno-psabi", "-fno-math-errno", "-fno-trapping-math", "-ffp-contract=fast"),
]

# Every csrc/cpu source is compiled once per capability; see csrc/common/simd.h.
AVX2_FLAGS = ["-mavx2", "-mfma", "-mf16c"]
AVX512_FLAGS = ["-mavx512f", "-mavx512dq", "-mavx512bw", "-mavx512vl", "-mprefer-vector-width=512"]
# Few channels leave lanes of the widest vectors idle, and are given to the next narrower copy.
CAPABILITY_FLAGS = {
    "baseline": [],
    "avx2": AVX2_FLAGS,
    "avx512": [*AVX2_FLAGS, *AVX512_FLAGS, "-DDDARTS_NARROW_COPY=avx2"],
}

_ARCHITECTURES = {"__x86_64__": "x86_64", "__aarch64__": "aarch64", "__powerpc64__": "ppc64", "__riscv": "riscv"}
_NAMES = {"amd64": "x86_64", "arm64": "aarch64"}


@cache
def _macros(compiler: tuple[str, ...]) -> frozenset[str]:
    """The names that a compiler predefines; none where it cannot be started."""
    text = output_of(*compiler, "-dM", "-E", "-x", "c++", os.devnull)
    return frozenset(re.findall(r"^#define (\w+)", text, re.MULTILINE))


def is_clang(compiler: Sequence[str]) -> bool:
    """Whether a compiler is clang or made of it (Apple's, zig c++, icpx)."""
    return "__clang__" in _macros(tuple(compiler))


def architecture_of(compiler: Sequence[str]) -> str:
    """The architecture that a compiler compiles for, as ``uname -m`` says it on Linux; empty where it says nothing."""
    return next((name for macro, name in _ARCHITECTURES.items() if macro in _macros(tuple(compiler))), "")


def architecture(machine: str = "") -> str:
    """The name of a machine's architecture: of this one, unless another is named."""
    name = (machine or platform.machine()).lower()
    return _NAMES.get(name, name)


def cxx() -> list[str]:
    """The C++ compiler, as words: ``CXX`` or c++. SystemExit where there is none."""
    words = named_cxx()
    if shutil.which(words[0]) is None:
        raise SystemExit(
            f"build: the C++ compiler must be on the PATH, {words[0]!r} is not: install one, or name it in CXX, or set "
            "DDARTS_NO_EXTENSION=1 to install pure Python"
        )
    return words


def named_cxx(default: str = "c++") -> list[str]:
    """``CXX``, or the default, as words: whether there is one or not."""
    return shlex.split(os.environ.get("CXX", "")) or [default]


def compiler_for(target: str) -> list[str]:
    """A compiler for an architecture: the usual one, else a cross compiler. SystemExit where there is none."""
    usual = named_cxx()
    if architecture_of(usual) == target:
        return usual
    if os.environ.get("CXX"):
        raise SystemExit(f"compile-cpu: CXX must be a compiler for {target}, got {shlex.join(usual)!r}")
    system = f"{target}-linux-gnu"
    zig = ["c++", "-target", system]
    for found in ([f"{system}-g++"], [sys.executable, "-m", "ziglang", *zig], ["zig", *zig]):
        if architecture_of(found) == target:
            return found
    raise SystemExit(
        f"compile-cpu: a compiler for {target} must be installed, none was found: install g++-{target}-linux-gnu, or "
        "run python -m pip install ziglang, or name one in CXX"
    )


def capabilities(compiler: Sequence[str] = ()) -> list[str]:
    """The CPU capabilities worth compiling for the architecture that the compiler (default: the usual one) has."""
    macros = _macros(tuple(compiler or named_cxx()))
    x86 = "__x86_64__" in macros if macros else architecture() == "x86_64"
    return list(CAPABILITY_FLAGS) if x86 else ["baseline"]


def narrow_copy(capability: str) -> str:
    """The capability whose copy a copy calls for few channels, or nothing."""
    define = "-DDDARTS_NARROW_COPY="
    return next((flag[len(define) :] for flag in CAPABILITY_FLAGS[capability] if flag.startswith(define)), "")


def capability_flags(capability: str, compiler: Sequence[str] = ()) -> list[str]:
    """What a copy of the kernels is compiled with beside CXX_FLAGS."""
    flags = [f"-DDDARTS_CPU_CAPABILITY={capability}", *CAPABILITY_FLAGS[capability]]
    if is_clang(compiler or named_cxx()):
        return [*flags, "-Wno-pass-failed"]  # it warns of loops that it unrolled and so had no need to vectorise
    # GCC 12 warns of what its own header leaves undefined on purpose.
    return [*flags, "-Wno-maybe-uninitialized"] if capability == "avx512" else flags

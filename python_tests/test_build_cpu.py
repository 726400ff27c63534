"""Which compiler builds the CPU kernels for which processor, with which flags."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from cuda_emulation.build import ROOT, toolchain

import build_cpu  # the folder of the toolchain is on the path by now
import build_ninja
from ddarts_ext import _extension

AARCH64 = 183  # of an ELF file: EM_AARCH64


def pretended(folder: Path, name: str, *macros: str) -> str:
    """A compiler that predefines these names and compiles nothing; returns its path."""
    path = folder / name
    lines = "".join(f"echo '#define {macro} 1'\n" for macro in macros)
    path.write_text(f'#!/bin/sh\ncase "$*" in *--version*) echo {name} 1.2.3;; *)\n{lines}:;; esac\n')
    path.chmod(0o755)
    return str(path)


@pytest.mark.parametrize(
    ("macros", "clang", "capabilities"),
    [
        (("__GNUC__", "__x86_64__"), False, ["baseline", "avx2", "avx512"]),
        (("__GNUC__", "__clang__", "__x86_64__"), True, ["baseline", "avx2", "avx512"]),
        (("__GNUC__", "__aarch64__"), False, ["baseline"]),
        (("__GNUC__", "__clang__", "__aarch64__"), True, ["baseline"]),
        (("__GNUC__", "__s390x__"), False, ["baseline"]),
    ],
)
def test_copies_and_flags_follow_the_compilers_target(
    tmp_path: Path, macros: tuple[str, ...], clang: bool, capabilities: list[str]
) -> None:
    compiler = [pretended(tmp_path, "some-c++", *macros)]
    assert build_cpu.capabilities(compiler) == capabilities
    objects = build_ninja.kernel_objects(tmp_path, compiler)
    flags = {made.target.split("/")[0]: made.flags for made in objects if "/" in made.target}
    assert list(flags) == capabilities
    assert not [flag for flag in flags["baseline"] if flag.startswith("-m")]
    for capability, own in flags.items():
        assert ("-Wno-maybe-uninitialized" in own) == (not clang and capability == "avx512")
        assert ("-Wno-pass-failed" in own) == clang
        assert ("-mavx2" in own) == (capability != "baseline")
    assert objects[0].source == "csrc/common/cpu_capability.cpp"
    assert objects[1].target.startswith("baseline/")


def test_cxx_of_several_words_is_the_compiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """``CXX="ccache g++"``, ``CXX="clang++ --target=..."``: all its words are called, asked and recorded."""
    monkeypatch.setenv("CXX", f"{sys.executable} -m no_such_compiler")
    assert build_ninja.cxx() == [sys.executable, "-m", "no_such_compiler"]
    assert build_cpu.architecture_of(build_cpu.named_cxx()) == ""
    monkeypatch.setenv("CXX", f"env {pretended(tmp_path, 'cross-c++', '__aarch64__')}")
    assert build_cpu.capabilities() == ["baseline"]
    toolchain.write_record(tmp_path, version="0", cuda=None, cuda_reason="", architecture_list="")
    record = json.loads((tmp_path / "build_record.h").read_text().split('R"record(')[1].split(')record"')[0])
    assert record["compiler"] == ["cross-c++ 1.2.3"]
    assert record["capabilities"] == ["baseline"]


def test_a_cross_compiler_is_found_by_its_usual_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    pretended(tmp_path, "c++", "__x86_64__")
    pretended(tmp_path, "aarch64-linux-gnu-g++", "__aarch64__")
    build_cpu._macros.cache_clear()
    assert build_cpu.compiler_for("x86_64") == ["c++"]
    assert build_cpu.compiler_for("aarch64") == ["aarch64-linux-gnu-g++"]
    monkeypatch.setattr(sys, "executable", "no-such-python")
    with pytest.raises(SystemExit, match=r"compiler for riscv must be installed.*CXX"):
        build_cpu.compiler_for("riscv")
    build_cpu._macros.cache_clear()


def test_a_compiler_for_another_architecture_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", pretended(tmp_path, "own-c++", "__x86_64__"))
    with pytest.raises(SystemExit, match=r"CXX must be a compiler for aarch64, got '.*own-c\+\+'"):
        build_cpu.compiler_for("aarch64")


@pytest.mark.parametrize(("machine", "name"), [("arm64", "aarch64"), ("AMD64", "x86_64"), ("riscv64", "riscv64")])
def test_architectures_have_one_name(machine: str, name: str) -> None:
    assert build_cpu.architecture(machine) == name


@pytest.mark.parametrize("arguments", [["--target"], ["aarch64"], ["--target", "aarch64", "more"]])
def test_wrong_arguments_of_compile_cpu_are_refused(arguments: list[str]) -> None:
    command = [sys.executable, str(ROOT / "build_toolchain.py"), "compile-cpu", *arguments]
    # It stands beside what it imports, which a safe path would leave out.
    around = {name: value for name, value in os.environ.items() if name != "PYTHONSAFEPATH"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=around)
    assert done.returncode != 0
    assert done.stderr.splitlines() == [
        f"compile-cpu: arguments must be --target ARCHITECTURE, got {' '.join(arguments)!r}"
    ]


def test_vectors_are_compiled_for_aarch64(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the kernels' own flags; all of them are compiled by ``build_toolchain.py compile-cpu --target aarch64``."""
    monkeypatch.delenv("CXX", raising=False)
    try:
        compiler = build_cpu.compiler_for("aarch64")
    except SystemExit as none:
        pytest.skip(str(none))
    source = tmp_path / "x.cpp"
    source.write_text(
        "#ifndef __ARM_NEON\n#error no NEON\n#endif\n"
        "typedef float V __attribute__((vector_size(16)));\n"
        'extern "C" void f(V* x, float* y, int n) { *x += *x;\n#pragma omp simd\n'
        "for (int i = 0; i < n; ++i) y[i] *= y[i]; }\n"
    )
    flags = (*toolchain.STABLE_CXX_FLAGS, *build_cpu.capability_flags("baseline", compiler))
    made = (build_ninja.Object(str(source), "x.cpp.o", flags),)
    library = build_ninja.Library(tmp_path / "x.o", made, ("-r", "-nostdlib"))
    build_ninja.build(tmp_path, [library], None, 1, compiler)
    assert int.from_bytes(library.target.read_bytes()[18:20], "little") == AARCH64


def test_no_openmp_is_needed() -> None:
    """Threads are torch's (at::parallel_for); of OpenMP the kernels have the pragmas for vectors alone."""
    assert not [flag for flag in build_cpu.CXX_FLAGS if flag.startswith("-fopenmp") and flag != "-fopenmp-simd"]
    library = next(Path(_extension.__file__).parent.glob("_C*.so"), None)
    if library is None:
        pytest.skip("nothing was compiled")
    text = library.read_bytes()
    assert [
        name for name in (b"GOMP_", b"__kmpc_", b"omp_get_", b"libgomp", b"libomp", b"libiomp") if name in text
    ] == []


def test_a_portable_wheel_is_refused_before_the_build_where_its_tools_are_missing() -> None:
    command = [sys.executable, str(ROOT / "scripts" / "build_wheel")]
    if (Path(sys.executable).parent / "auditwheel").exists():
        pytest.skip("auditwheel is installed")
    done = subprocess.run(command, capture_output=True, text=True, env={"PATH": ""}, check=False)
    assert done.stderr.splitlines() == [
        "build_wheel: auditwheel must be installed, none was found: pip install -e '.[wheel]'"
    ]

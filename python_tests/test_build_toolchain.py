"""The build: which toolkit it takes, how many compilers run at once, what it says where something is missing."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from cuda_emulation.build import ROOT, toolchain

import build_cuda  # the folder of the toolchain is on the path by now
import build_ninja


def toolkit(folder: Path, version: str) -> Path:
    """A folder that looks like a CUDA toolkit of this version; returns it."""
    nvcc = folder / "bin" / "nvcc"
    nvcc.parent.mkdir(parents=True)
    (folder / "include").mkdir()
    (folder / "include" / "cuda_runtime.h").touch()
    nvcc.write_text(f'#!/bin/sh\necho "Cuda compilation tools, release {version}, V{version}.1"\n')
    nvcc.chmod(0o755)
    return folder


@pytest.fixture
def homes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Path]:
    """Two toolkits; the older one is named by CUDA_HOME, the newer one lies on the PATH; no others are looked for."""
    found = {version: toolkit(tmp_path / f"cuda-{version}", version) for version in ("12.8", "13.0")}
    for name in ("NVCC", "CUDA_PATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("CUDA_HOME", str(found["12.8"]))
    monkeypatch.setenv("PATH", str(found["13.0"] / "bin"), prepend=os.pathsep)
    monkeypatch.setattr(build_cuda, "_wheel_homes", list)
    monkeypatch.setattr(build_cuda, "_usual_homes", list)
    return found


@pytest.mark.parametrize(("wanted", "version"), [("13.1", "13.0"), ("12.4", "12.8"), (None, "12.8"), ("11.8", "12.8")])
def test_a_toolkit_of_torchs_major_version_goes_first(homes: dict[str, Path], wanted: str | None, version: str) -> None:
    found = build_cuda.find_cuda(wanted)
    assert isinstance(found, build_cuda.Cuda)
    assert (found.version, found.home) == (version, homes[version])


def test_an_nvcc_that_is_named_is_the_only_one(homes: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NVCC", str(homes["12.8"] / "bin" / "nvcc"))
    found = build_cuda.find_cuda("13.0")
    assert isinstance(found, build_cuda.Cuda)
    assert found.version == "12.8"
    monkeypatch.setenv("NVCC", str(homes["12.8"] / "bin" / "nothing"))
    assert build_cuda.find_cuda("13.0") == "no nvcc on the PATH or in CUDA_HOME"


def test_page_cache_counts_as_memory_to_be_had(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(toolchain, "available_memory", lambda: 5 << 30)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(16)), raising=False)
    assert toolchain.default_jobs() == 2
    monkeypatch.undo()
    meminfo = Path("/proc/meminfo")
    if not meminfo.is_file():
        pytest.skip("this system has no /proc/meminfo")
    told = {line.split(":")[0]: int(line.split()[1]) << 10 for line in meminfo.read_text().splitlines()}
    assert 0 < toolchain.available_memory() <= told["MemTotal"]
    if not Path("/sys/fs/cgroup/memory.max").is_file():
        assert toolchain.available_memory() >= told["MemFree"]


@pytest.mark.parametrize(
    ("names", "text"), [(["80-real", "90"], "8.0;9.0+PTX"), (["90a-real"], "9.0a"), (["120"], "12.0+PTX"), ([], "")]
)
def test_the_record_has_the_architectures_of_cmake(names: list[str], text: str) -> None:
    assert toolchain.cmake_architectures(names) == text


def test_a_wrong_architecture_of_cmake_is_refused() -> None:
    with pytest.raises(ValueError, match="CMAKE_CUDA_ARCHITECTURES must be numbers"):
        toolchain.cmake_architectures(["native"])


def setup(*arguments: str, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(ROOT / "setup.py"), *arguments, "--build-lib", str(folder), "--build-temp", str(folder)],
        capture_output=True,
        text=True,
        env={name: value for name, value in os.environ.items() if name != "DDARTS_NO_EXTENSION"} | environment,
        cwd=ROOT,
        check=False,
    )


def test_without_a_compiler_the_way_to_pure_python_is_named(tmp_path: Path) -> None:
    done = setup("build_ext", folder=tmp_path, CXX="no-such-compiler", DDARTS_CUDA="0")
    assert done.returncode != 0
    assert "'no-such-compiler' is not" in done.stderr
    assert "DDARTS_NO_EXTENSION=1" in done.stderr.splitlines()[-1]


def test_a_wrong_number_of_jobs_is_refused(tmp_path: Path) -> None:
    done = setup("build_ext", folder=tmp_path, MAX_JOBS="many", DDARTS_CUDA="0")
    assert done.stderr.splitlines()[-1] == "build: MAX_JOBS must be an integer of at least 1, got 'many'"


def test_one_run_of_ninja_compiles_a_source_and_a_kernel_of_one_name(tmp_path: Path) -> None:
    """Two objects from ``x.cpp`` and ``x.cu``, in a folder whose name has a space; nothing is compiled twice."""
    cuda = build_cuda.find_cuda()
    if isinstance(cuda, str):
        pytest.skip(cuda)
    sources = tmp_path / "the sources"
    sources.mkdir()
    (sources / "x.cpp").write_text('extern "C" int one() { return 1; }\n')
    (sources / "x.cu").write_text('__global__ void kernel() {}\nextern "C" int two() { return 2; }\n')
    folder = tmp_path / "the objects"
    objects = (
        build_ninja.Object(str(sources / "x.cpp"), "x.cpp.o", ("-fPIC",)),
        build_ninja.Object(str(sources / "x.cu"), "x.cu.o", ("-Xcompiler", "-fPIC"), "nvcc"),
    )
    target = folder / "library.so"
    library = build_ninja.Library(target, objects, ("-shared", str(cuda.runtime)))
    folder.mkdir()
    build_ninja.build(folder, [library], cuda.nvcc, 1)
    assert {path.name for path in folder.glob("*.o")} == {"x.cpp.o", "x.cu.o"}
    before = target.stat().st_mtime_ns
    build_ninja.build(folder, [library], cuda.nvcc, 1)
    assert target.stat().st_mtime_ns == before


def test_a_file_that_does_not_compile_ends_the_build_with_the_compilers_words(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "x.cpp").write_text("int one() { return nothing; }\n")
    objects = (build_ninja.Object(str(tmp_path / "x.cpp"), "x.cpp.o", ()),)
    with pytest.raises(SystemExit, match="compiling failed"):
        build_ninja.build(tmp_path, [build_ninja.Library(tmp_path / "x.so", objects, ("-shared",))], None, 1)
    assert "nothing" in capfd.readouterr().out

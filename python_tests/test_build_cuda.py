"""Every CUDA source compiles for sm_80 and sm_90, and no kernel spills or uses local memory."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from cuda_emulation.build import toolchain

REPORT = re.compile(
    r"Function properties for (\S+)\s+(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads"
)


@pytest.fixture(scope="module")
def reports() -> dict[str, str]:
    cuda = toolchain.find_cuda()
    if isinstance(cuda, str):
        pytest.skip(cuda)
    return toolchain.compile_cuda()


def test_no_kernel_spills_or_has_a_stack_frame(reports: dict[str, str]) -> None:
    assert set(reports) == set(toolchain.sources("cuda", ".cu"))
    for source, report in reports.items():
        kernels = REPORT.findall(report)
        assert kernels, f"{source}: no kernel in the report of ptxas"
        wasteful = [kernel for kernel, *sizes in kernels if any(int(size) for size in sizes)]
        assert not wasteful, f"{source}: local memory in {', '.join(wasteful)}"


def test_both_architectures_are_compiled(reports: dict[str, str]) -> None:
    for source, report in reports.items():
        assert set(re.findall(r"for '(sm_\d+)'", report)) == {"sm_80", "sm_90"}, source


@pytest.mark.parametrize(
    ("text", "flags"),
    [
        ("9.0", ["-gencode=arch=compute_90,code=sm_90"]),
        ("8.0;9.0+PTX", ["sm_80", "sm_90", "compute_90"]),
    ],
)
def test_architecture_lists_become_flags(text: str, flags: list[str]) -> None:
    found = toolchain.gencode_flags(text)
    assert len(found) == len(flags)
    assert all(flag.endswith(end) for flag, end in zip(found, flags, strict=True))


def test_a_wrong_architecture_list_is_refused() -> None:
    with pytest.raises(ValueError, match="TORCH_CUDA_ARCH_LIST must be numbers"):
        toolchain.gencode_flags("Ampere")


def test_an_nvcc_that_is_a_wrapper_leads_to_the_toolkit_behind_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cuda = toolchain.find_cuda()
    if isinstance(cuda, str):
        pytest.skip(cuda)
    wrapper = tmp_path / "bin" / "nvcc"
    wrapper.parent.mkdir()
    wrapper.write_text(f'#!/bin/sh\nexec {cuda.nvcc} "$@"\n')
    wrapper.chmod(0o755)
    for name in ("NVCC", "CUDA_HOME", "CUDA_PATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PATH", str(wrapper.parent), prepend=":")
    found = toolchain.find_cuda()
    assert not isinstance(found, str)
    assert found.nvcc == wrapper
    assert (found.include / "cuda_runtime.h").is_file()

"""The loader: what was compiled is in use, and where it is not, the reason is said."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys

import pytest
from rich.console import Console

from ddarts_ext import _extension, info
from ddarts_ext.ops._library import defined_ops, has_kernel

compiled = pytest.mark.skipif(bool(_extension.load().cpu_reason), reason=_extension.load().cpu_reason or "compiled")


def run(code: str, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=os.environ | environment, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@compiled
@pytest.mark.parametrize("op", defined_ops())
def test_every_op_has_a_cpu_kernel(op: str) -> None:
    assert has_kernel(op, "cpu")
    assert _extension.why_not(op, "cpu") == ""


def test_the_reason_agrees_with_the_dispatcher() -> None:
    for op in defined_ops():
        for device in ("cpu", "cuda"):
            if not _extension.why_not(op, device):
                assert has_kernel(op, device)


def test_the_extension_can_be_ignored() -> None:
    code = (
        "from ddarts_ext import _extension as e; print(e.why_not('mixed_sum', 'cpu'), e.has_kernel('mixed_sum', 'cpu'))"
    )
    assert run(code, DDARTS_NO_EXTENSION="1") == "DDARTS_NO_EXTENSION is set False"


@compiled
def test_the_portable_kernels_can_be_chosen_and_agree() -> None:
    code = """
import torch
from ddarts_ext import _extension, ops
torch.manual_seed(0)
x = torch.randn(2, 8, 5, 7)
print(_extension.load().cpu_capability, *ops.pool3x3(x).average.double().sum(dim=(0, 2, 3)).mul(1e3).round().tolist())
"""
    capability, *values = run(code, DDARTS_CPU_CAPABILITY="baseline").split()
    assert capability == "baseline"
    assert values == run(code).split()[1:]


@compiled
def test_a_misspelt_capability_is_said() -> None:
    code = """
import warnings
with warnings.catch_warnings(record=True) as said:
    warnings.simplefilter("always")
    from ddarts_ext import _extension
    _extension.load()
print([str(each.message) for each in said if "CAPABILITY" in str(each.message)])
"""
    said = run(code, DDARTS_CPU_CAPABILITY="avx-512")
    assert "DDARTS_CPU_CAPABILITY must be one of baseline, avx2, avx512, got 'avx-512'" in said
    for name in (*_extension.CAPABILITIES, ""):
        assert run(code, DDARTS_CPU_CAPABILITY=name) == "[]"


def test_the_capabilities_are_those_that_are_compiled() -> None:
    toolchain = pytest.importorskip("build_toolchain", reason="the sources are not there")
    assert tuple(toolchain.CAPABILITY_FLAGS) == _extension.CAPABILITIES


def test_unknown_names_are_refused() -> None:
    with pytest.raises(ValueError, match=r"why_not: op must be one of .*, got 'nothing'"):
        _extension.why_not("nothing", "cpu")
    with pytest.raises(ValueError, match=r"why_not: device_type must be 'cpu' or 'cuda', got 'tpu'"):
        _extension.why_not("mixed_sum", "tpu")


@compiled
def test_a_library_for_another_cuda_is_not_loaded(monkeypatch: pytest.MonkeyPatch, tmp_path: object) -> None:
    record = {"torch": "2.11.0", "cuda": {"toolkit": "12.8", "architectures": "8.0;9.0+PTX"}, "cuda_reason": ""}
    monkeypatch.setattr(_extension, "_FOLDER", tmp_path)
    assert "without CUDA kernels" in _extension._load_cuda(record)
    (tmp_path / "_cuda.cpython-39-x86_64-linux-gnu.so").touch()  # type: ignore[attr-defined]
    assert "without CUDA kernels" in _extension._load_cuda(record), "that of another Python"
    (tmp_path / "_cuda.so").touch()  # type: ignore[attr-defined]
    monkeypatch.setattr(_extension.torch.version, "cuda", "13.0")
    assert "were built with CUDA 12.8" in _extension._load_cuda(record)


@pytest.mark.parametrize(("device", "runs"), [((8, 0), True), ((8, 6), True), ((7, 5), False), ((12, 0), True)])
def test_architectures_are_compared_with_the_device(
    monkeypatch: pytest.MonkeyPatch, device: tuple[int, int], runs: bool
) -> None:
    monkeypatch.setattr(_extension.torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(_extension.torch.cuda, "get_device_capability", lambda: device)
    reason = _extension._device_reason({"cuda": {"architectures": "8.0;9.0+PTX"}})
    assert (reason == "") is runs


def test_a_torch_that_is_too_old_is_one_warning_with_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    if _extension.load().cpu_reason:
        pytest.skip("nothing compiled is in use")
    monkeypatch.setattr(_extension.torch, "__version__", "2.10.1+cu128")
    with pytest.warns(RuntimeWarning, match=r"older than 2\.11.*pip install --force-reinstall") as caught:
        assert "2.10.1" in _extension._load().cpu_reason
    assert len(caught) == 1


def test_info_is_plain_data_and_a_table() -> None:
    found = info.collect()
    assert json.loads(json.dumps(found)) == found
    assert set(found["ops"]) == set(defined_ops())
    console = Console(width=120, file=io.StringIO())
    with console.capture() as text:
        console.print(info.render(found))
    assert "mixed_sum_backward" in text.get()

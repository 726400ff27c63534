"""The emulation runs right kernels rightly and catches wrong ones: each fault here was planted."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from cuda_emulation import build

DTYPES = (torch.float64, torch.float32, torch.float16, torch.bfloat16)
SOURCE = Path(build.HERE, "planted_faults.cpp")


@pytest.fixture(scope="module")
def library(emulated: build.Emulated) -> ctypes.CDLL:
    found = ctypes.CDLL(str(build.compile_library([SOURCE])))
    for name in ("block_totals", "missing_barrier", "divergent_barrier", "barrier_against_warp", "absent_lane"):
        getattr(found, name).restype = ctypes.c_char_p
    return found


@pytest.fixture(params=build.ORDERS)
def order(request: pytest.FixtureRequest, library: ctypes.CDLL) -> str:
    library.emulation_set_order(build.ORDERS.index(request.param), ctypes.c_uint64(3))
    return str(request.param)


def run(kernel: Callable[..., bytes | None], threads: int) -> tuple[torch.Tensor, torch.Tensor, str]:
    """Input, output and complaint of a kernel with one block of this many threads."""
    x, out = torch.randn(threads), torch.zeros(threads)
    complaint = kernel(ctypes.c_void_p(x.data_ptr()), ctypes.c_void_p(out.data_ptr()), threads)
    return x, out, (complaint or b"").decode()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("count", [0, 1, 127, 1000])
def test_a_right_kernel_gives_the_sum_in_every_order(
    library: ctypes.CDLL, order: str, dtype: torch.dtype, count: int
) -> None:
    accumulate = torch.float64 if dtype == torch.float64 else torch.float32
    x, totals = torch.randn(count).to(dtype), torch.zeros(8, dtype=accumulate)
    complaint = library.block_totals(
        DTYPES.index(dtype),
        ctypes.c_void_p(x.data_ptr()),
        ctypes.c_int64(count),
        ctypes.c_void_p(totals.data_ptr()),
        8,
        128,
    )
    assert complaint is None
    torch.testing.assert_close(totals.sum(), x.to(accumulate).sum(), rtol=1e-5, atol=1e-4)


def test_a_missing_barrier_changes_the_result_with_the_order(library: ctypes.CDLL) -> None:
    right = []
    for number in range(len(build.ORDERS)):
        library.emulation_set_order(number, ctypes.c_uint64(3))
        x, out, complaint = run(library.missing_barrier, 64)
        assert complaint == ""
        right.append(torch.equal(out, x.flip(0)))
    assert not all(right)


def test_reading_unwritten_shared_memory_gives_nan(library: ctypes.CDLL, order: str) -> None:
    x, out, _ = run(library.unwritten_shared, 64)
    assert out[0].isnan()
    assert torch.equal(out[1:], x[1:])


def test_a_divergent_barrier_is_named(library: ctypes.CDLL, order: str) -> None:
    _, _, complaint = run(library.divergent_barrier, 64)
    assert "divergent barrier" in complaint
    assert "planted_faults.cuh:" in complaint


def test_a_barrier_against_a_warp_collective_is_a_deadlock(library: ctypes.CDLL, order: str) -> None:
    _, _, complaint = run(library.barrier_against_warp, 32)
    assert "16 threads wait at a barrier, 16 in a warp collective" in complaint


def test_a_mask_that_names_a_returned_lane_is_refused(library: ctypes.CDLL, order: str) -> None:
    _, _, complaint = run(library.absent_lane, 32)
    assert "has returned" in complaint or "have returned" in complaint


def test_a_block_of_too_many_threads_is_refused(library: ctypes.CDLL) -> None:
    _, _, complaint = run(library.missing_barrier, 1025)
    assert "1025 threads" in complaint


def test_the_address_sanitizer_sees_an_access_past_the_end(emulated: build.Emulated) -> None:
    # The kernel reads one element more than it has threads less one: 64 are enough, 63 are not.
    code = """
import ctypes
library.past_the_end.restype = ctypes.c_char_p
out = torch.zeros(64)
for count in (64, 63):
    x = torch.randn(count)
    library.past_the_end(ctypes.c_void_p(x.data_ptr()), ctypes.c_void_p(out.data_ptr()), 64)
    print("survived", count, flush=True)
"""
    done = build.run_sanitized(build.compile_library([SOURCE], sanitize=True), code)
    assert done.stdout.split() == ["survived", "64"]
    assert "heap-buffer-overflow" in done.stderr
    assert done.returncode != 0

"""The laboratory finds what was planted, names its line, and finds nothing where nothing is wrong."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from cuda_emulation import build, laboratory
from cuda_emulation.laboratory import Kernel, Site

SOURCE = Path(build.HERE, "planted_waste.cpp")
Run = Callable[..., Kernel]


@pytest.fixture(scope="module")
def run(emulated: build.Emulated) -> Run:
    """``run(name, blocks=1, threads=256)``: what was seen of one planted kernel."""
    path = build.compile_library([SOURCE], laboratory=True)
    library = ctypes.CDLL(str(path))

    def one(name: str, blocks: int = 1, threads: int = 256) -> Kernel:
        x, out = torch.randn(1 << 15), torch.zeros(1 << 15)
        laboratory.forget(library)
        getattr(library, name)(ctypes.c_void_p(x.data_ptr()), ctypes.c_void_p(out.data_ptr()), blocks, threads)
        (kernel,) = laboratory.read(library, path)
        return kernel

    return one


def line(text: str) -> str:
    """``planted_waste.cuh:N`` of the line that contains the text."""
    lines = Path(build.HERE, "planted_waste.cuh").read_text().splitlines()
    (number,) = [number for number, content in enumerate(lines, 1) if text in content]
    return f"planted_waste.cuh:{number}"


def site(kernel: Kernel, *, write: bool, shared: bool) -> Site:
    (found,) = [site for site in kernel.sites if (site.write, site.shared) == (write, shared)]
    return found


@pytest.mark.parametrize(
    ("name", "bytes_of_lane", "requests", "sectors"),
    [
        ("narrow_copy", 2, 16, 2.0),
        ("coalesced_copy", 4, 16, 4.0),
        ("double_copy", 8, 32, 4.0),
        ("wide_copy", 16, 64, 4.0),
    ],
)
def test_wide_accesses_are_two_or_four_requests(
    run: Run, name: str, bytes_of_lane: int, requests: int, sectors: float
) -> None:
    kernel = run(name, blocks=2)
    for write in (False, True):
        found = site(kernel, write=write, shared=False)
        assert (found.bytes, found.requests, found.sectors, found.used) == (bytes_of_lane, requests, sectors, 1.0)
    assert kernel.moved == kernel.needed == (512 * bytes_of_lane, 512 * bytes_of_lane)
    assert kernel.races == ()


def test_narrow_accesses_are_found_and_others_are_not(run: Run) -> None:
    assert {site.finding for _, site in run("narrow_copy").findings()} == {"2 bytes a lane"}
    for name in ("coalesced_copy", "double_copy", "wide_copy"):
        assert run(name).findings() == []


def test_strided_reads_are_found_by_line(run: Run) -> None:
    kernel = run("strided_read", blocks=2)
    ((share, found),) = kernel.findings()
    assert found.where == line("x[i * 9]")
    assert (found.sectors, found.used) == (32.0, 0.125)
    assert found.finding == "32.0 sectors a request, 12% of them used"
    assert share == pytest.approx(32 / 36)
    assert (kernel.moved[0], kernel.needed[0]) == (512 * 32, 512 * 4)


@pytest.mark.parametrize(
    ("name", "sectors", "least", "finding"),
    [
        ("broadcast_read", 1.0, 1.0, ""),
        ("shifted_read", 5.0, 4.0, ""),
        ("second_read", 8.0, 4.0, "8.0 sectors a request, 50% of them used"),
    ],
)
def test_sectors_are_held_against_the_least_that_would_do(
    run: Run, name: str, sectors: float, least: float, finding: str
) -> None:
    kernel = run(name, blocks=2)
    found = site(kernel, write=False, shared=False)
    assert (found.sectors, found.least, found.finding) == (sectors, least, finding)
    assert kernel.over_least == pytest.approx((sectors + 4) / (least + 4))  # the writes are of whole sectors


def test_the_smallest_grid_is_kept(run: Run) -> None:
    assert run("coalesced_copy", blocks=3).blocks == 3


def test_a_dry_launch_is_seen_and_does_not_run(emulated: build.Emulated) -> None:
    path = build.compile_library([SOURCE], laboratory=True)
    library = ctypes.CDLL(str(path))
    x, out = torch.ones(1 << 15), torch.zeros(1 << 15)
    laboratory.forget(library)
    with laboratory.dry(library):
        for blocks in (64, 40, 64):
            library.coalesced_copy(ctypes.c_void_p(x.data_ptr()), ctypes.c_void_p(out.data_ptr()), blocks, 256)
    (kernel,) = laboratory.read(library, path)
    assert (kernel.blocks, kernel.launches, kernel.sites) == (40, 3, ())
    assert not out.any()
    library.coalesced_copy(ctypes.c_void_p(x.data_ptr()), ctypes.c_void_p(out.data_ptr()), 1, 256)
    assert out[:256].all()


def test_a_struct_is_copied_in_words(run: Run) -> None:
    found = site(run("struct_copy", threads=32), write=False, shared=False)
    assert (found.bytes, found.requests) == (8, 6)  # three words, in halves of a warp
    assert (found.sectors, found.used) == (12.0, pytest.approx(1 / 3))


@pytest.mark.parametrize("memory", ["static", "dynamic"])
def test_columns_conflict_unless_rows_are_padded(run: Run, memory: str) -> None:
    wrong, right = run(f"column_of_{memory}", threads=1024), run(f"padded_column_of_{memory}", threads=1024)
    ((share, found),) = wrong.findings()
    assert found.ways == 32.0
    assert found.where.startswith(line("out[threadIdx.x] = tile[column * P + row]") + " < ")  # inlined into the kernel
    assert share == pytest.approx(32 / 33)
    assert right.findings() == []
    assert site(right, write=False, shared=True).ways == 1.0


def test_a_two_way_conflict_is_found(run: Run) -> None:
    ((_, found),) = run("two_way_conflict").findings()
    assert found.finding == "2.0-way bank conflict"


@pytest.mark.parametrize("name", ["race_in_block", "race_in_warp"])
def test_a_missing_barrier_is_a_race_in_any_order(run: Run, name: str) -> None:
    races = run(name).races
    assert sum(race.count for race in races) == 1024  # every byte once
    assert all(race.shared for race in races)
    assert len({where for race in races for where in (race.first, race.second)}) == 2


def test_barriers_of_block_and_warp_order_accesses(run: Run) -> None:
    for name in ("warp_barrier", "two_way_conflict", "ragged_loop"):
        assert run(name).races == ()


def test_accesses_between_two_barriers_are_seen(run: Run) -> None:
    kernel = run("between_barriers")
    assert {(site.write, site.shared) for site in kernel.sites} == {
        (a, b) for a in (False, True) for b in (False, True)
    }
    assert {site.requests for site in kernel.sites} == {8}
    assert kernel.races == ()


def test_blocks_race_in_global_memory_but_not_with_atomics(run: Run) -> None:
    (race,) = run("race_of_blocks", blocks=3).races
    assert not race.shared
    assert race.count == 2 * 256 * 4
    assert race.first == race.second == line("race_of_blocks")
    assert run("race_of_blocks", blocks=1).races == ()
    assert run("atomic_of_blocks", blocks=3).races == ()


def test_lanes_that_left_a_loop_early_are_matched_again_after_a_barrier(run: Run) -> None:
    kernel = run("ragged_loop", blocks=1, threads=32)
    (found,) = [s for s in kernel.sites if s.where == line("tile[threadIdx.x] += x") and not s.shared]
    assert (found.requests, found.lanes) == (2, 21.0)


@pytest.mark.parametrize(
    ("demangled", "short"),
    [
        (
            "void ddarts::depthwise::forward_kernel<__nv_bfloat16, 1>(ddarts::DepthwiseProblem)",
            "forward_kernel<__nv_bfloat16, 1>",
        ),
        ("void ddarts::(anonymous namespace)::rows<float, (int)4, (bool)1>(float const*)", "rows<float, 4, 1>"),
        ("void ddarts::_INTERNAL_a1_2_b_cu_3::rows<float, (int)4, true>(float*)", "rows<float, 4, true>"),
        (
            "void ddarts::spawn::forward_kernel<uint4, unsigned int>(uint4 const*)",
            "forward_kernel<uint4, unsigned int>",
        ),
        ("ddarts::plain(float const*, float*)", "plain"),
    ],
)
def test_names_of_both_compilers_become_one(demangled: str, short: str) -> None:
    assert laboratory.short_name(demangled) == short

"""The report of real kernels: it has every kernel of an op, what nvcc says of it, and no races."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest
from cuda_emulation import build, report
from cuda_emulation.laboratory import Kernel
from cuda_emulation.report import Resources


def test_the_report_has_every_kernel_of_an_op(emulated: build.Emulated) -> None:
    command = [sys.executable, str(build.ROOT / "scripts" / "kernel_report"), "--op", "channel_iim"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    rows = [line.split(" | ") for line in done.stdout.splitlines() if line.startswith("| `")]
    assert {re.match(r"\| `(\w+)<", row[0])[1] for row in rows} == {"channels_last_kernel", "contiguous_kernel"}  # type: ignore[index]
    layouts = {"float32 channels-last", "bfloat16 channels-last", "float32 contiguous"}
    late = {"float32 channels-last [4, 64, 8, 8]", "float32 contiguous [4, 64, 8, 8]"}
    assert {row[1] for row in rows} == layouts | late
    for row in rows:
        assert float(row[4]) < 1.2, row  # every map is read once
        assert row[11].rstrip(" |") == "-" or int(row[11].rstrip(" |")) >= 132, row  # at [64, 64, 8, 8]
        assert row[6] == "0", row
        assert row[7:] == ["no nvcc"] * 4 or int(row[7]) > 0, row


def test_the_committed_report_has_all_ops_and_no_race() -> None:
    text = (build.ROOT / "docs" / "kernels" / "report.md").read_text()
    assert re.findall(r"^## (\w+)$", text, re.MULTILINE) == list(report.OPS)
    rows = [line.split(" | ") for line in text.splitlines() if line.startswith("| `")]
    assert {row[6] for row in rows} == {"0"}
    assert {row[8] for row in rows} == {"0"}  # spills


def test_the_forward_of_the_depthwise_convolution_reads_without_bank_conflicts() -> None:
    text = (build.ROOT / "docs" / "kernels" / "report.md").read_text()
    rows = [line.split(" | ") for line in text.splitlines() if line.startswith("| `forward_kernel<float,")]
    ways = [float(row[5]) for row in rows if row[1] == "float32 channels-last" and row[5] != "-"]
    assert len(ways) == 2
    assert max(ways) < 1.1


def test_a_grid_that_leaves_a_device_idle_is_said() -> None:
    def seen(name: str, grid: int | None) -> report.Seen:
        return report.Seen("op", "float32 contiguous", Kernel(name, 1, 1, 256, 0, (1, 1), (1, 1), ()), grid)

    lines = list(report.markdown([seen("small", 131), seen("full", 132), seen("elsewhere", None)], "no nvcc", "sm_90"))
    (said,) = [line for line in lines if line.startswith("- ")]
    assert said == "- a grid that does not fill 132 multiprocessors at [64, 64, 8, 8]: `small` 131"
    assert [line.split(" | ")[11] for line in lines if line.startswith("| `")] == ["131 |", "132 |", "- |"]


def test_what_is_met_is_added_up_by_limit_and_layout() -> None:
    row = "| `k<{}>` | float32 contiguous{} | 4.0 | {} | 1.0 | {} | 0 | 9 | {} | 0 | 8 | {} |"
    lines = ["## op", row.format(1, "", "1.30", "1.10", 0, 132), row.format(2, " [4, 64, 8, 8]", "1.31", "-", 8, "-")]
    assert list(report.limits(lines))[3:] == [
        "- bank conflicts: 1.1 passes a request to shared memory at most. Kept in 1 of 1 rows.",
        "- global memory: 1.3 times the least sectors at most. Kept in 1 of 2 rows. "
        "float32 contiguous: op `k<2>` 1.31.",
        "- spills: 0. Kept in 1 of 2 rows. float32 contiguous: op `k<2>` 8.",
        "- grids at [64, 64, 8, 8]: 132 blocks at least. Kept in 1 of 1 rows.",
    ]


def test_kernels_of_an_op_are_known_by_its_files_and_those_that_it_calls() -> None:
    known = {("mixed_sum", "moments"): Resources(1, 0, 0), ("relu_separable_conv2d", "joins"): Resources(2, 0, 0)}
    assert report.resources_of("relu_separable_conv2d", "moments", known).registers == 1
    assert report.resources_of("relu_pointwise_conv2d", "joins", known).registers == 2


@pytest.mark.parametrize(
    ("registers", "static", "threads", "dynamic", "architecture", "blocks"),
    [
        (32, 0, 256, 0, "sm_90", 8),  # 2048 threads
        (128, 0, 256, 0, "sm_90", 2),  # 65536 registers
        (32, 0, 64, 0, "sm_90", 32),  # the most that there are
        (32, 4096, 256, 40960, "sm_80", 3),  # 164 KiB of shared memory, one of each block is the system's
        (32, 4096, 256, 40960, "sm_90", 5),
        (33, 0, 256, 0, "sm_90", 6),  # registers are given to a warp by 256
    ],
)
def test_blocks_of_a_multiprocessor(
    registers: int, static: int, threads: int, dynamic: int, architecture: str, blocks: int
) -> None:
    assert Resources(registers, 0, static).blocks(threads, dynamic, architecture) == blocks

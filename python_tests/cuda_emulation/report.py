"""Runs the cases of every op in the laboratory and joins what was seen with what nvcc says of the same kernels."""

from __future__ import annotations

import math
import re
import subprocess
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple
from unittest import mock

import torch
from cuda_emulation import build, cases, laboratory
from cuda_emulation.laboratory import Kernel

from ddarts_ext.ops import _checks

OPS = (
    "relu_depthwise_conv2d",
    "relu_separable_conv2d",
    "relu_pointwise_conv2d",
    "pool3x3",
    "pool3x3_readers",
    "mixed_edges",
    "mixed_sum",
    "grouped_batch_norm",
    "channel_iim",
    "spawn_group",
    "recurrent_node",
)


class Variant(NamedTuple):
    """How images are. tf32: whether products of float32 may be in TF32, for the ops that have such kernels."""

    dtype: torch.dtype
    format_: torch.memory_format
    tf32: bool = False

    def __str__(self) -> str:
        products = " in TF32" if self.tf32 else ""
        return f"{str(self.dtype).removeprefix('torch.')}{products} {LAYOUTS[self.format_]}"


VARIANTS = (
    Variant(torch.float32, torch.channels_last),
    Variant(torch.float32, torch.channels_last, tf32=True),
    Variant(torch.bfloat16, torch.channels_last),
    Variant(torch.float32, torch.contiguous_format),
)
WITH_TF32 = ("relu_separable_conv2d", "relu_pointwise_conv2d", "mixed_edges")
SHAPES = {cases.SMALL: VARIANTS, cases.FEW_LATE: [v for v in VARIANTS if v.dtype == torch.float32]}
"""Whose accesses are seen, with the variants of each."""
MULTIPROCESSORS = 132
"""Of an H100: what a grid must fill."""
SHORTER = {"__nv_bfloat16": "bf16", "unsigned int": "u32", "true": "1", "false": "0", "unsigned short": "u16"}
LAYOUTS = {torch.channels_last: "channels-last", torch.contiguous_format: "contiguous"}


@dataclass(frozen=True)
class Resources:
    """What a kernel takes for one architecture; spills, static_shared: bytes."""

    registers: int
    spills: int
    static_shared: int

    def blocks(self, threads: int, dynamic_shared: int, architecture: str) -> int:
        """Blocks that one multiprocessor holds at once, by registers, threads and shared memory."""
        shared_memory = {"sm_80": 164, "sm_86": 100, "sm_89": 100, "sm_90": 228}[architecture] * 1024
        most_threads = {"sm_86": 1536, "sm_89": 1536}.get(architecture, 2048)
        warps = -(-threads // 32)
        by_registers = (
            65536 // (-(-self.registers * 32 // 256) * 256) // 4 * 4 // warps
        )  # four schedulers, 256 at a time
        shared = -(-(self.static_shared + dynamic_shared + 1024) // 128) * 128  # 1 KiB is the system's
        return min(by_registers, most_threads // (warps * 32), shared_memory // shared, 32)


def resources(architecture: str) -> dict[tuple[str, str], Resources] | str:
    """(stem of the .cu, kernel) -> what ptxas reports, or why there is nothing: no nvcc."""
    cuda = build.toolchain.find_cuda()
    if isinstance(cuda, str):
        return cuda
    found: dict[tuple[str, str], Resources] = {}
    entry = re.compile(
        rf"entry function '(\S+)' for '{architecture}'\n.*\n\s*\d+ bytes stack frame, (\d+) bytes spill stores.*\n"
        r".*Used (\d+) registers(?:.*?(\d+) bytes smem)?"
    )
    for source, text in build.toolchain.compile_cuda().items():
        matches = entry.findall(text)
        names = subprocess.run(
            ["c++filt"], input="\n".join(m[0] for m in matches), capture_output=True, text=True, check=True
        ).stdout.splitlines()
        for name, (_, spills, registers, shared) in zip(names, matches, strict=True):
            own = Resources(int(registers), int(spills), int(shared or 0))
            found[Path(source).stem, readable(laboratory.short_name(name))] = own
    return found


def resources_of(op: str, kernel: str, known: dict[tuple[str, str], Resources]) -> Resources:
    """Of a kernel that ``op`` launches: its own, or one of an op whose launchers it calls."""
    stems = [path.stem for path in build.op_sources(op) if path.suffix == ".cu"]
    return next(known[stem, kernel] for stem in stems if (stem, kernel) in known)


def nvcc_version() -> str:
    """``nvcc 13.0``, or why there is none."""
    cuda = build.toolchain.find_cuda()
    return cuda if isinstance(cuda, str) else f"nvcc {cuda.version}"


def readable(name: str) -> str:
    """A kernel's name with short template arguments."""
    for long, short in SHORTER.items():
        name = re.sub(rf"\b{long}\b", short, name)
    return re.sub(r"ddarts::|, ", lambda m: "," if m[0] == ", " else "", name)


@dataclass(frozen=True)
class Seen:
    """A kernel in all cases of one shape, dtype and layout. grid: its fewest blocks at LATE, if it runs there."""

    op: str
    variant: str
    kernel: Kernel
    grid: int | None


def look(op_names: Iterable[str] = OPS) -> Iterator[Seen]:
    """Runs all cases of these ops. Only in a process of its own: it puts the emulated kernels into ``ddarts_ext``."""
    for op in op_names:
        # Of one op at a time: two of them may be in one library.
        with torch.library._scoped_library("ddarts_ext", "IMPL") as into:
            yield from _look_at(op, into)


def _look_at(op: str, into: torch.library.Library) -> Iterator[Seen]:
    path = build.compile_library(build.op_sources(op), laboratory=True)
    library = build.load(path)
    for name in (op, f"{op}_backward"):
        if hasattr(torch.ops.ddarts_ext, name):
            emulated = getattr(getattr(torch.ops, build.NAMESPACE), name).default
            into.impl(name, emulated, "CPU")  # type: ignore[no-untyped-call]

    def kernels(shape: cases.Shape, variant: Variant) -> list[Kernel]:
        laboratory.forget(library)
        with mock.patch.object(_checks, "tf32_allowed", return_value=variant.tf32):
            for case in cases.cases(variant.dtype, variant.format_, shape):
                if case.op == op:
                    case.run()
        return laboratory.read(library, path)

    for variant in VARIANTS:
        if variant.tf32 and op not in WITH_TF32:
            continue
        with laboratory.dry(library):
            grids = {kernel.name: kernel.blocks for kernel in kernels(cases.LATE, variant)}
        for shape in (shape for shape, variants in SHAPES.items() if variant in variants):
            text = str(variant) if shape == cases.SMALL else f"{variant} {shape}"
            for kernel in kernels(shape, variant):
                yield Seen(op, text, kernel, grids.get(kernel.name))


def markdown(seen: Iterable[Seen], known: dict[tuple[str, str], Resources] | str, architecture: str) -> Iterator[str]:
    """Lines of the report: for every op a table of its kernels, then what is wasteful in them."""
    everything = list(seen)
    for op in dict.fromkeys(one.op for one in everything):
        own = [one for one in everything if one.op == op]
        yield from (
            "",
            f"## {op}",
            "",
            f"| {' | '.join(COLUMNS)} |",
            f"|{' --- |' * 2}{' ---: |' * (len(COLUMNS) - 2)}",
        )
        yield from (_row(one, known, architecture) for one in own)
        yield from ("", *(list(_findings(own)) or ["Nothing is wasteful."]))


COLUMNS = (
    "kernel", "dtype, layout", "sectors", "over least", "moved / needed", "ways", "races",
    "registers", "spills", "shared", "blocks", "grid",
)  # fmt: skip


LIMITS = {
    "ways": (laboratory.MOST_WAYS, "bank conflicts: {} passes a request to shared memory at most"),
    "over least": (laboratory.MOST_SECTORS, "global memory: {} times the least sectors at most"),
    "spills": (0, "spills: {}"),
}
"""Columns of which a row must not have more, averages of a kernel among them, and what that is."""


def limits(lines: Iterable[str]) -> Iterator[str]:
    """What the rows of :func:`markdown` keep and what they do not: how many, and which kernels."""
    rows: list[tuple[str, dict[str, str]]] = []
    op = ""
    for line in lines:
        op = line.removeprefix("## ") if line.startswith("## ") else op
        if line.startswith("| `"):
            rows.append((op, dict(zip(COLUMNS, line.strip("| ").split(" | "), strict=True))))
    yield from ("", "## What is met, and what is not", "")
    for column, (most, text) in LIMITS.items():
        yield _kept(text.format(most), [r for r in rows if _figure(r[1][column]) is not None], column, most)
    grids = [r for r in rows if _figure(r[1]["grid"]) is not None]
    yield _kept(f"grids at {cases.LATE}: {MULTIPROCESSORS} blocks at least", grids, "grid", -MULTIPROCESSORS, sign=-1)


def _kept(text: str, rows: Sequence[tuple[str, dict[str, str]]], column: str, most: float, sign: int = 1) -> str:
    over: dict[str, dict[str, list[str]]] = {}
    for op, row in rows:
        if sign * float(row[column]) > most:
            kernels = over.setdefault(row["dtype, layout"].split(" [")[0], {})
            kernels.setdefault(f"{op} {row['kernel']}", []).append(row[column])
    kept = len(rows) - sum(len(found) for kernels in over.values() for found in kernels.values())
    line = f"- {text}. Kept in {kept} of {len(rows)} rows."
    for layout, kernels in over.items():
        named = [f"{name} {', '.join(found)}" for name, found in kernels.items()]
        line += f" {layout}: {'; '.join(named)}."
    return line


def _figure(cell: str) -> float | None:
    try:
        return float(cell)
    except ValueError:
        return None


def _row(one: Seen, known: dict[tuple[str, str], Resources] | str, architecture: str) -> str:
    kernel, name = one.kernel, readable(one.kernel.name)
    cells = [f"`{name}`", one.variant]
    cells += [_number(kernel.mean("sectors", shared=False), ".1f"), _number(kernel.over_least, ".2f")]
    cells += [f"{sum(kernel.moved) / max(1, sum(kernel.needed)):.1f}", _number(kernel.mean("ways", shared=True), ".2f")]
    cells += [str(sum(race.count for race in kernel.races))]
    if isinstance(known, str):
        cells += ["no nvcc"] * 4
    else:
        own = resources_of(one.op, name, known)
        cells += [str(own.registers), str(own.spills), f"{own.static_shared + kernel.dynamic_shared}"]
        cells += [str(own.blocks(kernel.threads, kernel.dynamic_shared, architecture))]
    cells += ["-" if one.grid is None else str(one.grid)]
    return f"| {' | '.join(cells)} |"


def _findings(seen: Sequence[Seen], least: float = 0.05) -> Iterator[str]:
    """What is wasteful, a line for each place and fault with the kernels it was seen in."""
    found: dict[tuple[str, str], dict[str, float]] = {}
    for one in seen:
        for share, site in one.kernel.findings():
            line = site.where.split(" < ")[0]
            what = (
                f"{'write' if site.write else 'read'} of {'shared' if site.shared else 'global'} memory: {site.finding}"
            )
            kernels = found.setdefault((line, what), {})
            name = f"`{readable(one.kernel.name)}` {one.variant}"
            kernels[name] = kernels.get(name, 0.0) + share
        if one.grid is not None and one.grid < MULTIPROCESSORS:
            what = f"a grid that does not fill {MULTIPROCESSORS} multiprocessors at {cases.LATE}"
            found.setdefault(("", what), {})[f"`{readable(one.kernel.name)}` {one.grid}"] = 1.0
        for race in one.kernel.races:
            name = f"`{readable(one.kernel.name)}` {one.variant}"
            found.setdefault((race.first, f"RACE with {race.second}, {race.count} bytes"), {})[name] = 1.0
    for (line, what), kernels in sorted(found.items()):
        costly = [f"{name} {share:.0%}" if line else name for name, share in kernels.items() if share >= least]
        if costly:
            yield f"- {line}, {what}: {'; '.join(costly)}" if line else f"- {what}: {'; '.join(costly)}"


def _number(value: float, form: str) -> str:
    return "-" if math.isnan(value) else format(value, form)

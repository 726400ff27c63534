"""Runs the cases of every op in the laboratory and joins what was seen with what nvcc says of the same kernels."""

from __future__ import annotations

import math
import re
import subprocess
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from cuda_emulation import build, cases, laboratory
from cuda_emulation.laboratory import Kernel

OPS = (
    "relu_depthwise_conv2d",
    "pool3x3",
    "mixed_sum",
    "grouped_batch_norm",
    "channel_iim",
    "spawn_group",
    "recurrent_node",
)
VARIANTS = (
    (torch.float32, torch.channels_last),
    (torch.bfloat16, torch.channels_last),
    (torch.float32, torch.contiguous_format),
)
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
    """(op, kernel) -> what ptxas reports, or why there is nothing: no nvcc."""
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
            op = next((op for op in OPS if Path(source).stem.startswith(op)), source)  # <op>.cu, <op>_*.cu
            found[op, readable(laboratory.short_name(name))] = Resources(int(registers), int(spills), int(shared or 0))
    return found


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
    """A kernel in all cases of one dtype and layout."""

    op: str
    variant: str
    kernel: Kernel


def look(op_names: Iterable[str] = OPS) -> Iterator[Seen]:
    """Runs all cases of these ops. Only in a process of its own: it puts the emulated kernels into ``ddarts_ext``."""
    wanted = tuple(op_names)
    into = torch.library.Library("ddarts_ext", "IMPL")  # type: ignore[no-untyped-call]
    for op in wanted:
        path = build.compile_library(build.op_sources(op), laboratory=True)
        library = build.load(path)
        for name in (op, f"{op}_backward"):
            if hasattr(torch.ops.ddarts_ext, name):
                emulated = getattr(getattr(torch.ops, build.NAMESPACE), name).default
                into.impl(name, emulated, "CPU")  # type: ignore[no-untyped-call]
        for dtype, format_ in VARIANTS:
            laboratory.forget(library)
            for case in cases.cases(dtype, format_):
                if case.op == op:
                    case.run()
            variant = f"{str(dtype).removeprefix('torch.')} {LAYOUTS[format_]}"
            for kernel in laboratory.read(library, path):
                yield Seen(op, variant, kernel)


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
    "kernel", "dtype, layout", "sectors", "used", "moved / needed", "ways", "races",
    "registers", "spills", "shared", "blocks",
)  # fmt: skip


def _row(one: Seen, known: dict[tuple[str, str], Resources] | str, architecture: str) -> str:
    kernel, name = one.kernel, readable(one.kernel.name)
    cells = [f"`{name}`", one.variant]
    cells += [_number(kernel.mean("sectors", shared=False), ".1f"), _number(kernel.mean("used", shared=False), ".0%")]
    cells += [f"{sum(kernel.moved) / max(1, sum(kernel.needed)):.1f}", _number(kernel.mean("ways", shared=True), ".2f")]
    cells += [str(sum(race.count for race in kernel.races))]
    if isinstance(known, str):
        cells += ["no nvcc"] * 4
    else:
        own = known[one.op, name]
        cells += [str(own.registers), str(own.spills), f"{own.static_shared + kernel.dynamic_shared}"]
        cells += [str(own.blocks(kernel.threads, kernel.dynamic_shared, architecture))]
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
        for race in one.kernel.races:
            name = f"`{readable(one.kernel.name)}` {one.variant}"
            found.setdefault((race.first, f"RACE with {race.second}, {race.count} bytes"), {})[name] = 1.0
    for (line, what), kernels in sorted(found.items()):
        costly = [f"{name} {share:.0%}" for name, share in kernels.items() if share >= least]
        if costly:
            yield f"- {line}, {what}: {'; '.join(costly)}"


def _number(value: float, form: str) -> str:
    return "-" if math.isnan(value) else format(value, form)

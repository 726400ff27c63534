"""Which kernels a weight step and an architecture step spend their time in: tables of the profiler's kernel times."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import torch
from running import report
from task import before_the_device, parser

from ddarts_ext.benchmark.files import load_file
from ddarts_ext.benchmark.kernels import profiled, tf32

BATCH = 64
FILE = Path(__file__).resolve().parents[2] / "benchmarks" / "bench_iteration.py"


def main() -> int:
    options = parser(__doc__).parse_args()
    iteration = load_file(FILE)
    before_the_device(options.dry)
    if options.device == "cpu":
        report({"stopped": "the profile is of a GPU's kernels"})
        return 0
    found: dict[str, object] = {}
    with tf32(False):
        for candidate in ("graphed", "kernel channels-last"):
            graphed = candidate == "graphed"
            made = iteration.graphed_steps(BATCH, options.device) if graphed else None
            for what, step in (made or iteration.steps_of(candidate, BATCH, options.device)).items():
                if what == "iteration":
                    continue
                for _ in range(2):
                    step()
                torch.cuda.synchronize()
                begun = time.perf_counter()
                step()
                torch.cuda.synchronize()
                wall = (time.perf_counter() - begun) * 1e3
                seen = profiled(step)
                table = seen.table(25)
                print(f"\n{candidate}, {what}, batch {BATCH}: {wall:.1f} ms, {seen.busy_ms:.1f} ms busy\n{table}")
                found[f"{candidate}, {what}"] = {
                    "wall_ms": wall,
                    "busy_ms": seen.busy_ms,
                    "launches": seen.launches,
                    "by_name": dict(sorted(seen.by_name.items(), key=lambda item: -item[1][1])[:60]),
                }
                report(found)
    return 0


if __name__ == "__main__":
    sys.exit(main())

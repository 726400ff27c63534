"""What is to be known of a machine with a GPU, in two visits of at most 8 minutes. No network is needed.

  scripts/gpu_check --part 1 --out DIR    builds; small shapes, op tests, captured graphs, whole steps
  scripts/gpu_check --part 2 --out DIR    compute-sanitizer, a profile, the op benchmarks

Every step is a process of its own with a time limit. DIR/<step>.json and DIR/<step>.log are there as soon as a step
is over, DIR/summary.txt at the end. A failed build or a missing GPU ends the visit; nothing else hides what comes
after. The exit status is the number of steps that did not pass.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from plan import Wish, chosen, steps_of
from running import Visit
from summary import summary


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="gpu_check", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--part", type=int, choices=(1, 2), required=True)
    parser.add_argument("--out", type=Path, required=True, help="folder for all results")
    parser.add_argument("--archive", type=Path, help="also keep all of --out in this .tar.gz, after every step")
    parser.add_argument("--seconds", type=float, help="of the whole visit (default 470; 1800 in a rehearsal)")
    parser.add_argument("--only", nargs="+", metavar="STEP", help="of the part; steps that all others need are run too")
    parser.add_argument("--no-build", action="store_true", help="what is installed is checked as it is")
    rehearsal = parser.add_mutually_exclusive_group()
    rehearsal.add_argument("--cpu", action="store_true", help="rehearsal: the same steps on a CPU, smaller")
    rehearsal.add_argument(
        "--no-gpu", action="store_true", help="rehearsal: builds for CUDA and runs up to the first call of a device"
    )
    options = parser.parse_args(arguments)
    out = options.out.resolve()
    wish = Wish(out, "cpu" if options.cpu else "cuda", options.no_gpu, not options.no_build)
    begun = time.monotonic()
    with tempfile.TemporaryDirectory() as away:  # the installed package is checked, not the source folder
        archive = options.archive.resolve() if options.archive else None
        seconds = options.seconds or (470.0 if not (options.cpu or options.no_gpu) else 1800.0)
        visit = Visit(out, begun + seconds, Path(away), archive)
        records = visit.run(chosen(steps_of(options.part, wish), options.only))
        text = summary(records, options.part, time.monotonic() - begun)
        visit.keep("summary.txt", text + "\n")
    print(f"\n{text}", flush=True)
    return sum(record["status"] != "passed" for record in records)


if __name__ == "__main__":
    sys.exit(main())

"""Files of benchmarks/, measured: every row is in the result of the step as soon as it is known."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from rich.console import Console
from running import RESULT, seconds_left
from task import before_the_device, parser

from ddarts_ext import benchmark

FOLDER = Path(__file__).resolve().parents[2] / "benchmarks"


def main() -> int:
    """1 where something failed, with everything else measured all the same."""
    arguments = parser(__doc__)
    arguments.add_argument("--files", nargs="+", required=True)
    arguments.add_argument("--seconds", type=float, default=0.2)
    arguments.add_argument("--compiled")
    options = arguments.parse_args()
    benchmark.load_modules(options.files, FOLDER)
    cases = list(benchmark.load_cases(options.device, options.files, FOLDER))
    before_the_device(options.dry, files=len(options.files), cases=len(cases))
    report = benchmark.run(
        options.files,
        device=options.device,
        seconds=options.seconds,
        compiled=options.compiled,
        limit=max(5.0, seconds_left(60.0) - 20.0),
        output=Path(os.environ[RESULT]) if RESULT in os.environ else None,
        folder=FOLDER,
        show=Console(width=100).print,
    )
    return int(bool(report.failures))


if __name__ == "__main__":
    sys.exit(main())

"""Which implementation every op has; fails where one has no kernel and nothing was designed to stand in for it."""

from __future__ import annotations

import sys

from running import report
from task import parser

from ddarts_ext import info
from ddarts_ext.ops._library import composed_of, defined_ops, has_kernel


def main() -> int:
    options = parser(__doc__).parse_args()
    found = {}
    for name in defined_ops():
        stand_in = composed_of(name) if options.device == "cuda" else ""
        kernel = has_kernel(name, options.device)
        found[name] = "kernel" if kernel else f"composed of {stand_in}" if stand_in else "reference"
        print(f"{name}: {found[name]}")
    report({"ops": found, "info": info.collect()})
    return int("reference" in found.values())


if __name__ == "__main__":
    sys.exit(main())

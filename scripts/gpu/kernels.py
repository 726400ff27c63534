"""Which implementation every op has; fails where one has no kernel."""

from __future__ import annotations

import sys

from running import report
from task import parser

from ddarts_ext import info
from ddarts_ext.ops._library import defined_ops, has_kernel


def main() -> int:
    options = parser(__doc__).parse_args()
    found = {}
    for name in defined_ops():
        found[name] = "kernel" if has_kernel(name, options.device) else "reference"
        print(f"{name}: {found[name]}")
    report({"ops": found, "info": info.collect()})
    return int("reference" in found.values())


if __name__ == "__main__":
    sys.exit(main())

"""What the code of every step shares: its options, and where a rehearsal without a GPU ends."""

from __future__ import annotations

import argparse
import sys

from running import report


def parser(description: str | None) -> argparse.ArgumentParser:
    found = argparse.ArgumentParser(description=description)
    found.add_argument("--device", default="cuda")
    found.add_argument("--dry", action="store_true", help="end before the first call of the device")
    return found


def before_the_device(dry: bool, **known: object) -> None:
    """Called right before the first call of the device; a rehearsal ends here, and says what it has prepared."""
    if dry:
        report({"stopped": "before the first call of the device", **known})
        print("stopped before the first call of the device", known)
        sys.exit(0)

"""The command ``ddarts`` before torch is there: an interrupt is one line, also while modules are imported."""

from __future__ import annotations

import os
import signal
import sys
from types import FrameType


def _stopped(number: int, frame: FrameType | None) -> None:
    sys.stderr.write("ddarts: interrupted before anything was begun\n")
    sys.stderr.flush()
    # Whatever is being imported is in no state to be unwound.
    os._exit(128 + number)


def main() -> None:
    """Entry point."""
    for name in ("SIGINT", "SIGTERM"):
        number = getattr(signal, name)
        # What was told to ignore a signal goes on ignoring it.
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _stopped)
    from ddarts_ext.cli import main as command

    command()


if __name__ == "__main__":
    main()

"""Kills at random moments and at every file operation of a save, by ``scripts/kill_campaign``; by hand it does more."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import ddarts_ext

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "kill_campaign"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the campaign forks")
@pytest.mark.skipif(
    os.environ.get("DDARTS_NO_EXTENSION", "") not in ("", "0"), reason="what is kept does not depend on the extension"
)
@pytest.mark.parametrize(
    "arguments",
    [("--kills", "20", "--operations", ""), ("--kills", "0", "--operations", "search")],
    ids=["kills", "operations"],
)
def test_nothing_is_lost(arguments: tuple[str, ...]) -> None:
    package = str(Path(ddarts_ext.__file__).parents[1])  # the one under test, installed or not
    done = subprocess.run(
        [sys.executable, str(SCRIPT), *arguments],
        env=os.environ | {"PYTHONPATH": os.pathsep.join([package, os.environ.get("PYTHONPATH", "")])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]
    lines = done.stdout.splitlines()
    assert len(lines) == (4 if arguments[1] == "20" else 1)
    assert all("nothing lost" in line for line in lines)

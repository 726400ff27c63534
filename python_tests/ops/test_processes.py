"""A process forked after an op ran: with one thread it computes; with more, torch itself does not survive it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import ddarts_ext

CODE = """
import os, torch
torch.set_num_threads(1)
from ddarts_ext import ops
x = torch.randn(8, 16, 32, 32)
expected = ops.grouped_batch_norm(x).out
child = os.fork()
if child == 0:
    os._exit(0 if torch.equal(ops.grouped_batch_norm(x).out, expected) else 7)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_a_fork_with_one_thread_computes() -> None:
    package = str(Path(ddarts_ext.__file__).parents[1])
    done = subprocess.run(
        [sys.executable, "-c", CODE],
        env=os.environ | {"PYTHONPATH": package},
        capture_output=True,
        text=True,
        timeout=300,
        check=True,
    )
    assert done.stdout.strip() == "0"

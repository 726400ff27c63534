"""Every copy of the CPU kernels that this processor runs gives what the references give."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import ddarts_ext
from ddarts_ext import _extension

STATUS = _extension.load()
ORDER = ("baseline", "avx2", "avx512")
PROGRAM = Path(__file__).with_name("capability_calls.py")

pytestmark = pytest.mark.skipif(bool(STATUS.cpu_reason), reason=STATUS.cpu_reason or "compiled")


def run(command: str, path: Path, **environment: str) -> str:
    # The package under test, installed or not, and what the program takes from the tests.
    folders = os.pathsep.join([str(Path(ddarts_ext.__file__).parents[1]), str(PROGRAM.parents[1])])
    done = subprocess.run(
        [sys.executable, str(PROGRAM), command, str(path)],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": folders} | environment,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("capabilities") / "calls.pt"
    run("write", path, DDARTS_NO_EXTENSION="1")
    return path


@pytest.mark.parametrize("capability", ORDER)
def test_every_copy_gives_what_the_references_give(capability: str, expected: Path) -> None:
    if capability not in STATUS.record["capabilities"]:
        pytest.skip(f"{capability} was not compiled for this architecture")
    found, calls = run("check", expected, DDARTS_CPU_CAPABILITY=capability).split()
    if found != capability:
        assert ORDER.index(found) < ORDER.index(capability)
        pytest.skip(f"this processor runs {found} at most")
    assert int(calls) > 0

"""The scripts of ``cases/data`` beside the project: small inputs that once went wrong, and what they print now."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import ddarts_ext

pytest.importorskip("PIL.Image")

TINY = "d/tiny4x4.npz"
CHANGES = {
    # What they look at had other names then.
    "fold2.py": {"s._divided()": "s.strategy.divided"},
    "thr.py": {"'digits'": f"'{TINY}'", "import searcher as S": "import strategy as S"},
}
PRINTED = {
    "cls.py": [
        "[1, 2, 3] -> 3 classes",
        "[0, 1, 255] -> 3 classes",
        "[7, 4000001, 4000002] -> 3 classes",
        "[0, 1, 1099511627776] -> 3 classes",
    ],
    "concat.py": [
        "range(2, 6) genotype.concat (2, 3, 4, 5) -> cell output channels 32 expected 32",
        "range(3, 6) genotype.concat (3, 4, 5) -> cell output channels 24 expected 24",
        "[5] genotype.concat (5,) -> cell output channels 8 expected 8",
    ],
    "fold2.py": ["labels that move the weights [8, 8]  labels that move the alphas and judge [8, 8]"],
    "fs.py": [
        "fsync(folder) refused: OK runs/fs",
        "chmod refused: OK runs/fs",
        # Here the script cannot clear the folder either, as shutil opens it.
        "open(folder) refused (Windows): ValueError search: out must be a new folder, or use --resume",
    ],
    "thr.py": [
        "plain [0.0, 0.0] [0.0, 0.0]",
        "initial_state under a lock [0.0, 0.0] [0.0, 0.0]",
        "with a thread that draws [0.0, 0.0]",
    ],
    "u16.py": [f"distinct grey levels [{8000 >> 8}, {28000 >> 8}]"],
}


@pytest.mark.parametrize("name", PRINTED)
def test_what_a_case_prints(name: str, shared: Path, tmp_path: Path) -> None:
    script = shared / "cases" / "data" / name
    if not script.is_file():
        pytest.skip(f"{script} is not there")
    (tmp_path / "d").mkdir()
    images = np.random.RandomState(0).randint(0, 256, (64, 4, 4), dtype=np.uint8)
    labels = np.arange(64) % 2
    np.savez(tmp_path / TINY, x_train=images, y_train=labels, x_test=images, y_test=labels)
    text = script.read_text()
    for before, now in CHANGES.get(name, {}).items():
        text = text.replace(before, now)
    package = str(Path(ddarts_ext.__file__).parents[1])  # the one under test, installed or not
    done = subprocess.run(
        [sys.executable, "-c", text],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": os.pathsep.join([package, os.environ.get("PYTHONPATH", "")])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    lines = [line for line in done.stdout.splitlines() if line]
    assert len(lines) == len(PRINTED[name])
    for line, expected in zip(lines, PRINTED[name], strict=True):
        assert line.startswith(expected)

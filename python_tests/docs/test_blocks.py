"""Every code block of README.md and docs/ runs as it is written.

A block that cannot says why in the line before it: ``<!-- not run: REASON -->``. Searches and trainings are cut to an
epoch of few images (shortened.py). The pages' own files and names are made by scene.py and ``BEFORE``.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from docs.blocks import Block, blocks, pages, runnable
from docs.scene import make

import ddarts_ext

PACKAGE = Path(ddarts_ext.__file__).parents[1]
"""The folder of the package under test, installed or not."""

MOST_NOT_RUN = 11

NEEDS = {
    "docs/quickstart.md": ("onnxruntime", "onnxscript"),
    "docs/dartopti.md": ("matplotlib",),
    "docs/isdarts.md": ("matplotlib",),
    "docs/recurrent.md": ("matplotlib",),
    "docs/transfer.md": ("torchvision",),
}
"""Packages beside those that every installation has."""

NEEDS_TABLE = ("docs/isdarts.md", "docs/da2s.md", "docs/family.md")
"""Pages that read the published table of NAS-Bench-201."""

_MIXED = """
import torch
class Mixed(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self._ops = torch.nn.ModuleList([torch.nn.Identity(), torch.nn.Conv2d(4, 4, 1)])
    def forward(self, x, weights):
        return sum(w * op(x) for w, op in zip(weights, self._ops))
"""
BEFORE = {
    "README.md": _MIXED + "my_darts_supernet = Mixed()",
    "docs/drop-in.md": _MIXED + "model = Mixed()",
}
"""What a page takes for granted that a reader has in a program."""


def play(page: str, folder: Path) -> subprocess.CompletedProcess[str]:
    # A socket's path is short.
    place = Path(tempfile.mkdtemp()) / "commands"
    commands = make(folder, str(place))
    if page in NEEDS_TABLE:
        shared = os.environ.get("DDARTS_SHARED")
        if shared is None:
            pytest.skip("DDARTS_SHARED is not set: the page reads the table of NAS-Bench-201")
        (folder / "nasbench201.csv.xz").symlink_to(Path(shared) / "data" / "nasbench201.csv.xz")
    found = runnable(page)
    if page in BEFORE:
        found = [Block(page, 0, "python", BEFORE[page], ""), *found]
    written = folder / "blocks.json"
    written.write_text(json.dumps([{"place": b.place, "language": b.language, "text": b.text} for b in found]))
    paths = [str(Path(__file__).parent), str(PACKAGE)]
    environment = {
        "OMP_NUM_THREADS": "1",  # networks of a few channels: threads would wait for each other
        **os.environ,
        "PATH": f"{commands}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": os.pathsep.join(paths),
        "XDG_CACHE_HOME": str(folder / "cache"),
    }
    done = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("play.py")), str(written), str(place)],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    shutil.rmtree(place.parent)
    return done


@pytest.mark.parametrize("page", [page for page in pages() if runnable(page)])
def test_blocks_run_as_written(page: str, tmp_path: Path) -> None:
    for package in (*NEEDS.get(page, ()), "PIL"):
        pytest.importorskip(package)
    done = play(page, tmp_path)
    assert done.returncode == 0, done.stdout[-6000:]


def test_few_blocks_are_not_run_and_each_says_why() -> None:
    left = [block for page in pages() for block in blocks(page) if block.reason]
    assert len(left) <= MOST_NOT_RUN, "\n".join(f"{block.place}: {block.reason}" for block in left)


def test_a_block_that_fails_is_found(tmp_path: Path) -> None:
    written = tmp_path / "blocks.json"
    for language, text in (("bash", "false\ntrue\n"), ("python", "1 / 0\n")):
        written.write_text(json.dumps([{"place": "page:1", "language": language, "text": text}]))
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), str(PACKAGE)])}
        done = subprocess.run(
            [sys.executable, str(Path(__file__).with_name("play.py")), str(written)],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 1
        assert "page:1" in done.stdout + done.stderr

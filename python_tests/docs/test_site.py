"""The site builds without a warning, its tutorial runs, and its gallery shows what is drawn today."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from docs.blocks import ROOT
from docs.test_blocks import PACKAGE

from ddarts_ext import Genotype
from ddarts_ext.plot import plot_genotype

NOTEBOOK = ROOT / "docs" / "tutorial.ipynb"


def test_the_site_builds_without_a_warning(tmp_path: Path) -> None:
    pytest.importorskip("mkdocs", reason="MkDocs is not installed (pip install 'ddarts_ext[docs]')")
    pytest.importorskip("material", reason="mkdocs-material is not installed (pip install 'ddarts_ext[docs]')")
    pytest.importorskip(
        "mkdocstrings_handlers", reason="mkdocstrings is not installed (pip install 'ddarts_ext[docs]')"
    )
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path / "site")],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    assert "WARNING" not in done.stdout + done.stderr
    reference = (tmp_path / "site" / "reference" / "index.html").read_text(encoding="utf-8")
    assert "Searches an architecture on images" in reference
    tutorial = (tmp_path / "site" / "tutorial" / "index.html").read_text(encoding="utf-8")
    assert "load_network" in tutorial
    assert "../project/benchmarks/" in (tmp_path / "site" / "architecture" / "index.html").read_text(encoding="utf-8")


def test_the_tutorial_runs(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    notebook = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    # Outputs would hold paths and numbers of one machine.
    assert not any(cell["outputs"] or cell["execution_count"] for cell in cells)
    blocks = [
        {"place": f"tutorial.ipynb, cell {number}", "language": "python", "text": "".join(cell["source"])}
        for number, cell in enumerate(cells)
    ]
    (tmp_path / "blocks.json").write_text(json.dumps(blocks))
    tests = Path(__file__).parent
    done = subprocess.run(
        [sys.executable, str(tests / "play.py"), str(tmp_path / "blocks.json")],
        cwd=tmp_path,
        env={"OMP_NUM_THREADS": "1", **os.environ, "PYTHONPATH": os.pathsep.join([str(tests), str(PACKAGE)])},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-4000:]
    assert (tmp_path / "tutorial.html").is_file()


@pytest.mark.parametrize("picture", sorted((ROOT / "docs" / "gallery").glob("*.svg")), ids=lambda path: path.stem)
def test_the_gallery_is_what_is_drawn(picture: Path, tmp_path: Path) -> None:
    """If this fails, draw them again: ddarts plot NAME --layout own, in docs/gallery."""
    drawn = plot_genotype(Genotype.load(picture.stem), tmp_path / picture.name, "own")
    assert drawn.read_text(encoding="utf-8") == picture.read_text(encoding="utf-8")
    assert f"gallery/{picture.name})" in (ROOT / "docs" / "gallery.md").read_text(encoding="utf-8")

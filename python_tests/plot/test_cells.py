"""``plot_genotype`` and ``ddarts plot``: files of cells."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
from typer.testing import CliRunner

from ddarts_ext import Genotype, cli
from ddarts_ext.plot import plot_genotype

MAGIC = {"svg": b"<svg", "pdf": b"%PDF", "png": b"\x89PNG"}


@pytest.mark.parametrize("kind", MAGIC)
def test_every_format(kind: str, tmp_path: Path) -> None:
    if kind != "svg":
        pytest.importorskip("matplotlib")
    path = plot_genotype(Genotype.load("ResNet18"), tmp_path / "new" / f"cells.{kind}", "own")
    assert path.read_bytes().startswith(MAGIC[kind])


def test_a_picture_shows_every_op(tmp_path: Path) -> None:
    genotype = Genotype.load("DARTS_V2")
    root = ElementTree.parse(plot_genotype(genotype, tmp_path / "cells.svg")).getroot()
    texts = [element.text for element in root.iter("{http://www.w3.org/2000/svg}text")]
    shown = [entry.op for gene in genotype.genes for entry in gene]
    assert sorted(text for text in texts if text in shown) == sorted(shown)
    assert "cells 0-5, 7-12, 14-19 (normal)" in texts


def test_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for arguments, file in (
        (["DARTS_V2"], "DARTS_V2.svg"),
        (["|nor_conv_3x3~0|"], "genotype.svg"),
        (["DARTS_V2", "--out", "mine.svg", "--layout", "own"], "mine.svg"),
    ):
        result = CliRunner().invoke(cli.app, ["plot", *arguments])
        assert result.exit_code == 0, result.exception
        assert result.stdout.strip() == file
        assert (tmp_path / file).is_file()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["DARTS_V2", "--format", "gif"], "format must be one of svg, pdf, png, got 'gif'"),
        (["DARTS_V2", "--format", "pdf", "--out", "a.svg"], "out must end in .pdf"),
        (["DARTS_V2", "--layout", "dot"], "layout must be one of"),
    ],
)
def test_wrong_input_is_refused(
    arguments: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(cli.app, ["plot", *arguments])
    assert isinstance(result.exception, ValueError)
    assert message in str(result.exception)
    assert not list(tmp_path.iterdir())


def test_graphviz_that_is_not_there_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ValueError, match="layout must be own or auto where Graphviz"):
        plot_genotype(Genotype.load("ResNet18"), tmp_path / "a.svg", "graphviz")
    assert plot_genotype(Genotype.load("ResNet18"), tmp_path / "a.svg").is_file()

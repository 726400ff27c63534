"""What ``ddarts describe`` shows of cells."""

from __future__ import annotations

import pytest
from typer.testing import CliRunner

from ddarts_ext import cli
from ddarts_ext.commands.cells import cells_text
from ddarts_ext.genotype import Genotype
from ddarts_ext.genotype.files import architectures
from ddarts_ext.genotype.pictures import ranges


def test_equal_cells_stand_together() -> None:
    lines = cells_text(Genotype.load("DARTS_V2")).splitlines()
    assert lines[0] == "20 cells, reductions [6, 13]"
    assert [line for line in lines if line.startswith("cell")] == [
        line for line in lines if line.startswith(("cells 0-5, 7-12, 14-19 (normal): ", "cells 6, 13 (reduction): "))
    ]
    assert sum(line.startswith("cells") for line in lines) == 2


@pytest.mark.parametrize("name", architectures())
def test_nothing_is_lost_in_80_columns(name: str) -> None:
    genotype = Genotype.load(name)
    text = cells_text(genotype)
    assert max(map(len, text.splitlines())) <= 80
    words = text.split()
    for gene in set(genotype.seq):
        for entry in genotype.genes[gene]:
            assert str(entry) in words


def test_ranges() -> None:
    assert ranges([0, 1, 2, 4, 6, 7]) == "0-2, 4, 6-7"


def test_the_command_shows_them() -> None:
    result = CliRunner().invoke(cli.app, ["describe", "ResNet18"])
    assert result.exit_code == 0
    assert cells_text(Genotype.load("ResNet18")) in result.stdout
    assert "parameters " in result.stdout

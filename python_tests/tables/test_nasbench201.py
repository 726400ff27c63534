"""NAS-Bench-201 as a table: look-ups, ranks, and what files may hold."""

from __future__ import annotations

import json
import lzma
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from typer.testing import CliRunner

from ddarts_ext import Genotype
from ddarts_ext.cli import app
from ddarts_ext.tables.nasbench201 import COLUMNS, NASBench201Table

SKIP = "|skip_connect~0|+|skip_connect~0|skip_connect~1|+|skip_connect~0|skip_connect~1|skip_connect~2|"
BEST = "|nor_conv_3x3~0|+|nor_conv_3x3~0|nor_conv_3x3~1|+|skip_connect~0|nor_conv_3x3~1|nor_conv_1x1~2|"
FOUND = "|nor_conv_3x3~0|+|nor_conv_3x3~0|nor_conv_3x3~1|+|skip_connect~0|nor_conv_3x3~1|nor_conv_3x3~2|"


@pytest.fixture
def small(tmp_path: Path) -> Path:
    rows = [",".join(("index", "arch", *COLUMNS)), f"5,{SKIP},40,54,15,16,16,17", f"2,{FOUND},91,94,73,73,46,46"]
    path = tmp_path / "table.csv"
    path.write_text("\n".join(rows))
    return path


def test_published_figures(shared: Path) -> None:
    """The all-skip cell, the best one by CIFAR-10 test accuracy, and the one that IS-DARTS reports."""
    table = NASBench201Table.load(shared / "data" / "nasbench201.csv.xz")
    assert len(table) == 15625
    skip, best, found = (table[arch] for arch in (SKIP, BEST, FOUND))
    assert (skip.index, best.index, found.index) == (1835, 6111, 9930)
    assert round(skip.accuracies["cifar10"].valid, 3) == 39.769
    assert round(skip.accuracies["cifar10"].test, 3) == 54.297
    assert round(best.accuracies["cifar10"].test, 3) == 94.373
    assert best.accuracies["cifar10"].test_rank == 1
    expected = {"cifar10": (91.553, 94.363), "cifar100": (73.493, 73.513), "imagenet16": (46.367, 46.344)}
    for dataset, figures in expected.items():
        accuracy = found.accuracies[dataset]
        assert (round(accuracy.valid, 3), round(accuracy.test, 3)) == figures
    assert set(table) == set(table.archs)
    assert table.column("cifar10_test").argmax() == 6111


def test_indices_are_the_files_and_ranks_count_from_the_best(small: Path) -> None:
    table = NASBench201Table.load(small)
    assert table[SKIP].index == 5
    assert table[SKIP].accuracies["cifar100"].test_rank == 2
    assert table[Genotype.from_nb201(FOUND)].accuracies["imagenet16"].test_rank == 1


def test_compressed_tables_read_alike(small: Path) -> None:
    packed = small.with_suffix(".csv.xz")
    packed.write_bytes(lzma.compress(small.read_bytes()))
    assert NASBench201Table.load(packed)[SKIP] == NASBench201Table.load(small)[SKIP]


def test_data_sets_may_be_missing(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_text(f"index,arch,cifar10_valid,cifar10_test\n0,{SKIP},40,54\n")
    assert list(NASBench201Table.load(path)[SKIP].accuracies) == ["cifar10"]


def test_command(small: Path) -> None:
    runner = CliRunner()
    shown = runner.invoke(app, ["nasbench201", SKIP, "--table", str(small)])
    assert shown.exit_code == 0
    assert "cifar10: validation 40.000 %, test 54.000 %, rank 2 of 2" in shown.output
    told = runner.invoke(app, ["nasbench201", SKIP, "--table", str(small), "--json"])
    assert json.loads(told.output)["accuracies"]["cifar10"]["test_rank"] == 2


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("index,arch\n", "must have the column cifar10_valid"),
        (f"index,arch,cifar10_valid\n0,{SKIP},1\n", "must have the column cifar10_test"),
        (f"index,arch,cifar10_valid,cifar10_test\n0,{SKIP},x,1\n", "must have numbers"),
    ],
)
def test_wrong_tables_are_refused(content: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_text(content)
    with pytest.raises(ValueError, match=f"nasbench201: table {message}"):
        NASBench201Table.load(path)


def test_wrong_architectures_are_refused(small: Path) -> None:
    table = NASBench201Table.load(small)
    with pytest.raises(ValueError, match="nasbench201: arch must be one of the table's 2"):
        table[BEST]
    with pytest.raises(ValueError, match="genotype"):
        table["|max_pool_9x9~0|"]


def test_damaged_archive_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "table.csv.xz"
    path.write_bytes(b"not xz")
    with pytest.raises(ValueError, match=r"nasbench201: table must be CSV or CSV\.xz"):
        NASBench201Table.load(path)


class FakeBench:
    """The part of the package nats_bench that is used: two architectures of its topology space."""

    meta_archs = (SKIP, FOUND)

    def get_more_info(self, index: int, dataset: str, hp: str, is_random: bool) -> dict[str, float]:
        assert hp == "200"
        assert not is_random
        base = {"cifar10-valid": 10.0, "cifar10": 20.0, "cifar100": 30.0, "ImageNet16-120": 40.0}[dataset] + index
        found = {"valid-accuracy": base, "test-accuracy": base + 0.5}
        if dataset == "cifar10":
            del found["valid-accuracy"]  # CIFAR-10 networks that saw all training images have none
        return found


@pytest.mark.parametrize("fast", [True, False])
def test_nats_bench(fast: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def create(path: str, space: str, fast_mode: bool, verbose: bool) -> FakeBench:
        assert (space, fast_mode, verbose) == ("tss", fast, False)
        return FakeBench()

    path = tmp_path / ("NATS-tss-v1_0-3ffb9-simple" if fast else "NATS-tss-v1_0-3ffb9.pickle.pbz2")
    path.mkdir() if fast else path.write_bytes(b"")
    module: Any = SimpleNamespace(create=create)
    monkeypatch.setitem(sys.modules, "nats_bench", module)
    figures = NASBench201Table.load(path)[SKIP]
    assert (figures.accuracies["cifar10"].valid, figures.accuracies["cifar10"].test) == (10.0, 20.5)
    assert figures.accuracies["imagenet16"].test == 40.5
    assert figures.accuracies["cifar10"].test_rank == (None if fast else 2)


def test_nats_bench_is_named_where_it_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "nats_bench", None)
    with pytest.raises(ValueError, match="needs its package"):
        NASBench201Table.load(tmp_path)

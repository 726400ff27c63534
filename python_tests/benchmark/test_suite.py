"""A run of benchmarks: one failing file, case or candidate leaves the others; the report fits 80 columns."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from typer.testing import CliRunner

from ddarts_ext import benchmark
from ddarts_ext.benchmark import Case, Failure, Row, measurement, suite
from ddarts_ext.benchmark.report import table
from ddarts_ext.cli import app

GOOD = '''
"""A file with a dataclass, which looks its module up while it is made."""
from __future__ import annotations
from dataclasses import dataclass
import torch
from ddarts_ext.benchmark import Case

@dataclass(frozen=True)
class Size:
    n: int = 4

def inputs():
    return [torch.arange(float(Size().n))]

def broken():
    raise ValueError("no inputs today")

def cases(device):
    yield Case("good", "doubled", inputs, lambda x: x * 2, lambda x: x + x, 32)
    yield Case("good", "without inputs", broken, lambda x: x, lambda x: x, 32)
    yield Case("good", "wrong", inputs, lambda x: x * 2, lambda x: x * 3, 32)
    yield Case("good", "halved", inputs, lambda x: x / 2, lambda x: x * 0.5, 32)
'''
WHOLE = """
from ddarts_ext.benchmark import Row

def measure(device, **_):
    yield Row("whole", "step", "fast", 1.0, (1.0, 1.0), 3, None, None, {"slow": 2.0}, {"slow": 3.0, "eager": 2.0})
    raise RuntimeError("half way")
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, text in (("good", GOOD), ("whole", WHOLE), ("unreadable", "def cases(device:\n")):
        (tmp_path / f"bench_{name}.py").write_text(text)
    return tmp_path


def test_what_fails_ends_nothing_else(folder: Path, tmp_path: Path) -> None:
    shown: list[Any] = []
    output = tmp_path / "report.json"
    report = benchmark.run(folder=folder, seconds=0.01, output=output, show=shown.append)
    assert {(row.op, row.case) for row in report.rows} >= {("good", "doubled"), ("good", "halved"), ("whole", "step")}
    assert {row.candidate for row in report.rows if row.case == "wrong"} == {"eager", "eager channels-last"}
    failed = {(f.op, f.case, f.candidate): f.error for f in report.failures}
    assert "no inputs today" in failed["good", "without inputs", ""]
    assert "output 0 of kernel must equal the reference" in failed["good", "wrong", "kernel"]
    assert "half way" in failed["whole", "", ""]
    assert "SyntaxError" in failed["unreadable", "", ""]
    written = json.loads(output.read_text())
    assert len(written["rows"]) == len(report.rows)
    assert len(written["failures"]) == len(report.failures)
    assert sum("failed: " in str(line) for line in shown) == len(report.failures)


def test_the_command_says_so_by_its_status(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(suite, "bench_folder", lambda _: folder)
    done = CliRunner().invoke(app, ["bench", "good", "--seconds", "0.01"])
    assert done.exit_code == 1
    assert "no inputs today" in done.output


def test_time_that_is_over_leaves_cases_out_and_the_files_take_turns(folder: Path) -> None:
    report = benchmark.run(folder=folder, seconds=0.01, limit=0.0)
    assert not report.rows
    assert report.left_out == ["good doubled", "whole", "good without inputs", "good wrong", "good halved"]


def test_one_candidate_that_does_not_compile_leaves_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> Any:
        def call(*_: Any) -> Any:
            raise RuntimeError("cannot be compiled\nby anyone")

        return call

    monkeypatch.setattr(torch, "compile", refuse)
    case = Case("op", "case", lambda: [torch.ones(3)], lambda x: x, lambda x: x.clone(), 24)
    failures: list[Failure] = []
    rows = benchmark.measure(case, seconds=0.01, compiled=True, copy=1.0, failures=failures)
    assert {row.candidate for row in rows} == {"eager", "eager channels-last", "kernel", "kernel channels-last"}
    assert [f.candidate for f in failures] == ["compiled", "compiled channels-last"]
    assert failures[0].error == "RuntimeError: cannot be compiled"
    with pytest.raises(RuntimeError, match="cannot be compiled"):
        benchmark.measure(case, seconds=0.01, compiled=True, copy=1.0)


def test_compiled_is_asked_for_case_by_case(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, bool] = {}

    def note(case: Case, device: str, *, compiled: bool, **_: Any) -> list[Row]:
        asked[case.name] = compiled
        return []

    monkeypatch.setattr(suite, "measure", note)
    benchmark.run(["good"], folder=folder, compiled="halved")
    assert asked == {"doubled": False, "without inputs": False, "wrong": False, "halved": True}
    benchmark.run(["good"], folder=folder, compiled="all")
    assert all(asked.values())


def test_tf32_is_a_candidate_of_its_own_where_the_library_computes() -> None:
    def names(library: bool, device: str) -> list[str]:
        case = Case("op", "case", list, list, list, 1, library=library)
        return [candidate.name for candidate in measurement.candidates(case, device, False)]

    plain = ["eager", "eager channels-last", "kernel", "kernel channels-last"]
    assert names(True, "cpu") == names(False, "cuda") == plain
    assert names(True, "cuda") == plain + [f"{name} tf32" for name in plain]


def test_what_computed_in_tf32_is_proved_to_its_bits() -> None:
    case = Case("op", "case", list, list, list, 1, library=True)
    exact = ([torch.linspace(-1, 1, 9, dtype=torch.float64)], [])
    for error, fits in ((3e-3, True), (3e-2, False)):
        found = ([(exact[0][0] + error).float()], [])
        with pytest.raises(RuntimeError, match="output 0 of kernel must equal the reference"):
            measurement.prove(case, "kernel", found, exact)
        if fits:
            measurement.prove(case, "kernel", found, exact, in_tf32=True)
        else:
            with pytest.raises(RuntimeError, match="output 0 of kernel must equal the reference"):
                measurement.prove(case, "kernel", found, exact, in_tf32=True)


def lines_of(rows: Sequence[Row], title: str = "") -> list[str]:
    console = Console(width=80, file=io.StringIO())
    with console.capture() as text:
        console.print(table(rows, title))
    return text.get().splitlines()


def test_a_table_fits_80_columns_whole() -> None:
    names = ["eager", "eager channels-last", "kernel channels-last", "compiled channels-last tf32"]
    speedup = {name: 123.456 for name in names if not name.startswith("kernel")}
    rows = [
        Row(
            "relu_separable_conv2d", "edge [256,256,32,32]", name, 1234.567, (1.0, 2.0), 5, 4321.0, 0.98, speedup,
            {"eager": 20.0} if name.startswith("kernel") else {}, 54321 << 20, 16700, 0.5, "graph",
        )
        for name in names
    ]  # fmt: skip
    lines = lines_of(rows, "a device")
    assert max(map(len, lines)) <= 80
    head = next(line.split() for line in lines if line.startswith("candidate"))
    found = [line for line in lines if line.startswith("kernel c-last")]
    assert len(found) == 1, "a line of a candidate is not broken"
    assert {"ms", "GB/s", "MiB", "idle"} <= set(head)
    assert "1234.567" in found[0]
    assert "123.46x" in found[0]
    assert "kernel channels-last: 20x eager is required: met, 123.46x" in lines


def test_rows_without_eager_and_required_speedups_that_nothing_was_measured_for() -> None:
    row = Row("op", "case", "shrunk", 1.0, (1.0, 1.0), 3, None, None, {"whole": 2.0}, {"whole": 1.5, "gone": 2.0})
    assert not row.met
    lines = lines_of([row])
    assert "shrunk: 1.5x whole is required: met, 2.00x" in lines
    assert "shrunk: 2x gone is required: missed, nothing" in lines

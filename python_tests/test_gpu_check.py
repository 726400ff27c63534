"""scripts/gpu_check: a step that fails, hangs or crashes leaves the results of the others, and the summary names it."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tarfile
import time
from pathlib import Path
from typing import Any

import pytest

SCRIPTS = Path(__file__).resolve().parents[1] / "scripts"
if not (SCRIPTS / "gpu").is_dir():
    pytest.skip("the scripts are not beside the tests", allow_module_level=True)
sys.path.append(str(SCRIPTS / "gpu"))

import plan  # noqa: E402
from running import ROOT, Step, Visit, _placeless  # noqa: E402
from summary import LENGTH, summary  # noqa: E402

REPORTS = (
    f"import sys; sys.path.append({str(SCRIPTS / 'gpu')!r}); from running import report; report({{'rows': [], 'n': 1}})"
)


def python(name: str, code: str, limit: float = 60.0, **more: Any) -> Step:
    return Step(name, [sys.executable, "-c", code], limit, **more)


def visit(folder: Path, seconds: float = 120.0, **more: Any) -> Visit:
    away = folder / "away"
    away.mkdir(parents=True, exist_ok=True)
    return Visit(folder / "out", time.monotonic() + seconds, away, **more)


def test_steps_that_fail_hang_and_crash_leave_the_results_of_the_others(tmp_path: Path) -> None:
    archive = tmp_path / "kept.tar.gz"
    hangs = f"{REPORTS}; import subprocess, sys; subprocess.run([sys.executable, '-c', 'import time; time.sleep(99)'])"
    records = visit(tmp_path, archive=archive).run(
        [
            python("first", f"print('a line'); {REPORTS}"),
            python("fails", f"{REPORTS}; import sys; print('why'); sys.exit(3)"),
            python("hangs", hangs, limit=8.0),
            python("crashes", "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)"),
            Step("absent", ["/no/such/command"], 5.0),
            python("finds", "import sys; sys.exit(9)", expected=9),
            python("last", REPORTS),
        ]
    )
    found = {record["step"]: record["status"] for record in records}
    assert found == {
        "first": "passed",
        "fails": "failed",
        "hangs": "timed out",
        "crashes": "crashed",
        "absent": "failed",
        "finds": "passed",
        "last": "passed",
    }
    for record in records:
        assert json.loads((tmp_path / "out" / f"{record['step']}.json").read_text()) == record
    for name in ("first", "fails", "hangs", "last"):
        assert next(r for r in records if r["step"] == name)["result"] == {"rows": [], "n": 1}, name
    assert "a line" in (tmp_path / "out" / "first.log").read_text()
    assert next(r for r in records if r["step"] == "fails")["code"] == 3
    with tarfile.open(archive) as kept:
        assert "out/last.json" in kept.getnames()
    text = summary(records, 1, 5.0)
    assert text.splitlines()[0] == "gpu_check part 1: 3 of 7 steps passed, 5 s"
    assert "hangs              timed out" in text


def test_what_a_step_leaves_running_is_ended(tmp_path: Path) -> None:
    sleeper = "import time; time.sleep(300)"
    code = f"import subprocess, sys; print(subprocess.Popen([sys.executable, '-c', {sleeper!r}]).pid)"
    begun = time.monotonic()
    (record,) = visit(tmp_path).run([python("leaves", code)])
    assert record["status"] == "passed"
    assert time.monotonic() - begun < 60
    pid = int((tmp_path / "out" / "leaves.log").read_text())
    status = Path(f"/proc/{pid}/status")
    for _ in range(600):  # a killed process goes when the machine comes to it
        if not status.exists() or "zombie" in status.read_text():
            return
        time.sleep(0.1)
    pytest.fail(f"process {pid} still runs")


def test_a_build_that_fails_ends_the_visit_at_once(tmp_path: Path) -> None:
    records = visit(tmp_path).run([python("build", "import sys; sys.exit(1)", fatal=True), python("next", "pass")])
    assert [record["status"] for record in records] == ["failed", "not run"]
    assert records[1]["reason"] == "build failed"
    assert (tmp_path / "out" / "next.json").is_file()


def test_a_visit_ends_in_time(tmp_path: Path) -> None:
    begun = time.monotonic()
    records = visit(tmp_path, seconds=8.0).run(
        [python("long", "import time; time.sleep(60)"), python("next", "pass"), python("after", "pass")]
    )
    assert time.monotonic() - begun < 25
    assert [record["status"] for record in records] == ["timed out", "not run", "not run"]
    assert records[1]["reason"] == "the time of the visit is over"


def test_a_summary_has_at_most_ten_thousand_characters() -> None:
    row = {
        "op": "mixed_sum", "case": "K=84 [256,32,32,32]", "candidate": "kernel channels-last", "median_ms": 1.0,
        "speedup": {"eager channels-last": 3.0}, "share_of_copy": 0.9, "launches": 7, "idle_share": 0.25,
        "peak_bytes": 1 << 30, "images": 64,
    }  # fmt: skip
    failures = [{"op": "pool3x3", "case": f"case {i}", "candidate": "", "error": "x" * 500} for i in range(500)]
    records = [
        {"step": f"step-{i}", "status": "failed", "seconds": 1.0, "result": {"rows": [row] * 99, "failures": failures}}
        for i in range(9)
    ]
    text = summary(records, 2, 480.0)
    assert len(text) <= LENGTH
    assert text.splitlines()[-1] == "... more in the files of the steps"
    assert "step-8" in text
    short = summary([{"step": "op-benchmarks", "status": "passed", "result": {"rows": [row] * 3}}], 2, 1.0)
    assert "mixed_sum, 3 cases, 3.00x to 3.00x eager channels-last, 90% to 90% of a copy" in short
    whole = summary([{"step": "whole-steps", "status": "passed", "result": {"rows": [row]}}], 1, 1.0)
    assert "7 launches, idle 25%, 1024 MiB, 64000 images/s" in whole


@pytest.mark.parametrize("part", [1, 2])
def test_limits_of_the_steps_and_what_ends_a_visit(part: int, tmp_path: Path) -> None:
    steps = plan.steps_of(part, plan.Wish(tmp_path))
    assert [step.name for step in steps if step.fatal] == ["device", "build", "kernels"]
    assert all(step.limit <= 480 for step in steps)
    assert len({step.name for step in steps}) == len(steps)
    limits = {step.name: step.limit for step in steps}
    if part == 2:
        assert (limits["memcheck"], limits["racecheck"]) == (90, 60)
    for wish in (plan.Wish(tmp_path, "cpu"), plan.Wish(tmp_path, dry=True), plan.Wish(tmp_path, build=False)):
        assert {step.name for step in plan.steps_of(part, wish)} <= set(limits)


def test_the_script_says_how_it_is_called() -> None:
    done = subprocess.run([str(SCRIPTS / "gpu_check"), "--help"], capture_output=True, text=True, check=True)
    assert "--part" in done.stdout
    done = subprocess.run([str(SCRIPTS / "gpu_check"), "--part", "3"], capture_output=True, text=True, check=False)
    assert done.returncode == 2


def test_results_say_nothing_of_the_machine_that_they_are_from() -> None:
    kept = [_placeless(part) for part in (sys.executable, "-m", str(ROOT), f"{ROOT}/a/b.py::c", "/tmp/x/y.xml")]
    assert kept == [Path(sys.executable).name, "-m", ".", "a/b.py::c", "y.xml"]
    for file in (ROOT / "benchmarks" / "results").rglob("*.json"):
        assert not re.search(r'"/[\w.]+/', file.read_text()), file

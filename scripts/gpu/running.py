"""Steps run one after the other, each a process of its own with a time limit; every result is a file at once."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

ROOT = Path(__file__).resolve().parents[2]
RESULT = "DDARTS_STEP_RESULT"  # in the environment of a step: where it writes its JSON, as often as it likes
LIMIT = "DDARTS_STEP_LIMIT"  # and how many seconds it has
LEAST = 5.0  # seconds: less is not worth beginning a step
PATIENCE = 8.0  # seconds that a step has to tell what it knows once its time is over


@dataclass(frozen=True)
class Step:
    """A command. limit: seconds. fatal: nothing after it makes sense where it fails. environment: added to ours."""

    name: str
    command: Sequence[str]
    limit: float
    fatal: bool = False
    environment: Mapping[str, str] = field(default_factory=dict)
    expected: int = 0  # exit status


@dataclass(frozen=True)
class Visit:
    """Where results go, and when the visit is over. away: the folder that steps run in."""

    out: Path
    deadline: float  # of time.monotonic()
    away: Path
    archive: Path | None = None

    def run(self, steps: Sequence[Step]) -> list[dict[str, Any]]:
        """All steps; the records that also lie in ``out``, one file each."""
        self.out.mkdir(parents=True, exist_ok=True)
        records: list[dict[str, Any]] = []
        ended_by = ""
        for step in steps:
            left = self.deadline - time.monotonic()
            if ended_by:
                record = _record(step, "not run", reason=f"{ended_by} failed")
            elif left < LEAST:
                record = _record(step, "not run", reason="the time of the visit is over")
            else:
                record = self._one(step, min(step.limit, left))
            records.append(record)
            self._write(record)
            if step.fatal and record["status"] not in ("passed", "not run"):
                ended_by = step.name
        return records

    def _one(self, step: Step, limit: float) -> dict[str, Any]:
        print(f"\n== {step.name} (at most {limit:.0f} s)\n{' '.join(step.command)[:400]}", flush=True)
        result = self.out / f"{step.name}.result.json"
        result.unlink(missing_ok=True)
        environment = os.environ | dict(step.environment) | {RESULT: str(result), LIMIT: f"{limit:.0f}"}
        begun = time.monotonic()
        with (self.out / f"{step.name}.log").open("wb") as log:
            status, code = _watched(step, limit, environment, self.away, log)
        record = _record(step, status, code=code, seconds=round(time.monotonic() - begun, 1), limit=round(limit))
        with contextlib.suppress(OSError, ValueError):  # it may have written none
            record["result"] = json.loads(result.read_text())
        result.unlink(missing_ok=True)
        print(f"-- {step.name}: {status} after {record['seconds']} s", flush=True)
        return record

    def keep(self, name: str, text: str) -> None:
        """A file more beside the results."""
        (self.out / name).write_text(text)
        self._pack()

    def _write(self, record: dict[str, Any]) -> None:
        write_json(self.out / f"{record['step']}.json", record)
        self._pack()

    def _pack(self) -> None:
        if self.archive is not None:  # for machines that hand back few files
            partial = self.archive.with_name(self.archive.name + ".partial")
            with tarfile.open(partial, "w:gz") as archive:
                archive.add(self.out, arcname=self.out.name)
            partial.replace(self.archive)


def _record(step: Step, status: str, **more: Any) -> dict[str, Any]:
    return {"step": step.name, "status": status, "command": [_placeless(part) for part in step.command], **more}


def _placeless(part: str) -> str:
    """A part of a command as it is kept: where the project, the Python and the results lie belongs to a machine."""
    if not part.startswith("/"):
        return part
    if part == sys.executable:
        return Path(part).name
    path = part.removeprefix(f"{ROOT}/")
    return path if path != part else "." if part == str(ROOT) else Path(part).name


def _watched(
    step: Step, limit: float, environment: Mapping[str, str], away: Path, log: IO[bytes]
) -> tuple[str, int | None]:
    """Status and exit status of a command whose output goes to the log and the screen alike."""
    try:
        process = subprocess.Popen(
            list(step.command), cwd=away, env=dict(environment), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
    except OSError as error:
        log.write(f"{error}\n".encode())
        print(error, flush=True)
        return "failed", None
    reader = threading.Thread(target=_copy, args=(process.stdout, log), daemon=True)
    reader.start()
    try:
        code: int | None = process.wait(limit)
    except subprocess.TimeoutExpired:
        code = None
        process.send_signal(signal.SIGINT)  # pytest then says what failed so far
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(PATIENCE)
    _end_group(process)
    reader.join(5.0)
    if code is None:
        return "timed out", None
    if code < 0:
        return "crashed", code
    return "passed" if code == step.expected else "failed", code


def _end_group(process: subprocess.Popen[bytes]) -> None:
    """Ends whatever the step started and left, and waits until it is gone: what it forgot must not hold the GPU."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, number)
        until = time.monotonic() + 3.0
        while time.monotonic() < until:
            process.poll()  # collects the step itself, if it still ran
            if not _alive(process.pid):
                return
            time.sleep(0.02)


def _alive(group: int) -> bool:
    """Whether a process of the group still runs; one that is only not collected yet (a zombie) holds nothing."""
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # it ended meanwhile
            state, _, of = stat.read_text(errors="replace").rpartition(")")[2].split()[:3]
            if int(of) == group and state not in "ZX":
                return True
    return False


def _copy(source: IO[bytes] | None, log: IO[bytes]) -> None:
    assert source is not None
    for line in iter(source.readline, b""):
        try:
            log.write(line)
            log.flush()
        except ValueError:  # the step is over, and the log closed
            return
        sys.stdout.write(line.decode(errors="replace"))
        sys.stdout.flush()


def write_json(path: Path, value: Any) -> None:
    """Whole or not at all."""
    partial = path.with_name(path.name + ".partial")
    partial.write_text(json.dumps(value, indent=1) + "\n")
    partial.replace(path)


def report(value: Any) -> None:
    """For the code of a step: what is known so far, into its result."""
    target = os.environ.get(RESULT)
    if target:
        write_json(Path(target), value)


def seconds_left(default: float) -> float:
    """For the code of a step: the seconds that it was given."""
    return float(os.environ.get(LIMIT, default))

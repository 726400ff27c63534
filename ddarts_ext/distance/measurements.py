"""The file of measurements behind op scores: JSON lines, each durable as soon as it is there."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from ddarts_ext.distance.protocol import Task
from ddarts_ext.runs.comparison import differences, short
from ddarts_ext.runs.files import sync
from ddarts_ext.runs.lock import taken

MAY_CHANGE = ("data",)
"""What of a protocol may be said otherwise: its images are known by what they are."""


@contextmanager
def measurements(
    path: Path, about: Mapping[str, Any]
) -> Iterator[tuple[dict[Task, float], Callable[[Task, float], None]]]:
    """The measurements in a file of JSON lines, and a function that adds one, to the dict and durably to the file.

    The first line is ``about``. A last line that a killed process left unfinished is cut off. Raises ValueError if the
    file is in use, or from another protocol.
    """
    made = not path.exists()
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = taken(path.with_name(f".{path.name}.lock"), f"score-ops: {path} is in use by another process")
    try:
        with open(path, "a+b", buffering=0) as file:
            file.seek(0)
            content = file.read()
            whole = content[: content.rfind(b"\n") + 1]
            lines = whole.splitlines()
            measured = _read(path, lines, json.loads(json.dumps(about))) if lines else {}
            if len(whole) < len(content):
                os.ftruncate(file.fileno(), len(whole))
            if not lines:
                _append(file, {"version": 1, "command": "score-ops", **about})

            def append(task: Task, accuracy: float) -> None:
                _append(file, {**task._asdict(), "accuracy": accuracy})
                measured[task] = accuracy

            try:
                yield measured, append
            except Exception:
                if made and not measured:
                    # A start that failed leaves nothing that the next one would be compared with.
                    path.unlink()
                raise
    finally:
        lock.release()


def _read(path: Path, lines: Iterable[bytes], about: Mapping[str, Any]) -> dict[Task, float]:
    measured: dict[Task, float] = {}
    for number, line in enumerate(lines):
        try:
            record = json.loads(line)
            if number:
                task = Task(str(record["op"]), int(record["cell"]), str(record["edge"]), int(record["run"]))
                measured[task] = _accuracy(record["accuracy"])
                continue
            if record.get("command") != "score-ops":
                raise ValueError("of another command")
            found = sorted(differences({name: record.get(name) for name in about}, about, MAY_CHANGE))
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
            raise ValueError(f"score-ops: {path}:{number + 1} is not a measurement: {error!r}") from error
        if found:
            name, before, now = found[0]
            raise ValueError(
                f"score-ops: {name} must be {short(before)} to continue with the measurements in {path}, "
                f"got {short(now)}"
            )
    return measured


def _accuracy(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= 100:
        raise ValueError(f"accuracy must be a percentage, got {value!r}")
    return float(value)


def _append(file: io.FileIO, record: Mapping[str, Any]) -> None:
    """The whole line, then to the disk: it is there, or not at all, or it is an unfinished last line."""
    line = json.dumps(record, allow_nan=False).encode() + b"\n"
    before = file.seek(0, os.SEEK_END)
    try:
        while line:
            line = line[file.write(line) :]
        sync(file.fileno())
    except BaseException:
        with suppress(OSError):
            os.ftruncate(file.fileno(), before)
        raise

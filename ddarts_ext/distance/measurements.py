"""The file of measurements behind op scores: JSON lines, each durable as soon as it is there."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from ddarts_ext.distance.protocol import Task


@contextmanager
def measurements(
    path: Path, about: Mapping[str, Any]
) -> Iterator[tuple[dict[Task, float], Callable[[Task, float], None]]]:
    """The measurements in a file of JSON lines, and a function that adds one, to the dict and durably to the file.

    The first line is ``about``. A last line that a killed process left unfinished is cut off. Raises ValueError if the
    file is in use, or from another protocol.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "a+b") as file:
        _lock(file, path)
        file.seek(0)
        content = file.read()
        whole = content[: content.rfind(b"\n") + 1]
        if len(whole) < len(content):
            os.ftruncate(file.fileno(), len(whole))
        lines = whole.splitlines()
        if not lines:
            _append(file, {"version": 1, "command": "score-ops", **about})
        measured = _read(path, lines, json.loads(json.dumps(about)))

        def append(task: Task, accuracy: float) -> None:
            _append(file, {**task._asdict(), "accuracy": accuracy})
            measured[task] = accuracy

        yield measured, append


def _read(path: Path, lines: Iterable[bytes], about: Mapping[str, Any]) -> dict[Task, float]:
    measured: dict[Task, float] = {}
    for number, line in enumerate(lines):
        try:
            record = json.loads(line)
            if number:
                task = Task(str(record["op"]), int(record["cell"]), str(record["edge"]), int(record["run"]))
                measured[task] = float(record["accuracy"])
                continue
            different = [name for name in about if record.get(name) != about[name]]
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"score-ops: {path}:{number + 1} is not a measurement: {error!r}") from error
        if different:
            name = different[0]
            raise ValueError(
                f"score-ops: {name} must be {record.get(name)!r} to continue with the measurements in {path}, "
                f"got {about[name]!r}"
            )
    return measured


def _append(file: IO[bytes], record: Mapping[str, Any]) -> None:
    """One write for the whole line, then to the disk: it is there, or it is an unfinished last line."""
    file.write(json.dumps(record).encode() + b"\n")
    file.flush()
    os.fsync(file.fileno())


def _lock(file: IO[bytes], path: Path) -> None:
    import fcntl

    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        raise ValueError(f"score-ops: {path} is in use by another process") from error

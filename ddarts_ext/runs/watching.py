"""What another terminal can tell of a run from its folder, which it only reads."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ddarts_ext.runs.folder import OF_SEEDS, RunFolder, runs_below
from ddarts_ext.runs.history import Record
from ddarts_ext.runs.losses import SHARES, judged_in
from ddarts_ext.runs.progress import clock

NONE = "-"
_RECENT = 5
"""Epochs whose mean time says how long the others take."""
_SILENT = 10.0
"""Epochs of mean length without a sign, and at least a minute, after which a run is said to be still."""


@dataclass(frozen=True)
class Watched:
    """title, state: lines for a person. judge: the images that an epoch is judged by, by ``metric``. rows: a text for
    each of epoch, training loss and metric, judged loss and metric, images per second, seconds. ended: it is over."""

    title: str
    state: str
    judge: str
    metric: str
    rows: list[tuple[str, ...]]
    ended: bool


def look(run: str | Path) -> Watched:
    """The run in a folder as it is now. Raises FileNotFoundError, ValueError or TypeError for a folder without one."""
    folder = RunFolder(run, "watch")
    config, history = folder.config(), folder.history()
    kind = str(config.get("command"))
    if kind in ("compare", "optimise", "score-ops"):
        raise ValueError(f"watch: {folder.path} must be the folder of a search or a training, got one of {kind!r}")
    if kind == OF_SEEDS:
        runs = ", ".join(str(one) for one in runs_below(run)) or "none yet"
        raise ValueError(f"watch: {folder.path} holds the runs of several seeds, of which one must be given: {runs}")
    of_search = _at(config, "epochs_in_all") or _at(config, "method", "epochs")
    epochs = _number(_at(config, "epochs") if kind == "train" else of_search)
    images = _number(
        _at(config, "images", "train") if kind == "train" else _at(config, "division", "weights", "images")
    )
    finished = (folder.path / ("network.json" if kind == "train" else "genotype.json")).is_file()
    what = config.get("recipe") if kind == "train" else _at(config, "method", "name")
    total = "?" if epochs is None else f"{epochs:g}"
    of_text = config.get("kind") == "text"
    what = "a recurrent cell" if of_text else what
    part, judge = ("test", "held-out") if kind == "train" and not of_text else ("valid", "valid")
    found = [name for record in history[:1] for name, _ in judged_in(record.get(part) or record.get("train") or {})]
    metric = found[0] if found else "accuracy"
    return Watched(
        title=f"{kind} {what} on {config.get('data')} in {folder.path}",
        state=_state(folder, history, epochs, finished, f"epoch {len(history)} of {total}"),
        judge=judge,
        metric=metric,
        rows=[_row(record, part, metric, images) for record in history],
        ended=finished,
    )


def _row(record: Record, part: str, metric: str, images: float | None) -> tuple[str, ...]:
    seconds = _number(record.get("seconds"))
    loss, judged = ({name: _number(_at(record, name, key)) for name in ("train", part)} for key in ("loss", metric))
    form = "{:.2%}" if metric in SHARES else "{:.4g}"
    return (
        str(record["epoch"] + 1),
        *(text for name in ("train", part) for text in (_text(loss[name], "{:.3f}"), _text(judged[name], form))),
        _text(images / seconds if images and seconds else None, "{:,.0f}"),
        _text(seconds, "{:.1f}"),
    )


def _state(folder: RunFolder, history: Sequence[Record], epochs: float | None, finished: bool, done: str) -> str:
    times = [seconds for record in history if (seconds := _number(record.get("seconds"))) is not None]
    if finished:
        return f"{done}, finished after {clock(sum(times))}"
    if not times or epochs is None:
        return f"{done}, waiting for the first epoch"
    mean = sum(times[-_RECENT:]) / len(times[-_RECENT:])
    since = max(0.0, time.time() - os.stat(folder.history_file).st_mtime)
    if since > max(60.0, _SILENT * mean):
        return f"{done}, no sign for {clock(since)}: a run that was stopped goes on with --resume"
    left = max(0.0, mean * (epochs - len(history)) - since)
    return f"{done}, {clock(left)} left"


def _at(value: Any, *path: str) -> Any:
    for key in path:
        value = value.get(key) if isinstance(value, dict) else None
    return value


def _number(value: Any) -> float | None:
    return value if isinstance(value, (int, float)) and not isinstance(value, bool) else None


def _text(value: float | None, form: str) -> str:
    return NONE if value is None else form.format(value)

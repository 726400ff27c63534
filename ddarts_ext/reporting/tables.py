"""What a report says in words: figures of every run, and its settings."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from ddarts_ext.costs.judged import GenotypeCost
from ddarts_ext.reporting.counts import counts
from ddarts_ext.reporting.sources import Run
from ddarts_ext.runs.folder import Record
from ddarts_ext.runs.losses import metric_in, shown

Row = tuple[str, list[str]]
"""A name, and a text for every run."""

NONE = "–"
_LONGEST = 300
_LEFT_OUT = {"version", "command", "genotype", "images", "division", "method.summary", "start.genotype"}
_DEPTH = 8


def overview(runs: Sequence[Run]) -> list[Row]:
    """Results, sizes and times; rows that no run has anything for are left out."""
    sizes = [counts(run) for run in runs]
    rows = [(name, [_text(read, run) for run in runs]) for name, read in _FIGURES]
    rows += [(name, [size.get(name, NONE) for size in sizes]) for name in dict.fromkeys(n for s in sizes for n in s)]
    return [(name, texts) for name, texts in rows if set(texts) != {NONE}]


def settings(runs: Sequence[Run]) -> tuple[list[Row], list[Row]]:
    """Those in which runs differ, and those that are the same; all are the first kind for a single run."""
    flat = [dict(_flat(run.config, "", 0)) for run in runs]
    names = list(dict.fromkeys(name for some in flat for name in some))
    rows = [(name, [some.get(name, NONE) for some in flat]) for name in names]
    differ = [row for row in rows if len(runs) == 1 or len(set(row[1])) > 1]
    return differ, [row for row in rows if row not in differ]


def _flat(value: Mapping[str, Any], before: str, depth: int) -> Iterator[tuple[str, str]]:
    for key, item in value.items():
        name = f"{before}{key}"
        if name in _LEFT_OUT:
            continue
        if isinstance(item, Mapping) and item and depth < _DEPTH:
            yield from _flat(item, f"{name}.", depth + 1)
        else:
            text = item if isinstance(item, str) else json.dumps(item)
            yield name, text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."


def _text(read: Callable[[Run], Any], run: Run) -> str:
    """A figure that a run lacks, or has as something else than a figure, is none."""
    try:
        found = read(run)
    except (KeyError, IndexError, TypeError, ValueError, ZeroDivisionError, OverflowError):
        return NONE
    text = NONE if found is None or found == "" else str(found)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."


def _state(run: Run) -> str:
    done = f"{len(run.history)} of {run.epochs} epochs"
    return f"finished, {done}" if run.finished else f"not finished, {done}"


def _judged(part: str) -> Callable[[Run], str]:
    def read(run: Run) -> str:
        name, value = metric_in(next(record for record in reversed(run.history) if part in record)[part])
        return shown(name, float(value), 2)

    return lambda run: read(run) if any(part in record for record in run.history) else ""


def _images(run: Run) -> str:
    images = run.config["images"]
    height, width = images["size"]
    return f"{images['train']:,} of {width}x{height}, {len(images['classes'])} classes, {images['test']:,} held out"


def _seconds(run: Run) -> list[float]:
    return [float(record["seconds"]) for record in run.history]


def _rate(run: Run) -> str:
    images = run.config["division"]["weights"]["images"] if run.kind == "search" else run.config["images"]["train"]
    return f"{images * len(run.history) / sum(_seconds(run)):,.0f}"


def clock(seconds: float) -> str:
    """``1 h 2 min``, ``3 min 4 s``, ``5.6 s``."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60} h {minutes % 60} min" if minutes >= 60 else f"{minutes} min {rest} s"


def _gap(run: Run) -> str:
    gap = run.last["discretisation"]
    name, _ = metric_in(run.last["valid"])
    return f"{shown(name, gap['before'], 2)} to {shown(name, gap['after'], 2)} (rule {gap['rule']})"


def _best(run: Run) -> str:
    best = run.network["weights"]["best"]
    name, value = next((name, value) for name, value in best.items() if name != "epoch")
    return f"{shown(name, float(value), 2)} after epoch {best['epoch']}"


def _versions(run: Run) -> str:
    return ", ".join(f"{name} {version}" for name, version in run.network["versions"].items())


def _settled(run: Run) -> str:
    distance: Record = run.last["distance"]
    return f"{distance['start']:.4f}" + (", settled" if distance.get("settled") else "")


_FIGURES: tuple[tuple[str, Callable[[Run], Any]], ...] = (
    ("what", lambda run: {"search": "search", "train": "training"}[run.kind]),
    ("state", _state),
    ("method", lambda run: run.method["name"] if run.kind == "search" else f"recipe {run.config['recipe']}"),
    ("space", lambda run: run.method["space"]),
    ("data", lambda run: run.config["data"]),
    ("images", _images),
    ("cells", lambda run: run.genotype.layers if run.genotype is not None else run.method["cells"]),
    ("in training", _judged("train")),
    ("the supernet in validation", lambda run: _judged("valid")(run) if run.kind == "search" else ""),
    ("in validation", lambda run: _judged("valid")(run) if run.kind == "train" else ""),
    ("held out", _judged("test")),
    ("of the best weights", _best),
    ("supernet, and its part that is the result", _gap),
    ("distance to the start", _settled),
    ("cost in the search's network", lambda run: str(GenotypeCost.from_json(run.cost))),
    ("time", lambda run: clock(sum(_seconds(run))) if run.history else ""),
    ("time of an epoch", lambda run: clock(sum(_seconds(run)) / len(run.history))),
    ("images per second", _rate),
    ("peak memory", lambda run: f"{max(float(record['memory_mib']) for record in run.history):,.0f} MiB"),
    ("device", lambda run: f"{run.config['device']}, {run.config['precision']}"),
    ("seed", lambda run: run.config["seed"]),
    ("date", lambda run: run.network["date"]),
    ("versions", _versions),
)

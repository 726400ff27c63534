"""What a report is of, read from its files: searches and trainings, op scores, comparisons; finished or not."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ddarts_ext.distance.op_scores import load_scores
from ddarts_ext.genotype import Genotype
from ddarts_ext.runs.folder import Record, RunFolder, runs_below

MAX_BYTES = 1_000_000_000
"""Of a history."""


@dataclass(frozen=True)
class Run:
    """A search or a training. genotype: the result of a search, what a training trains; None where there is none yet.
    network: network.json of a training that is finished, else empty. notes: what could not be read. cost: cost.json of
    a search under a budget, else empty."""

    name: str
    kind: str
    config: Record
    history: list[Record]
    genotype: Genotype | None = None
    network: Record = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    cost: Record = field(default_factory=dict)

    @property
    def last(self) -> Record:
        return self.history[-1] if self.history else {}

    @property
    def method(self) -> Record:
        """Settings of the method of a search."""
        found = self.config.get("method")
        return found if isinstance(found, dict) else {}

    @property
    def epochs(self) -> Any:
        """How many it is to have."""
        if self.kind == "train":
            return self.config.get("epochs")
        return self.config.get("epochs_in_all", self.method.get("epochs"))

    @property
    def finished(self) -> bool:
        return bool(self.network) if self.kind == "train" else self.genotype is not None


@dataclass(frozen=True)
class OpScores:
    """What ``score-ops`` measured."""

    name: str
    scores: dict[str, float]
    about: Record


@dataclass(frozen=True)
class Judged:
    """What ``compare`` found."""

    name: str
    found: Record


Source = Run | OpScores | Judged


def read_sources(paths: Sequence[str | Path]) -> list[Source]:
    """Raises FileNotFoundError, ValueError or TypeError in one line for what is none of them. Names are the shortest
    ends of the paths that differ."""
    if not paths:
        raise ValueError("report: at least one run must be given, got none")
    found = [run for path in paths for run in (runs_below(path) or [Path(path)])]
    return [_read(path, name) for path, name in zip(found, _names(found), strict=True)]


def _read(path: Path, name: str) -> Source:
    if path.is_file():
        try:
            return OpScores(name, load_scores(path), _json(path))
        except ValueError as error:
            raise ValueError(f"report: {path} must be a file of op scores where it is no run, but {error}") from error
    if (path / "comparison.json").is_file():
        return Judged(name, _json(path / "comparison.json"))
    folder = RunFolder(path, "report")
    config = folder.config()
    kind = config.get("command")
    if kind not in ("search", "train"):
        raise ValueError(f"report: {path} must be the folder of a search or a training, got that of {str(kind)[:60]!r}")
    if folder.history_file.is_file() and folder.history_file.stat().st_size > MAX_BYTES:
        raise ValueError(f"report: {folder.history_file} must have at most {MAX_BYTES:,} bytes")
    notes: list[str] = []
    genotype = _try(notes, lambda: _genotype(folder, config))
    network, cost = (
        _try(notes, lambda file=path / name: _json(file) if file.is_file() else None)  # type: ignore[misc]
        for name in ("network.json", "cost.json")
    )
    return Run(name, kind, config, folder.history(), genotype, network or {}, tuple(notes), cost or {})


def _genotype(folder: RunFolder, config: Record) -> Genotype | None:
    """A training knows its genotype from the start."""
    if folder.genotype_file.is_file():
        return Genotype.load(folder.genotype_file)
    given = config.get("genotype")
    return Genotype.from_json(given) if isinstance(given, dict) else None


def _try(notes: list[str], read: Callable[[], Any]) -> Any:
    """A part of a run that cannot be read is a note; the rest of it is shown."""
    try:
        return read()
    except (ValueError, TypeError, KeyError, OSError) as error:
        notes.append(" ".join(str(error).split())[:300])
        return None


def _json(path: Path) -> Record:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"report: {path} is not valid JSON: {error}") from error
    if not isinstance(found, dict):
        raise TypeError(f"report: {path} must hold an object, got {type(found).__name__}")
    return found


def _names(paths: list[Path]) -> list[str]:
    parts = [path.resolve().parts for path in paths]
    for length in range(1, max(map(len, parts)) + 1):
        names = ["/".join(some[-length:]) for some in parts]
        if len(set(names)) == len(set(parts)):
            break
    return names

"""Measurements of op scores in this process, or in several at once."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence

from ddarts_ext.data import Dataset, load
from ddarts_ext.distance.protocol import Protocol, Task, measure
from ddarts_ext.runs.workers import each

_Context = tuple[Protocol, Dataset, str]


def results(
    tasks: Sequence[Task], protocol: Protocol, dataset: Dataset, device: str, jobs: int
) -> Iterator[tuple[Task, float]]:
    """Every task with its accuracy in percent, as they come."""
    # Of one process the images are there; each of several loads them once.
    alone = jobs == 1 or len(tasks) < 2
    begin = functools.partial(_begin, protocol, dataset if alone else None)
    yield from each(tasks, _measure, begin, device=device, jobs=jobs, command="score-ops")


def _begin(protocol: Protocol, dataset: Dataset | None, device: str) -> _Context:
    return protocol, load(protocol.data) if dataset is None else dataset, device


def _measure(task: Task, context: _Context) -> float:
    return measure(task, *context)

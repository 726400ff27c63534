"""Measurements of op scores, wherever they run."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence

from ddarts_ext.data import Dataset, load
from ddarts_ext.distance.protocol import Protocol, Task, measure
from ddarts_ext.runs.workers import Place

_Context = tuple[Protocol, Dataset, str]


def results(tasks: Sequence[Task], protocol: Protocol, dataset: Dataset, place: Place) -> Iterator[tuple[Task, float]]:
    """Every task with its accuracy in percent, as they come."""
    # In this process the images are there; each of others loads them once.
    begin = functools.partial(_begin, protocol, dataset if place.here(tasks) else None)
    yield from place.each(tasks, _measure, begin)


def _begin(protocol: Protocol, dataset: Dataset | None, device: str) -> _Context:
    return protocol, load(protocol.data) if dataset is None else dataset, device


def _measure(task: Task, context: _Context) -> float:
    return measure(task, *context)

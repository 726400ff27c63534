"""The table of launches, as rows and as text."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from rich.table import Table

from ddarts_ext.benchmark.launches.counter import Counted


@dataclass(frozen=True)
class LaunchRow:
    """One kind of step. calls: dispatched ops. launches: on CUDA; own: those of this package's ops.

    most: the ops with the most launches. faults: what would make a GPU wait, empty where nothing does.
    """

    step: str
    calls: int
    launches: int
    own: int
    most: dict[str, int]
    faults: dict[str, int]


def launch_rows(counts: Iterable[tuple[str, Counted]], most: int = 8) -> Iterator[LaunchRow]:
    """Rows as the steps are counted."""
    for name, found in counts:
        yield LaunchRow(
            name,
            sum(found.calls.values()),
            found.total,
            found.own,
            dict(found.launches.most_common(most)),
            dict(found.faults),
        )


def launch_table(rows: Iterable[LaunchRow], title: str) -> Table:
    """80 columns wide at most."""
    table = Table(title=title, title_justify="left")
    table.add_column("step")
    for name in ("ops", "launches", "own", "faults"):
        table.add_column(name, justify="right")
    for row in rows:
        figures = (row.calls, row.launches, row.own, sum(row.faults.values()))
        table.add_row(row.step, *(f"{figure:,}" for figure in figures))
    return table

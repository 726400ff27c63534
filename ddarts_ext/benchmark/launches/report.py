"""The table of launches, as rows and as text."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from rich.table import Table

from ddarts_ext.benchmark.launches.counter import Counted

BANDWIDTH = 0.75 * 3.35e12
"""Bytes a second: what kernels that are bound by memory get of an H100's 3.35 TB/s. A launch costs nothing, as in a
graph, and neither does arithmetic: it is a model, and no step was timed for it."""


@dataclass(frozen=True)
class LaunchRow:
    """One kind of step. calls: dispatched ops. launches: on CUDA; own: those of this package's ops.

    moved: the fewest bytes that they read and write; plan: those of a plan that does so once for every stored tensor.
    model_ms: what ``moved`` takes an H100 by a model, see :data:`BANDWIDTH`. most: the ops with the most launches.
    most_moved: those with the most bytes. faults: what would make a GPU wait, empty where nothing does.
    """

    step: str
    calls: int
    launches: int
    own: int
    moved: int
    plan: int
    model_ms: float
    most: dict[str, int]
    most_moved: dict[str, int]
    faults: dict[str, int]


def launch_rows(counts: Iterable[tuple[str, Counted]], most: int = 8) -> Iterator[LaunchRow]:
    """Rows as the steps are counted."""
    for name, found in counts:
        yield LaunchRow(
            name,
            sum(found.calls.values()),
            found.total,
            found.own,
            found.moved.total(),
            found.plan.bytes,
            round(1000 * found.moved.total() / BANDWIDTH, 2),
            dict(found.launches.most_common(most)),
            dict(found.moved.most_common(most)),
            dict(found.faults),
        )


def launch_table(rows: Iterable[LaunchRow], title: str) -> Table:
    """80 columns wide at most."""
    table = Table(title=title, title_justify="left")
    table.add_column("step")
    for name in ("ops", "launches", "own", "GB", "plan", "ms", "faults"):
        table.add_column(name, justify="right")
    for row in rows:
        counts = (f"{figure:,}" for figure in (row.calls, row.launches, row.own))
        sizes = (f"{size / 1e9:.2f}" for size in (row.moved, row.plan))
        table.add_row(row.step, *counts, *sizes, f"{row.model_ms:.1f}", str(sum(row.faults.values())))
    table.caption, table.caption_justify = CAPTION, "left"
    return table


CAPTION = (
    "GB: read and written at least; plan: if once for every stored tensor; ms: GB at 75 % of an H100's memory, a model"
)

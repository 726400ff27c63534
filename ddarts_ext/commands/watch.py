"""``ddarts watch``"""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.table import Table

    from ddarts_ext.runs.watching import Watched


def watch(
    run: Annotated[Path, typer.Argument(help="The folder of a search or a training, finished or not.")],
    once: Annotated[bool, typer.Option("--once", help="Show it as it is now, and stop.")] = False,
    lines: Annotated[int, typer.Option(help="Epochs that are shown, the last ones.")] = 15,
    every: Annotated[float, typer.Option(help="Seconds between two looks.")] = 2.0,
) -> None:
    """Follow a run in another terminal: loss, accuracy, images per second and the time that is left, epoch by epoch.

    Ends when the run does, or with Ctrl-C. It only reads. Example: ddarts watch runs/digits
    """
    from rich.console import Console
    from rich.live import Live

    from ddarts_ext.runs.watching import look

    for name, value, least in (("lines", lines, 1), ("every", every, 0.1)):
        if not value >= least:
            raise ValueError(f"watch: {name} must be at least {least:g}, got {value:g}")
    console, seen = Console(), look(run)
    if once or seen.ended:
        console.print(_table(seen, lines))
        return
    try:
        with Live(_table(seen, lines), console=console, auto_refresh=False) as live:
            while not seen.ended:
                time.sleep(every)
                seen = look(run)
                live.update(_table(seen, lines), refresh=True)
    except KeyboardInterrupt:
        console.print("the run goes on without being watched", highlight=False)


def _table(seen: Watched, lines: int) -> Table:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, padding=(0, 1), title=Text(seen.title), caption=Text(seen.state), title_justify="left",
                  caption_justify="left")  # fmt: skip
    for name in ("epoch", "train loss", seen.metric, f"{seen.judge} loss", seen.metric, "images/s", "seconds"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in seen.rows[-lines:]:
        table.add_row(*map(Text, row))
    return table

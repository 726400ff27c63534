"""``ddarts report``"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def report(
    runs: Annotated[
        list[Path],
        typer.Argument(
            metavar="RUN ...",
            help="Folders of searches and trainings, finished or not; files of op scores; folders of comparisons.",
        ),
    ],
    out: Annotated[Path, typer.Option(help="The HTML file.")] = Path("report.html"),
) -> None:
    """Write one HTML file of runs, side by side: settings, curves, cells, weights, contributions, distances, counts,
    times. It needs nothing else, and follows the light or dark of the reader's system.

    Example: ddarts report runs/digits runs/digits-net --out digits.html
    """
    from ddarts_ext.reporting import report as write

    typer.echo(write(runs, out))

"""``ddarts plot``"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def plot(
    run: Annotated[Path, typer.Argument(help="The folder of a search or a training.")],
    out: Annotated[Path | None, typer.Option(help="Pictures. [default: RUN/plots]")] = None,
) -> None:
    """Draw a run: accuracy and loss; for a search also contributions of every cell and alphas over epochs."""
    from ddarts_ext.plot import plot_run

    for path in plot_run(run, out):
        typer.echo(path)

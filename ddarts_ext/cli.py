"""The command ``ddarts``. One line on standard error and exit code 2 answer wrong input."""

from __future__ import annotations

import os
import sys

import typer

from ddarts_ext.commands import (
    architecture,
    bench,
    compare,
    distance,
    info,
    nasbench201,
    plotting,
    score_ops,
    search,
    train,
)

app = typer.Typer(
    name="ddarts",
    help="Search network architectures on your images, and train what was found.\n\n"
    "A first run, without any download: ddarts search --data digits --method ddarts --epochs 10 --out runs/digits, "
    "then ddarts train runs/digits --data digits --out runs/digits-net.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.command("search")(search.search)
app.command("train")(train.train)
app.command("compare")(compare.compare)
app.command("derive")(architecture.derive)
app.command("describe")(architecture.describe)
app.command("distance")(distance.distance)
app.command("score-ops")(score_ops.score_ops)
app.command("plot")(plotting.plot)
app.command("nasbench201")(nasbench201.nasbench201)
app.command("info")(info.info)
app.command("bench")(bench.bench)


def main() -> None:
    """Entry point: what the library refuses is one line and exit code 2; an interrupt is exit code 130."""
    try:
        app()
    except (ValueError, TypeError, OSError) as error:
        if os.environ.get("DDARTS_TRACEBACK"):
            raise
        print(f"ddarts: {_one_line(error)}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("ddarts: interrupted; a run with --out continues with --resume", file=sys.stderr)
        sys.exit(130)


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__


if __name__ == "__main__":
    main()

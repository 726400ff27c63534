"""The command ``ddarts``. One line on standard error and exit code 2 answer wrong input.

``ddarts_command.py``, beside the package, is where it begins.
"""

from __future__ import annotations

import os
import signal
import sys
import traceback
from contextlib import AbstractContextManager
from typing import Annotated, Any

import typer

from ddarts_ext.commands import (
    architecture,
    bench,
    compare,
    distance,
    evaluate,
    export,
    info,
    measure_ops,
    nasbench201,
    optimise,
    plotting,
    predict,
    report,
    score_ops,
    search,
    train,
    watch,
)
from ddarts_ext.info import version as package_version
from ddarts_ext.runs import interrupts, joining
from ddarts_ext.runs.failures import reason

# What all wrong usage is a kind of, in click or in the copy of it within typer.
_Usage: Any = typer.BadParameter.__mro__[typer.BadParameter.__mro__.index(Exception) - 1]

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


@app.callback(invoke_without_command=True)
def _before(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    if version:
        typer.echo(f"ddarts_ext {package_version()}")
        raise typer.Exit


app.command("search")(search.search)
app.command("train")(train.train)
app.command("predict")(predict.predict)
app.command("evaluate")(evaluate.evaluate)
app.command("export")(export.export)
app.command("compare")(compare.compare)
app.command("optimise")(optimise.optimise)
app.command("derive")(architecture.derive)
app.command("describe")(architecture.describe)
app.command("distance")(distance.distance)
app.command("score-ops")(score_ops.score_ops)
app.command("plot")(plotting.plot)
app.command("report")(report.report)
app.command("watch")(watch.watch)
app.command("measure-ops")(measure_ops.measure_ops)
app.command("nasbench201")(nasbench201.nasbench201)
app.command("info")(info.info)
app.command("bench")(bench.bench)


def main() -> None:
    """Entry point: what is refused, or cannot be done here, is one line and exit code 2; an interrupt is one line and
    128 plus the number of the signal."""
    interrupts.listen()
    try:
        code = _run(sys.argv[1:])
    except KeyboardInterrupt as error:
        number = int(getattr(error, "number", signal.SIGINT))
        code = _say(
            "interrupted; a run with --out continues with --resume, score-ops with the same command", 128 + number
        )
    except Exception as error:
        if os.environ.get("DDARTS_TRACEBACK") or (line := reason(error)) is None:
            if not joining.left():
                raise
            traceback.print_exc()
            joining.end(1)
        code = _say(line, 2)
    joining.end(code)


def _run(arguments: list[str]) -> int:
    """The command's exit code. Without typer's own end, which answers wrong usage in several lines and an interrupt in
    none."""
    command = typer.main.get_command(app)
    try:
        with _ranks(arguments):
            return _invoked(command, arguments)
    except typer.Exit as error:
        return error.exit_code
    except typer.Abort:
        return _say("aborted", 1)
    except _Usage as error:
        if type(error).__name__ == "NoArgsIsHelpError":
            error.show()
            return int(error.exit_code)
        return _say(error.format_message(), 2)
    except BrokenPipeError:
        # The reader has gone (ddarts ... | head): nobody is left to be told.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


def _invoked(command: Any, arguments: list[str]) -> int:
    with command.make_context("ddarts", list(arguments)) as context:
        command.invoke(context)
    return 0


def _ranks(arguments: list[str]) -> AbstractContextManager[object]:
    """The processes that torchrun has started, of which a search and a training make one run."""
    found = joining.started()
    if found.several and arguments[:1] not in (["search"], ["train"]):
        raise ValueError(
            f"{arguments[0] if arguments else 'ddarts'}: ranks must be 1, as only search and train take several, got "
            f"{found.world}"
        )
    return joining.joined()


def _say(line: str, code: int) -> int:
    """``code``, with which the process ends then. Of several ranks a starter may signal the others meanwhile."""
    if joining.left():
        interrupts.ignore()
    line = " ".join(line.split())
    if not joining.said_already(line):
        print(f"ddarts: {line}", file=sys.stderr, flush=True)
    return code


if __name__ == "__main__":
    main()

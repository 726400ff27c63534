"""``ddarts compare``"""

from __future__ import annotations

import json
import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import Annotated, Any

import typer

from ddarts_ext.commands import options
from ddarts_ext.commands.nasbench201 import TABLE_HELP


def compare(
    data: options.Images,
    out: Annotated[Path, typer.Option(help="Folder of the comparison; every search and training is a run in it.")],
    method: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME[:SETTING=VALUE,...]",
            help="A method, with settings of its own; may be given several times. LABEL=NAME:... names it. "
            "[default: ddarts, ddarts:ablation_weight=0, fairdarts, darts]",
        ),
    ] = None,
    seeds: Annotated[int, typer.Option(help="Searches of each method.")] = 3,
    random: Annotated[int, typer.Option(help="Random architectures of the first method's space; 0 for none.")] = 10,
    epochs: Annotated[int | None, typer.Option(help="Epochs of a search. [default: the method's]")] = None,
    settings: options.Setting = None,
    train_epochs: Annotated[int | None, typer.Option(help="Epochs of a training.")] = None,
    train_seeds: Annotated[int, typer.Option(help="Trainings of each result.")] = 1,
    train_settings: Annotated[
        list[str] | None,
        typer.Option("--train", metavar="NAME=VALUE", help="A setting of the trainings; may be given several times."),
    ] = None,
    holdout: Annotated[
        float, typer.Option(help="Part of the training images that is held out, to choose results by.")
    ] = 0.2,
    protocol: Annotated[
        str, typer.Option(help="all: train every result; best: train all for a short time, go on with each best one.")
    ] = "all",
    short_epochs: Annotated[int, typer.Option(help="Epochs of the short training of --protocol best.")] = 10,
    seed: Annotated[int, typer.Option(help="The first seed.")] = 0,
    table: Annotated[
        Path | None,
        typer.Option(help=f"Look results up instead of training them, in nasbench201. {TABLE_HELP}"),
    ] = None,
    table_data: Annotated[
        str, typer.Option(help="What the table judges by: cifar10, cifar100 or imagenet16.")
    ] = "cifar10",
    jobs: options.Jobs = None,
    backend: options.Backend = "local",
    resume: Annotated[bool, typer.Option("--resume", help="Continue the comparison in --out.")] = False,
    plot: Annotated[bool, typer.Option("--plot/--no-plot", help="Draw pictures into OUT.")] = True,
    device: options.Device = "auto",
    as_json: options.Json = False,
) -> None:
    """Compare search methods with each other and with random architectures, all trained and judged alike.

    Results are chosen on training images that are held out; the test images judge them once. Settings of all searches
    go through --set. Example: ddarts compare --data digits --epochs 10 --train-epochs 6 --out runs/compare
    """
    from ddarts_ext.comparison import compare as run
    from ddarts_ext.comparison.table import render

    search = {**options.parsed(settings), **({} if epochs is None else {"epochs": epochs})}
    train = {**options.parsed(train_settings), **({} if train_epochs is None else {"epochs": train_epochs})}
    how: dict[str, Any] = {"search": search, "train": train, "protocol": protocol, "short_epochs": short_epochs}
    with redirect_stdout(sys.stderr):  # Ray reports to standard output, which is for the result
        found = run(
            data,
            method or ["ddarts", "ddarts:ablation_weight=0", "fairdarts", "darts"],
            out=out,
            resume=resume,
            device=device,
            jobs=jobs,
            backend=backend,
            seeds=seeds,
            random=random,
            train_seeds=train_seeds,
            holdout=holdout,
            seed=seed,
            table=None if table is None else str(table),
            table_data=table_data,
            say=lambda line: typer.echo(line, err=True),
            **how,
        )
    if plot:
        _draw(found.to_json(), out)
    if as_json:
        typer.echo(json.dumps(found.to_json()))
        return
    from rich.console import Console

    Console().print(render(found))
    typer.echo(f"figures in {out / 'comparison.json'}")


def _draw(found: dict[str, Any], out: Path) -> None:
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        typer.echo("compare: no pictures, as matplotlib is not installed (pip install 'ddarts_ext[plot]')", err=True)
        return
    from ddarts_ext.plot.comparison import plot_comparison

    for path in plot_comparison(found, out):
        typer.echo(path, err=True)

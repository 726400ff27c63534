"""``ddarts optimise``"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ddarts_ext.commands import options

if TYPE_CHECKING:
    from ddarts_ext.comparison import Optimised


def optimise(
    start: Annotated[
        str,
        typer.Argument(help="ResNet18, ResNet50, Xception, InceptionV4, another architecture, a genotype file, a run."),
    ],
    data: options.Images,
    out: Annotated[Path, typer.Option(help="Folder of the search, the trainings and optimised.json.")],
    epochs: Annotated[int | None, typer.Option(help="Epochs of the search at most. [default: the method's]")] = None,
    off_logit: options.OffLogit = None,
    input_node: options.InputNode = None,
    settings: options.Setting = None,
    train_epochs: Annotated[int | None, typer.Option(help="Epochs of a training.")] = None,
    train_seeds: Annotated[int, typer.Option(help="Trainings of the start, and of the result.")] = 1,
    train_settings: Annotated[
        list[str] | None,
        typer.Option("--train", metavar="NAME=VALUE", help="A setting of both trainings; may be given several times."),
    ] = None,
    holdout: Annotated[
        float, typer.Option(help="Part of the training images that neither search nor training sees.")
    ] = 0.2,
    seed: Annotated[int, typer.Option(help="Of the search, and the first one of the trainings.")] = 0,
    resume: Annotated[bool, typer.Option("--resume", help="Continue in --out.")] = False,
    device: options.Device = "auto",
    as_json: options.Json = False,
) -> None:
    """Improve a network that exists by a search from it (DARTOpti); train both equally and say what was gained.

    Settings of the search go through --set. Example:
    ddarts optimise ResNet18 --data digits --epochs 12 --train-epochs 8 --out runs/optimised
    """
    from ddarts_ext.comparison import optimise as run
    from ddarts_ext.genotype.start import Start

    found = run(
        Start.load(start, off_logit, input_node),
        data,
        out=out,
        resume=resume,
        device=device,
        search={**options.parsed(settings), **({} if epochs is None else {"epochs": epochs})},
        train={**options.parsed(train_settings), **({} if train_epochs is None else {"epochs": train_epochs})},
        train_seeds=train_seeds,
        holdout=holdout,
        seed=seed,
        say=lambda line: typer.echo(line, err=True),
    )
    if as_json:
        typer.echo(json.dumps(found.to_json()))
        return
    _show(found)
    typer.echo(f"genotype in {out / 'search' / 'genotype.json'}, figures in {out / 'optimised.json'}")


def _show(found: Optimised) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, padding=(0, 1))
    table.add_column("network")
    for head in ("trainings", "test %", "± s.e.", "M par.", "M mult-adds"):
        table.add_column(head, justify="right")
    for name, network in (("start", found.start), ("result", found.result)):
        table.add_row(
            name,
            str(network.trainings),
            f"{100 * network.mean:.2f}",
            _points(network.error),
            f"{network.parameters / 1e6:.3f}",
            f"{network.multiply_adds / 1e6:.1f}",
        )
    Console().print(table)
    spread = "" if found.error is None else f" ± {100 * found.error:.2f}"
    ended = "ended as the distance had settled" if found.settled else "ran to its end"
    typer.echo(f"gain {100 * found.gain:+.2f}{spread} points at distance {found.distance:.6f} from the start")
    typer.echo(f"the search {ended}: {found.epochs} epochs, {found.seconds:.0f} s")


def _points(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.2f}"

"""``ddarts evaluate``"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated

import typer

from ddarts_ext.commands import options

if TYPE_CHECKING:
    from ddarts_ext.training import Evaluation

_TABLE = 10
_MISTAKES = 10


def evaluate(
    run: options.Trained,
    data: options.Data = None,
    part: Annotated[str, typer.Option(help="test (the held-out images), train, or all.")] = "test",
    weights: options.Weights = "last",
    device: options.Device = "auto",
    as_json: options.Json = False,
) -> None:
    """Judge a trained network on labelled images: accuracy, top-5 accuracy, and what was taken for what.

    Classes are matched by their names. Example: ddarts evaluate runs/photos-net --data photos
    """
    from ddarts_ext.training import evaluate as judged
    from ddarts_ext.training import load_network

    if data is None:
        raise ValueError("evaluate: --data must be given")
    found = judged(load_network(run, weights=weights, device=device, command="evaluate"), data, part)
    if as_json:
        typer.echo(json.dumps(found.to_json()))
        return
    typer.echo(
        f"{found.images} images: accuracy {found.accuracy:.2%}, top-{found.k} {found.top:.2%}, loss {found.loss:.4f}"
    )
    if len(found.classes) <= _TABLE:
        _print_table(found)
    elif mistakes := found.mistakes():
        typer.echo("most frequent mistakes (--json has all):")
        for right, taken, count in mistakes[:_MISTAKES]:
            typer.echo(f"  {count} of {right} taken for {taken}")


def _print_table(found: Evaluation) -> None:
    """One row a class, one column for what its images were taken for."""
    from rich.console import Console
    from rich.table import Table

    table = Table("class \\ taken for", *(str(i) for i in range(len(found.classes))), "accuracy", box=None)
    for i, (name, row) in enumerate(zip(found.classes, found.confusion.tolist(), strict=True)):
        right = f"{row[i] / sum(row):.1%}" if sum(row) else ""
        table.add_row(f"{i} {name}", *map(str, row), right)
    Console().print(table)

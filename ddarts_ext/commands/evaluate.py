"""``ddarts evaluate``"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
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
    """Judge a trained network on labelled images: accuracy, top-5 accuracy, and what was taken for what; precision and
    recall of several labels at once; errors of numbers.

    Classes are matched by their names. Example: ddarts evaluate runs/photos-net --data photos
    """
    from ddarts_ext.training import LabelsEvaluation, NumbersEvaluation, load_network
    from ddarts_ext.training import evaluate as judged

    if data is None:
        raise ValueError("evaluate: --data must be given")
    found = judged(load_network(run, weights=weights, device=device, command="evaluate"), data, part)
    if as_json:
        typer.echo(json.dumps(found.to_json()))
        return
    if isinstance(found, LabelsEvaluation):
        typer.echo(
            f"{found.images} images: f1 {found.f1:.2%}, label accuracy {found.label_accuracy:.2%}, exact match "
            f"{found.exact_match:.2%}, mean average precision {found.mean_average_precision:.2%}, loss {found.loss:.4f}"
        )
        columns = {"average precision": found.average_precision, "precision": found.precision, "recall": found.recall}
        counts = {"images": [str(count) for count in found.support]}
        _print_each("label", found.classes, {**counts, **{name: _cells(of, ".1%") for name, of in columns.items()}})
        return
    if isinstance(found, NumbersEvaluation):
        typer.echo(f"{found.images} images: mean squared error {found.loss:.4g}")
        columns = {"mae": found.mae, "rmse": found.rmse, "r2": found.r2}
        _print_each("number", found.classes, {name: _cells(of, ".4g") for name, of in columns.items()})
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


def _cells(values: Sequence[float | None], form: str) -> list[str]:
    return ["" if value is None else format(value, form) for value in values]


def _print_each(what: str, names: Sequence[str], columns: Mapping[str, Sequence[str]]) -> None:
    """A row for each output."""
    from rich.console import Console
    from rich.table import Table

    table = Table(what, *columns, box=None)
    for row in zip(names, *columns.values(), strict=True):
        table.add_row(*row)
    Console().print(table)


def _print_table(found: Evaluation) -> None:
    """One row a class, one column for what its images were taken for."""
    from rich.console import Console
    from rich.table import Table

    table = Table("class \\ taken for", *(str(i) for i in range(len(found.classes))), "accuracy", box=None)
    for i, (name, row) in enumerate(zip(found.classes, found.confusion.tolist(), strict=True)):
        right = f"{row[i] / sum(row):.1%}" if sum(row) else ""
        table.add_row(f"{i} {name}", *map(str, row), right)
    Console().print(table)

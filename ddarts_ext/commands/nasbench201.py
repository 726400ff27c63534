"""``ddarts nasbench201``"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from ddarts_ext.commands import options

TABLE_HELP = (
    "Accuracies of NAS-Bench-201: a CSV(.xz) with the columns index, arch, cifar10_valid, cifar10_test, ..., or a file "
    "or folder of NATS-Bench."
)


def nasbench201(
    arch: Annotated[str, typer.Argument(help="An architecture string (|op~0|+|op~0|op~1|+...), a file or a search.")],
    table: Annotated[Path, typer.Option(help=TABLE_HELP)],
    as_json: options.Json = False,
) -> None:
    """Look up accuracies and rank of an architecture of NAS-Bench-201."""
    from ddarts_ext.genotype import Genotype
    from ddarts_ext.tables.nasbench201 import NASBench201Table

    genotype = Genotype.from_nb201(arch) if arch.lstrip().startswith("|") else Genotype.load(arch)
    figures = NASBench201Table.load(table)[genotype]
    typer.echo(json.dumps(figures.to_json()) if as_json else figures)

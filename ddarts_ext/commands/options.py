"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

Data = Annotated[
    str | None,
    typer.Option(
        help="Images: digits (comes along), cifar10:FOLDER or cifar100:FOLDER (binary layout), a .npz with x_train, "
        "y_train, x_test, y_test (uint8), or an image folder with train/<class>/*."
    ),
]
Out = Annotated[Path | None, typer.Option(help="Folder of the run: configuration, history, genotype, checkpoint.")]
Resume = Annotated[
    bool, typer.Option("--resume", help="Continue the run in --out; what is not said is taken from its configuration.")
]
Seed = Annotated[int | None, typer.Option(help="Everything random follows from it. [default: 0]")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")]
Precision = Annotated[str | None, typer.Option(help="float32, or bf16 for autocast. [default: float32]")]
Deterministic = Annotated[
    bool | None, typer.Option("--deterministic", help="Only algorithms that give the same result every time.")
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]
Setting = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="NAME=VALUE", help="Any other setting; may be given several times."),
]


def parsed(settings: list[str] | None) -> dict[str, Any]:
    """``NAME=VALUE`` pairs; a value that reads as JSON (a number, a list, true, null) is that, others are text."""
    import json

    found: dict[str, Any] = {}
    for text in settings or []:
        name, equals, value = text.partition("=")
        if not equals or not name.isidentifier():
            raise ValueError(f"--set must be NAME=VALUE, got {text!r}")
        try:
            found[name] = json.loads(value)
        except ValueError:
            found[name] = value
    return found

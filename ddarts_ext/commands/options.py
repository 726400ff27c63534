"""Options that several commands share, and those that follow from declarations."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import typer

from ddarts_ext.runs.options import Option, value_of

Data = Annotated[
    str | None,
    typer.Option(
        help="Images: digits (comes along), cifar10:FOLDER or cifar100:FOLDER (binary layout), a .npz with x_train, "
        "y_train, x_test, y_test (uint8), an image folder with train/<class>/*, or shards:PATTERN; "
        "for recurrent cells text:FILE."
    ),
]
Images = Annotated[
    str, typer.Option(help="Images: digits, cifar10:FOLDER, a .npz file, an image folder or shards:PATTERN.")
]
Out = Annotated[Path | None, typer.Option(help="Folder of the run: configuration, history, genotype, checkpoint.")]
Resume = Annotated[
    bool, typer.Option("--resume", help="Continue the run in --out; what is not said is taken from its configuration.")
]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")]
Jobs = Annotated[
    int | None,
    typer.Option(
        help="Tasks at once, each in its process; with --device cuda they share all GPUs. "
        "[default: 1; with ray one for each GPU, or CPU]"
    ),
]
Backend = Annotated[
    str, typer.Option(help="local: processes of this machine; ray: the machines of a Ray cluster (extra ray).")
]
OffLogit = Annotated[
    float | None,
    typer.Option(help="Alpha of the ops that the start does not have; -10 starts at the network. [default: 0]"),
]
InputNode = Annotated[
    int | None,
    typer.Option(help="1: what reads node 0 in the start reads node 1, the cell before. [default: as they are]"),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]
Trained = Annotated[Path, typer.Argument(metavar="RUN", help="The folder of a training, or a file of its weights.")]
Weights = Annotated[str, typer.Option(help="last, or best after --keep best.")]
Setting = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="NAME=VALUE", help="Any other setting; may be given several times."),
]


def parsed(settings: list[str] | None) -> dict[str, Any]:
    """``NAME=VALUE`` pairs; a value that reads as JSON (a number, a list, true, null) is that, others are text."""
    found: dict[str, Any] = {}
    for text in settings or []:
        name, equals, value = text.partition("=")
        if not equals or not name.isidentifier():
            raise ValueError(f"--set must be NAME=VALUE, got {text!r}")
        found[name] = value_of(f"--set {name}", value)
    return found


def from_declarations(declared: Mapping[str, Option]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command an option for each declaration with ``command=True``, in the place of its parameter ``given``,
    which receives what was said: a dict by name, ``--set`` included."""
    shown = {name: known for name, known in declared.items() if known.command}

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        hints = get_type_hints(command, include_extras=True)
        own = [
            inspect.Parameter(p.name, inspect.Parameter.KEYWORD_ONLY, default=p.default, annotation=hints[p.name])
            for p in inspect.signature(command).parameters.values()
        ]
        place = next(index for index, p in enumerate(own) if p.name == "given")
        parameters = [*own[:place], *map(_parameter, shown.values()), *own[place + 1 :]]
        parameters.append(
            inspect.Parameter("settings", inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Setting)
        )

        @functools.wraps(command)
        def run(settings: list[str] | None = None, **arguments: Any) -> None:
            said = {name: arguments.pop(name) for name in shown}
            given = {name: value for name, value in said.items() if value is not None}
            further = parsed(settings)
            for name in further:
                if name in arguments:
                    raise ValueError(f"--set {name} must be said as --{name.replace('_', '-')}")
            for name in given.keys() & further.keys():
                if given[name] != further[name]:
                    raise ValueError(
                        f"--set {name} must be that of --{name.replace('_', '-')} or not given, got {further[name]!r}"
                    )
            command(**arguments, given={**given, **further})

        run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        run.__annotations__ = {p.name: p.annotation for p in parameters}
        return run

    return decorate


def _parameter(known: Option) -> inspect.Parameter:
    default = known.shown or ("" if known.default is None or known.default is False else str(known.default))
    text = f"{known.help} [default: {default}]" if default else known.help
    flags = [f"--{known.name.replace('_', '-')}"]
    # A switch that is off unless it is given has no --no-... beside it.
    info: Any = typer.Option(*(flags if known.plain_kind is bool and not known.shown else ()), help=text)
    kind = str if known.plain_kind not in (bool, int, float) else known.plain_kind
    annotation = Annotated[kind | None, info]  # type: ignore[valid-type]
    return inspect.Parameter(known.name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation)

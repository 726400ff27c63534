"""``ddarts search``"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from ddarts_ext.commands import options


def search(
    data: options.Data = None,
    method: Annotated[
        str | None,
        typer.Option(help="darts, fairdarts, ddarts, dartopti, isdarts; --list says more. [default: ddarts]"),
    ] = None,
    space: Annotated[
        str | None, typer.Option(help="Another search space than the method's; isdarts: nasbench201 or darts.")
    ] = None,
    start: Annotated[
        str | None,
        typer.Option(
            help="Network to start from (dartopti): ResNet18, ResNet50, Xception, InceptionV4, or a genotype file."
        ),
    ] = None,
    off_logit: Annotated[
        float | None,
        typer.Option(help="Alpha of the ops that the start does not have; -10 starts at the network. [default: 0]"),
    ] = None,
    input_node: Annotated[
        int | None,
        typer.Option(help="1: what reads node 0 in the start reads node 1, the cell before. [default: as they are]"),
    ] = None,
    early_stop: Annotated[
        bool | None,
        typer.Option(help="Stop once the distance to the start has settled. [default: dartopti only]"),
    ] = None,
    epochs: Annotated[int | None, typer.Option(help="Epochs. [default: the method's]")] = None,
    cells: Annotated[int | None, typer.Option(help="Cells of the supernet. [default: 8; 4 for small images]")] = None,
    channels: Annotated[
        int | None, typer.Option(help="Channels of the first cell. [default: 16; 8 for small images]")
    ] = None,
    batch: Annotated[int | None, typer.Option(help="Images in a batch. [default: the method's]")] = None,
    table: Annotated[
        Path | None,
        typer.Option(help="Accuracies of NAS-Bench-201, looked up for the result; see ddarts nasbench201 --help."),
    ] = None,
    seed: options.Seed = None,
    out: options.Out = None,
    resume: options.Resume = False,
    device: options.Device = "auto",
    precision: options.Precision = None,
    deterministic: options.Deterministic = None,
    settings: options.Setting = None,
    list_methods: Annotated[bool, typer.Option("--list", help="List methods and settings, and stop.")] = False,
) -> None:
    """Search an architecture on images; prints it, and writes it to OUT/genotype.json.

    Example: ddarts search --data digits --method ddarts --epochs 10 --seed 0 --out runs/digits
    """
    if list_methods:
        typer.echo(_methods())
        return
    from ddarts_ext.genotype.start import Start
    from ddarts_ext.runs.progress import for_terminal
    from ddarts_ext.search import methods
    from ddarts_ext.search.searcher import Searcher
    from ddarts_ext.search.shrinking.shrinker import Shrinker

    given: dict[str, Any] = {
        "data": data,
        "method": method,
        "space": space,
        "epochs": epochs,
        "cells": cells,
        "channels": channels,
        "batch": batch,
        "seed": seed,
        "precision": precision,
        "deterministic": deterministic,
        "early_stop": early_stop,
        **options.parsed(settings),
    }
    given = {name: value for name, value in given.items() if value is not None}
    stored = _stored(out) if resume and out is not None else {}
    arguments = {**stored, **given}
    begin = start if start is not None else stored.get("start")
    if begin is not None:
        arguments["start"] = Start.load(begin, off_logit, input_node)
    elif off_logit is not None or input_node is not None:
        raise ValueError("search: --start must be given with --off-logit and --input-node")
    if "data" not in arguments:
        raise ValueError("search: --data must be given: digits, cifar10:FOLDER, a .npz file or an image folder")
    shrinks = methods.get(arguments.get("method", "ddarts")).shrinking is not None
    kind: type[Searcher] = Shrinker if shrinks else Searcher
    if table is not None:
        if not shrinks:
            raise ValueError("search: --table must be given with method isdarts alone")
        arguments["table"] = table
    result = kind(**arguments, device=device, out=out, resume=resume, progress=for_terminal()).search()
    typer.echo(result.genotype.to_nb201() if result.genotype.inputs == 1 else result.genotype)
    last = result.history[-1]
    judged = f", validation accuracy of the supernet {last['valid']['accuracy']:.2%}" if "valid" in last else ""
    typer.echo(f"rule {result.rule}{judged}")
    if getattr(result, "figures", None) is not None:
        typer.echo(result.figures)  # type: ignore[attr-defined]
    if "distance" in last:
        settled = ", settled" if last["distance"].get("settled") else ""
        typer.echo(f"distance to the start {last['distance']['start']:.6f} after {last['epoch'] + 1} epochs{settled}")
    if out is not None:
        typer.echo(f"genotype in {out / 'genotype.json'}")


def _stored(out: Path) -> dict[str, Any]:
    """Arguments of the run in ``out``, as far as it has begun."""
    from ddarts_ext.runs.folder import RunFolder
    from ddarts_ext.search import searcher
    from ddarts_ext.search.shrinking import shrinker

    folder = RunFolder(out, "search")
    if not folder.config_file.exists():
        return {}
    config = folder.config()
    shrinks = bool(config["method"].get("shrinking"))
    return shrinker.arguments_of(config) if shrinks else searcher.arguments_of(config)


def _methods() -> str:
    from dataclasses import fields

    from ddarts_ext.search import methods
    from ddarts_ext.search.shrinking.steps import Shrinking

    lines = ["methods:"]
    for method in methods.METHODS.values():
        lines += [
            f"  {method.name}: {method.summary}",
            f"      space {method.space}, {method.relaxation} weights, cells {method.sharing.replace('_', '/')},"
            f" {method.epochs} epochs, {method.cells} cells, {method.channels} channels, batch {method.batch}",
            f"      from {method.source}",
        ]
    lines.append("settings for --set, with the values of ddarts:")
    shown = methods.get("ddarts")
    shrinking = Shrinking()
    for part in (shown.objectives, shown.architect, shown.weights, shown.discretisation, shown.distance, shrinking):
        if part is shrinking:
            lines.append("of methods that shrink (isdarts):")
        for item in fields(part):
            choices = " | ".join(item.metadata.get("choices", ()))
            lines.append(f"  {item.name}={getattr(part, item.name)}{f'   ({choices})' if choices else ''}")
    return "\n".join(lines)

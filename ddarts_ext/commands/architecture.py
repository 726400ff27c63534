"""``ddarts derive`` and ``describe``: what can be said of an architecture without training it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from ddarts_ext.commands import options
from ddarts_ext.commands.cells import cells_text

_OF_RUN = "that of a run, else "
Source = Annotated[
    str,
    typer.Argument(help="A genotype file, FILE#NAME, the folder of a search, or the name of a published architecture."),
]
Index = Annotated[str, typer.Option(help="How cells repeat: reference (as published) or cycle (the paper's intent).")]


def derive(
    genotype: Source,
    cells: Annotated[int, typer.Option(help="Cells of the larger network.")] = 14,
    index: Index = "reference",
    out: Annotated[Path | None, typer.Option(help="Where to write the genotype; else it is printed.")] = None,
) -> None:
    """Make a larger network from searched cells (D-DARTS, Algorithm 1)."""
    from ddarts_ext.genotype import Genotype
    from ddarts_ext.genotype import derive as derive_genotype

    larger = derive_genotype(Genotype.load(genotype), cells, index)  # type: ignore[arg-type]
    if out is None:
        typer.echo(json.dumps(larger.to_json()))
    else:
        larger.save(out)
        typer.echo(f"{larger.layers} cells in {out}")


def describe(
    genotype: Source,
    channels: Annotated[
        int | None,
        typer.Option(help=f"Channels of the first cell. [default: {_OF_RUN}36; 850 hidden units of a recurrent cell]"),
    ] = None,
    classes: Annotated[
        int | None, typer.Option(help=f"Classes. [default: {_OF_RUN}10; 10000 words for a recurrent cell]")
    ] = None,
    size: Annotated[int | None, typer.Option(help=f"Side of the images in pixels. [default: {_OF_RUN}32]")] = None,
    in_channels: Annotated[int | None, typer.Option(help=f"Channels of the images. [default: {_OF_RUN}3]")] = None,
    stem: Annotated[
        str | None,
        typer.Option(help=f"cifar, imagenet, or imagenet_stride4 for three reductions. [default: {_OF_RUN}cifar]"),
    ] = None,
    layers: Annotated[
        int | None, typer.Option(help="Cells, for a genotype of one normal and one reduction cell.")
    ] = None,
    cells: Annotated[int | None, typer.Option(help="Derive a network of so many cells first.")] = None,
    index: Index = "reference",
    reductions: Annotated[
        str, typer.Option(help="auto: at thirds where a published file's are stale; from_file: as it says.")
    ] = "auto",
    as_json: options.Json = False,
) -> None:
    """Count parameters and multiply-adds of a genotype's network, list its cells, and name what of it is dead.

    Multiply-adds are those of convolutions and linear layers for one image; "with norms" adds two for every element
    that leaves a batch norm, as the tool behind D-DARTS counts. Of a run, its own images and sizes count.
    """
    from ddarts_ext.costs.judged import GenotypeCost
    from ddarts_ext.genotype import Genotype
    from ddarts_ext.genotype import derive as derive_genotype

    for name, value, known in (
        ("index", index, ("reference", "cycle")),
        ("reductions", reductions, ("auto", "from_file")),
    ):
        if value not in known:
            raise ValueError(f"describe: {name} must be one of {', '.join(known)}, got {value!r}")
    found = Genotype.load(genotype, layers=layers, reductions=reductions)  # type: ignore[arg-type]
    if found.recurrent:
        if cells is not None:
            raise ValueError(f"describe: cells must be left out for a recurrent cell, got {cells}")
        hidden, words = _of_text_run(genotype)
        hidden, words = hidden if channels is None else channels, words if classes is None else classes
        for name, size_given in (("channels", hidden), ("classes", words)):
            if size_given < 1:
                raise ValueError(f"describe: {name} must be 1 or more, got {size_given}")
        _describe_recurrent(found, hidden, words, as_json)
        return
    if cells is not None:
        found = derive_genotype(found, cells, index)  # type: ignore[arg-type]
    run = _of_run(genotype)
    channels = run["channels"] if channels is None else channels
    classes = run["classes"] if classes is None else classes
    height, width = run["size"] if size is None else (size, size)
    in_channels = run["in_channels"] if in_channels is None else in_channels
    stem = run["stem"] if stem is None else stem
    figures = _figures(found, channels, classes, (in_channels, height, width), stem)
    figures["cost"] = _cost_of(genotype)
    if as_json:
        typer.echo(json.dumps(figures))
        return
    adds = figures["multiply_adds"]
    typer.echo(
        f"{cells_text(found)}\n"
        f"with {channels} channels, {classes} classes, images {in_channels}x{height}x{width}, stem {stem}:\n"
        f"parameters {figures['parameters']:,}, with auxiliary head {_count(figures['parameters_auxiliary'])}\n"
        f"multiply-adds {_count(adds['convolutions'])}, with norms {_count(adds['with_norms'])} ({height}x{width})"
    )
    if figures["dead"]:
        typer.echo(f"dead: {figures['dead']}")
    if figures["cost"] is not None:
        typer.echo(f"as the search counted: {GenotypeCost.from_json(figures['cost'])}")


def _config_of(source: str) -> dict[str, Any]:
    """config.json of a run; nothing where the genotype is no run's."""
    from ddarts_ext.runs.folder import RunFolder

    folder = RunFolder(source, "describe")
    try:
        there = folder.config_file.is_file()
    except (OSError, ValueError):  # text of a genotype, which is no path
        there = False
    return folder.config() if there else {}


def _cost_of(source: str) -> dict[str, Any] | None:
    """What a search under a budget says of its result."""
    file = Path(source) / "cost.json"
    if not _config_of(source) or not file.is_file():
        return None
    found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return found


def _of_run(source: str) -> dict[str, Any]:
    """Sizes of the network that a run trained, or of one for the images of a search; usual ones of other genotypes."""
    found: dict[str, Any] = {"channels": 36, "classes": 10, "size": (32, 32), "in_channels": 3, "stem": "cifar"}
    config = _config_of(source)
    images = config.get("images")
    if isinstance(images, dict):
        found |= {"classes": len(images["classes"]), "size": tuple(images["size"]), "in_channels": images["channels"]}
    found["stem"] = config.get("stem", found["stem"])
    if config.get("command") == "train":
        found["channels"] = config.get("channels", found["channels"])
    return found


def _of_text_run(source: str) -> tuple[int, int]:
    """Hidden units and words of the model that a run trained, or that a search mixed; the published ones of others."""
    config = _config_of(source)
    about = config.get("text")
    words = about.get("vocabulary") if isinstance(about, dict) else None
    hidden = config.get("channels") or config.get("method", {}).get("channels")
    return hidden or 850, words if isinstance(words, int) else 10_000


def _describe_recurrent(genotype: Any, hidden: int, words: int, as_json: bool) -> None:
    import torch

    from ddarts_ext.nn.recurrent import of_genotype

    with torch.device("meta"):
        network = of_genotype(genotype, words, hidden)
    count = sum(parameter.numel() for parameter in network.parameters())
    of_cell = sum(parameter.numel() for parameter in network.cell.parameters())
    if as_json:
        entries = [str(entry) for entry in genotype.cells[0]]
        figures = {"hidden": hidden, "words": words, "parameters": count, "parameters_cell": of_cell, "cell": entries}
        typer.echo(json.dumps({**figures, "outputs": list(genotype.concat)}))
        return
    typer.echo(
        f"{cells_text(genotype)}\nwith {hidden} hidden units and {words:,} words:\n"
        f"parameters {count:,}, of the cell {of_cell:,}"
    )


def _figures(genotype: Any, channels: int, classes: int, image: tuple[int, int, int], stem: str) -> dict[str, Any]:
    import torch

    from ddarts_ext.nn.count import count_multiply_adds, count_parameters
    from ddarts_ext.nn.dead import dead_entries, dead_note, dead_parameters
    from ddarts_ext.nn.network import build_network

    two_inputs = genotype.inputs == 2
    with torch.device("meta"):
        network = build_network(genotype, channels, classes, image[0], two_inputs, stem)
    adds = count_multiply_adds(network, image)
    dead = set(dead_parameters(network, auxiliary=False))
    return {
        "layers": genotype.layers,
        "reductions": list(genotype.reduction_cells),
        "channels": channels,
        "classes": classes,
        "image": list(image),
        "stem": stem,
        "parameters": count_parameters(network, auxiliary=False),
        "parameters_auxiliary": count_parameters(network) if two_inputs else None,
        "multiply_adds": {"convolutions": adds.convolutions, "with_norms": adds.with_norms},
        "cells": [[str(entry) for entry in cell] for cell in genotype.cells],
        "outputs": [list(genotype.joined(i)) for i in range(genotype.layers)],
        "dead": dead_note(network, auxiliary=False),
        "dead_cells": list(genotype.dead_cells()),
        "dead_entries": dead_entries(genotype),
        "dead_parameters": sum(value.numel() for name, value in network.named_parameters() if name in dead),
    }


def _count(value: int | None) -> str:
    return "none" if value is None else f"{value:,}"

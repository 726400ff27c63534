"""``ddarts predict``"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ddarts_ext.commands import options
from ddarts_ext.runs.losses import MULTI_LABEL, VALUES

if TYPE_CHECKING:
    from ddarts_ext.training import Predictions


def predict(
    run: options.Trained,
    images: Annotated[list[Path], typer.Argument(metavar="IMAGE...", help="Image files.")],
    weights: options.Weights = "last",
    top: Annotated[int, typer.Option(help="How many classes to print of each image.")] = 3,
    device: options.Device = "auto",
    as_json: options.Json = False,
) -> None:
    """Name the classes of images with a trained network, most probable first, or the numbers that it was trained for.

    Images are scaled, cut and normalised as those of the training were. --json gives the probabilities of all classes.
    Example: ddarts predict runs/photos-net one.jpg two.jpg
    """
    from ddarts_ext.training import load_network

    if top < 1:
        raise ValueError(f"predict: top must be >= 1, got {top}")
    network = load_network(run, weights=weights, device=device, command="predict")
    found = network.predict(images)
    if as_json:
        typer.echo(json.dumps([_row(found, index, path) for index, path in enumerate(images)]))
        return
    count = len(found.classes) if found.task == VALUES else top
    for path, classes in zip(images, found.top(count), strict=True):
        shown = ", ".join(
            f"{name} {value:.4g}" if found.task == VALUES else f"{name} {value:.1%}" for name, value in classes
        )
        typer.echo(f"{path}: {shown}")


def _row(found: Predictions, index: int, path: Path) -> dict[str, Any]:
    """What is found in one image, as plain data."""
    values = dict(zip(found.classes, found.probabilities[index].tolist(), strict=True))
    if found.task == VALUES:
        return {"image": str(path), "values": values}
    if found.task == MULTI_LABEL:
        return {"image": str(path), "labels": [n for n, p in values.items() if p > 0.5], "probabilities": values}
    return {"image": str(path), "class": found.labels[index], "probabilities": values}

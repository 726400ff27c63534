"""``ddarts predict``"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from ddarts_ext.commands import options


def predict(
    run: options.Trained,
    images: Annotated[list[Path], typer.Argument(metavar="IMAGE...", help="Image files.")],
    weights: options.Weights = "last",
    top: Annotated[int, typer.Option(help="How many classes to print of each image.")] = 3,
    device: options.Device = "auto",
    as_json: options.Json = False,
) -> None:
    """Name the classes of images with a trained network, most probable first.

    Images are scaled, cut and normalised as those of the training were. --json gives the probabilities of all classes.
    Example: ddarts predict runs/photos-net one.jpg two.jpg
    """
    from ddarts_ext.training import load_network

    if top < 1:
        raise ValueError(f"predict: top must be >= 1, got {top}")
    network = load_network(run, weights=weights, device=device, command="predict")
    found = network.predict(images)
    if as_json:
        rows = [
            {"image": str(path), "class": label, "probabilities": dict(zip(found.classes, values, strict=True))}
            for path, label, values in zip(images, found.labels, found.probabilities.tolist(), strict=True)
        ]
        typer.echo(json.dumps(rows))
        return
    for path, classes in zip(images, found.top(top), strict=True):
        typer.echo(f"{path}: " + ", ".join(f"{name} {probability:.1%}" for name, probability in classes))

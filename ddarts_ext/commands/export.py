"""``ddarts export``"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ddarts_ext.commands import options


def export(
    run: options.Trained,
    to: Annotated[
        str, typer.Option(help="onnx, torch (torch.export), python (a file that needs torch alone), or safetensors.")
    ],
    out: Annotated[
        Path | None, typer.Option(help="The file. [default: RUN/network.onnx, .pt2, .py or .safetensors]")
    ] = None,
    fold: Annotated[
        bool, typer.Option("--fold", help="Make batch norms part of the convolutions before them.")
    ] = False,
    pixels: Annotated[
        bool,
        typer.Option("--pixels", help="Of onnx and torch: take pixels from 0 to 1, give probabilities."),
    ] = False,
    weights: options.Weights = "last",
) -> None:
    """Write a trained network for whatever does not know this package.

    It takes normalised images and gives logits, or with --pixels does both inside; how images are prepared stands in
    the file. Example: ddarts export runs/photos-net --to onnx --pixels --fold
    """
    from ddarts_ext.export import FORMATS, OPSET
    from ddarts_ext.export import export as write
    from ddarts_ext.training import load_network

    if to not in FORMATS:
        raise ValueError(f"export: to must be one of {', '.join(FORMATS)}, got {to!r}")
    network = load_network(run, weights=weights, command="export")
    beside = run if run.is_dir() else run.parent
    path = out if out is not None else beside / f"network{FORMATS[to]}"
    for file in write(network, to, path, fold=fold, pixels=pixels):
        note = f" (opset {OPSET})" if to == "onnx" else ""
        typer.echo(f"{file}{note}")

"""The files of a trained network: network.json, and weights.safetensors that hold the same in their header."""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from ddarts_ext import info
from ddarts_ext.runs.files import replacing, write_whole
from ddarts_ext.runs.folder import RunFolder
from ddarts_ext.training.description import FILE, Description

WEIGHTS = {"last": "weights.safetensors", "best": "best.safetensors"}
"""The files of weights, by what they are the weights of."""


def stamp(**about: Any) -> dict[str, Any]:
    """What is noted of every trained network: versions and date, and what the caller knows."""
    versions = {"ddarts_ext": info.version(), "torch": str(torch.__version__), "python": platform.python_version()}
    return {**about, "versions": versions, "date": datetime.now(timezone.utc).isoformat(timespec="seconds")}


def write(folder: Path, description: Description, states: Mapping[str, Mapping[str, Tensor]]) -> None:
    """Write ``states``, weights by name (``last``, ``best``), and then network.json, each whole or not at all.

    Every file of weights holds the description in its header, so that it is a trained network by itself.
    """
    for name, state in states.items():
        content = {key: tensor.detach().contiguous() for key, tensor in state.items()}
        header = {
            "genotype": json.dumps(description.genotype.to_json()),
            "network": json.dumps(description.to_json()),
        }
        with replacing(folder / WEIGHTS[name]) as file:
            file.write(save(content, header))
    write_whole(folder / FILE, (json.dumps(description.to_json(), indent=2) + "\n").encode())


def read(
    run: str | Path, weights: str = "last", command: str = "load_network"
) -> tuple[Description, dict[str, Tensor]]:
    """Description and weights of the training in the folder ``run``, or of a file of weights alone.

    Raises ValueError, TypeError or OSError in one line that names what is not there or is wrong.
    """
    path = Path(run)
    if weights not in WEIGHTS:
        raise ValueError(f"{command}: weights must be one of {', '.join(WEIGHTS)}, got {weights!r}")
    if path.is_file():
        return _of_file(path, command)
    file = _present(path, weights, command)
    text = (path / FILE).read_text(encoding="utf-8")
    return _described(text, path / FILE, command), _tensors(file, command)[0]


def _present(path: Path, weights: str, command: str) -> Path:
    """The file of weights in the folder of a training that is finished."""
    folder = RunFolder(path, command)
    if (kind := folder.config().get("command")) != "train":
        more = f": ddarts train {path} trains what it found" if kind == "search" else ""
        raise ValueError(f"{command}: run must be the folder of a training, got that of a {kind} in {path}{more}")
    file = path / WEIGHTS[weights]
    if weights == "best" and not file.is_file() and folder.config().get("keep") != "best":
        raise ValueError(f"{command}: weights must be last, as {path} was trained without --keep best, got best")
    for needed in (file, path / FILE):
        if not needed.is_file():
            raise FileNotFoundError(
                f"{command}: {path} has no {needed.name} yet; ddarts train --resume --out {path} ends the training"
            )
    return file


def _of_file(path: Path, command: str) -> tuple[Description, dict[str, Tensor]]:
    tensors, header = _tensors(path, command)
    if "network" not in header:
        raise ValueError(f"{command}: {path} must be weights that a training wrote, and has no description of them")
    return _described(header["network"], path, command), tensors


def _described(text: str, path: Path, command: str) -> Description:
    try:
        return Description.from_text(text)
    except (ValueError, TypeError) as error:
        raise ValueError(f"{command}: {path} does not describe a network: {error}") from error


def _tensors(path: Path, command: str) -> tuple[dict[str, Tensor], dict[str, str]]:
    try:
        with safe_open(path, "pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, dict(file.metadata() or {})  # noqa: SIM118
    except SafetensorError as error:
        raise ValueError(f"{command}: {path} must be a file of safetensors: {error}") from error

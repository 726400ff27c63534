"""Published ways of training, by name: what each sets, and where it is from."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ddarts_ext.data import Dataset
from ddarts_ext.runs.folder import RunFolder

RECIPES = ("darts", "ddarts")


def recipe_for(source: object) -> str:
    """The recipe for what :meth:`Genotype.load` reads: ``ddarts`` for a run of ddarts or dartopti, else ``darts``.

    ``ddarts`` needs the package kornia, and is not chosen by itself without it.
    """
    if not isinstance(source, (str, Path)) or not (Path(source) / "config.json").is_file():
        return "darts"
    method = RunFolder(source, "train").config().get("method")
    searched = isinstance(method, dict) and method.get("name") in ("ddarts", "dartopti")
    return "ddarts" if searched and find_spec("kornia") is not None else "darts"


def settings_of(recipe: str, dataset: Dataset) -> Mapping[str, Any]:
    """The settings of a recipe that differ from the defaults, which are those of ``darts`` (DARTS, section 3.3).

    ``ddarts`` (D-DARTS, 2108.09306, section 4): batches of 128, and AutoAugment with the policy that was learned on
    images like these: of ImageNet above 64 pixels, else of CIFAR-10; for colour images, which it is made for.
    """
    if recipe not in RECIPES:
        raise ValueError(f"train: recipe must be one of {', '.join(RECIPES)}, got {recipe!r}")
    if recipe == "darts":
        return {}
    policy = "imagenet" if max(dataset.size) > 64 else "cifar10"
    return {"batch": 128, **({"autoaugment": policy} if dataset.channels == 3 else {})}

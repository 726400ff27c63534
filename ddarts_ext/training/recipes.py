"""Which recipe a training follows, what it sets, and what is said of it."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ddarts_ext.data import Dataset
from ddarts_ext.genotype import Genotype
from ddarts_ext.genotype.derivation import derive
from ddarts_ext.runs.folder import RunFolder
from ddarts_ext.training.recipe_table import RECIPES, Recipe

NAMES = tuple(RECIPES)
_SMALL_SIDE, _SMALL_COUNT = 16, 10_000


def _searched(source: object) -> str | None:
    """The method of a search, where ``source`` is the folder of one."""
    if not isinstance(source, (str, Path)) or not (Path(source) / "config.json").is_file():
        return None
    config = RunFolder(source, "train").config()
    method = config.get("method")
    if config.get("command", "search") != "search" or not isinstance(method, dict):
        return None
    return str(method.get("name"))


def recipe_for(source: object, genotype: Genotype | None = None) -> str:
    """The recipe for what :meth:`Genotype.load` reads: ``ddarts`` for a run of ddarts or dartopti, ``nasbench201`` for
    a genotype of that space, else ``darts``.

    ``ddarts`` needs the package kornia, and is not chosen by itself without it.
    """
    if genotype is not None and genotype.inputs == 1:
        return "nasbench201"
    return "ddarts" if _searched(source) in ("ddarts", "dartopti") and find_spec("kornia") is not None else "darts"


def recipe_of(name: Any) -> Recipe:
    """Raises ValueError for a name that none has."""
    if not isinstance(name, str) or name not in RECIPES:
        raise ValueError(f"train: recipe must be one of {', '.join(NAMES)}, got {name!r}")
    return RECIPES[name]


def followed(name: str, dataset: Dataset) -> str:
    """The name of the recipe whose numbers count: small images get those of ``quick`` unless a publication's are asked
    for by name."""
    small = max(dataset.size) <= _SMALL_SIDE and len(dataset.train) <= _SMALL_COUNT
    return "quick" if recipe_of(name).fits_small and small else name


def settings_of(name: str, dataset: Dataset) -> dict[str, Any]:
    """Everything that the recipe sets for these images.

    ``ddarts``, which is not of one data set, takes the policy of AutoAugment that was learned on images like these: of
    ImageNet above 64 pixels, else of CIFAR-10; for colour images, which it is made for.
    """
    name = followed(name, dataset)
    settings: dict[str, Any] = {}
    for numbers in recipe_of(name).numbers:
        settings |= numbers.settings
    if name == "ddarts" and dataset.channels == 3:
        settings["autoaugment"] = "imagenet" if max(dataset.size) > 64 else "cifar10"
    return settings


def said_of(name: str, dataset: Dataset, values: Mapping[str, Any]) -> list[str]:
    """Lines that say what the recipe sets, from where, and what of it was set otherwise: ``values`` are those that
    count."""
    named = followed(name, dataset)
    wanted = settings_of(name, dataset)
    left, parts = dict(wanted), []
    for numbers in recipe_of(named).numbers:
        own = {key: left.pop(key) for key in numbers.settings if key in left and wanted[key] == numbers.settings[key]}
        if own or not numbers.settings:
            parts.append(", ".join(_shown(key, value) for key, value in own.items()) + f" ({numbers.source})")
    if left:
        parts.append(", ".join(_shown(key, value) for key, value in left.items()) + " (D-DARTS, section 4)")
    why = "" if named == name else ", as the images are small and few"
    lines = [f"train: recipe {named}{why}: {'; '.join(part.strip() for part in parts)}"]
    changed = [
        f"{_shown(key, values[key])} (recipe: {_plain(value)})"
        for key, value in wanted.items()
        if key in values and values[key] != value
    ]
    if changed:
        lines.append(f"train: set otherwise than by the recipe: {', '.join(changed)}")
    return lines


def _shown(name: str, value: Any) -> str:
    return f"{name} {_plain(value)}"


def _plain(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return "/".join(map(_plain, value))
    if isinstance(value, bool) or value is None:
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value)


def deepened(source: object, genotype: Genotype, name: str, dataset: Dataset) -> tuple[Genotype, str]:
    """The network that is trained of what ``source`` gave, and a line that says its depth where there is a choice.

    The result of a search is brought to the published depth of the recipe; other genotypes are taken as they are, and
    so are those of NAS-Bench-201 and DARTOpti, whose depth is that of the space and of the network they started from.
    """
    cells, method = recipe_of(followed(name, dataset)).cells, _searched(source)
    if cells is None or genotype.inputs == 1 or method == "dartopti" or genotype.layers == cells:
        return genotype, ""
    if method is None:
        published = f"; {name} as published has {cells} (cells={cells})"
        return genotype, f"train: {genotype.layers} cells, as the genotype has{published}"
    try:
        deeper = derive(genotype, cells)
    except ValueError as error:
        return genotype, f"train: {genotype.layers} cells as searched, not {cells} as published: {error}"
    return deeper, (
        f"train: {cells} cells, as published for {name}, derived from the {genotype.layers} that were searched "
        f"(cells={genotype.layers} trains those)"
    )

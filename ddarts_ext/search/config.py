"""The settings of one search, resolved: method, then what suits the data, then what the caller says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from ddarts_ext import spaces
from ddarts_ext.data import Augmentation, Dataset
from ddarts_ext.genotype.start import Start
from ddarts_ext.nn.stem import STEMS
from ddarts_ext.runs.device import PRECISIONS
from ddarts_ext.search import methods
from ddarts_ext.search.architecture import owners
from ddarts_ext.search.methods import Method

_SIZES = ("epochs", "cells", "channels", "batch")


@dataclass(frozen=True)
class SearchConfig:
    """Everything that determines a search but the images themselves.

    split: part of the training images whose batches move the weights; the rest moves the alphas and judges.
    reductions: indices of the reduction cells, None for thirds. steps: nodes of a cell, None for the space's.
    sequence: for methods whose cells share alphas by number, the number of every cell. start: the network to start at.
    """

    data: str
    method: Method
    seed: int = 0
    device: str = "cpu"
    precision: str = "float32"
    deterministic: bool = False
    split: float = 0.5
    stem: str = "cifar"
    steps: int | None = None
    reductions: tuple[int, ...] | None = None
    sequence: tuple[int, ...] | None = None
    start: Start | None = None
    augmentation: Augmentation = field(default_factory=Augmentation)

    def to_json(self) -> dict[str, Any]:
        """Plain data for config.json."""
        start = None if self.start is None else self.start.to_json()
        return {"version": 1, "command": "search", **asdict(self), "start": start}

    def space(self) -> spaces.Space:
        return spaces.get(self.method.space, steps=self.steps)


def resolve(
    dataset: Dataset, method: str | Method, *, space: str | None, given: Mapping[str, Any], **fixed: Any
) -> SearchConfig:
    """Check and complete a configuration. ``given``: sizes and settings of the method by name, None for "not said".

    Raises ValueError or TypeError naming the argument.
    """
    chosen = methods.get(method)
    wanted = {name: value for name, value in given.items() if value is not None}
    small = methods.preset(dataset.size, len(dataset.train)) if isinstance(method, str) else {}
    settings = {**small, **wanted}
    sizes: dict[str, Any] = {name: _positive(name, settings.pop(name)) for name in _SIZES if name in settings}
    chosen = replace(chosen, **sizes).with_settings(**settings)
    if space is not None:
        chosen = replace(chosen, space=space)
    if (chosen.distance.track_distance or chosen.distance.early_stop) and "distance" not in chosen.parts:
        chosen = replace(chosen, parts=(*chosen.parts, "distance"))
    if "augmentation" not in fixed:
        # A search sees crops and flips, no cutout: DARTS, section 3.1.
        fixed["augmentation"] = replace(dataset.augmentation, cutout=0, autoaugment=None)
    config = SearchConfig(data=dataset.name, method=chosen, **fixed)
    _check(config)
    return config


def _positive(name: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"search: {name} must be a whole number, got {value!r}")
    if value < 1:
        raise ValueError(f"search: {name} must be >= 1, got {value}")
    return value


def _check(config: SearchConfig) -> None:
    config.space()
    if config.precision not in PRECISIONS:
        raise ValueError(f"search: precision must be one of {', '.join(PRECISIONS)}, got {config.precision!r}")
    if config.stem not in STEMS:
        raise ValueError(f"search: stem must be one of {', '.join(STEMS)}, got {config.stem!r}")
    if not 0 < config.split < 1:
        raise ValueError(f"search: split must be between 0 and 1, got {config.split}")
    if isinstance(config.seed, bool) or not isinstance(config.seed, int) or not 0 <= config.seed < 2**63:
        raise ValueError(f"search: seed must be a whole number >= 0, got {config.seed!r}")
    if config.method.channels % 2:
        raise ValueError(f"search: channels must be even, as reductions halve them, got {config.method.channels}")
    _check_indices(config.reductions, config.method.cells)
    _check_start(config)


def _check_start(config: SearchConfig) -> None:
    method = config.method
    if method.sharing == "sequence" and config.sequence is None:
        raise ValueError(
            f"search: start must be given for method {method.name}: ResNet18, ResNet50, Xception, InceptionV4 or a "
            "genotype file"
        )
    if method.shrinking is not None and (config.start is not None or "distance" in method.parts):
        raise ValueError(
            f"search: start, early_stop and track_distance must be left out with method {method.name}, which has no "
            "alphas to read an architecture from"
        )
    if method.epochs <= method.architect.alpha_start:
        raise ValueError(
            f"search: epochs must be more than the {method.architect.alpha_start} before alphas move (alpha_start), "
            f"got {method.epochs}"
        )
    if config.start is None:
        return
    # Also finds cells that share alphas and differ, before anything is computed.
    determined = {"cells": method.cells, "steps": config.steps, "reductions": config.reductions}
    for name, expected in config.start.sizes(method.space).items():
        if name in determined and determined[name] != expected:
            raise ValueError(f"search: {name} must be {expected!r} as in the start, got {determined[name]!r}")
    owner = owners(method.sharing, method.cells, config.reductions or (), config.sequence)
    config.start.table(config.space(), owner)


def _check_indices(reductions: Sequence[int] | None, cells: int) -> None:
    for index in reductions or ():
        if not 0 <= index < cells:
            raise ValueError(f"search: reductions must be in 0..{cells - 1}, got {index}")

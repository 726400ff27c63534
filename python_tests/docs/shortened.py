"""Imported before a block of the documentation runs: its searches and trainings take one epoch of some of the images.

What a block says is what runs, with all checks of its arguments; only how long it lasts is cut.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch

import ddarts_ext.search.searcher as searcher
import ddarts_ext.search.settings as search_settings
import ddarts_ext.training.trainer as trainer
from ddarts_ext.data.subset import Subset

IMAGES = 120
SMALLER = {"cells": 3, "channels": 2, "batch": 8}


def _fewer(load: Any) -> Any:
    def loaded(*given: Any, **more: Any) -> Any:
        dataset = load(*given, **more)
        parts = {name: getattr(dataset, name) for name in ("train", "test")}
        return replace(dataset, **{name: Subset(part, _spread(len(part))) for name, part in parts.items()})

    return loaded


def _spread(count: int) -> torch.Tensor:
    return torch.arange(0, count, max(1, count // IMAGES))


def _one_epoch(resolve: Any) -> Any:
    def resolved(*given: Any) -> Any:
        *others, said = given
        config = resolve(*others, {**said, "epochs": 1})
        return config

    return resolved


def _small_search(resolve: Any) -> Any:
    def resolved(dataset: Any, method: Any, device: str, given: Any) -> Any:
        config = resolve(dataset, method, device, given)  # what was said, with all its checks
        sizes = {} if given.get("start") is not None else dict(SMALLER)
        name = config.method.space
        if name == "nasbench201":
            sizes |= {"channels": 4}
        wanted = {**given, **sizes, "epochs": max(1, config.method.architect.alpha_start + 1)}
        del config
        return resolve(dataset, method, device, wanted)

    return resolved


for module in (searcher, trainer):
    module.load = _fewer(module.load)  # type: ignore[attr-defined]
searcher.resolve = _small_search(search_settings.resolve)  # type: ignore[attr-defined]
trainer.resolve = _one_epoch(trainer.resolve)  # type: ignore[attr-defined]

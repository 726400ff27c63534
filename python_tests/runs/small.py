"""A search, a search that shrinks and a training that take a fraction of a second."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from ddarts_ext.data import Augmentation, Dataset, MemorySplit
from ddarts_ext.genotype import Genotype
from ddarts_ext.search import Searcher, Shrinker
from ddarts_ext.training.trainer import Trainer

SEARCH: dict[str, Any] = {"cells": 3, "channels": 2, "steps": 1, "batch": 4, "device": "cpu", "epochs": 3}
# What a search takes for itself follows from its epochs; here it is said.
SEARCH |= {"alpha_start": 0, "alpha_lr": 0.02}
SHRINK: dict[str, Any] = {
    "space": "nasbench201", "cells": 3, "channels": 2, "batch": 4, "device": "cpu", "epochs": 3, "shrink_steps": 1,
    "shrink_interval": 1, "measure_samples": 4, "measure_curve": 0,
}  # fmt: skip
TRAIN: dict[str, Any] = {"channels": 4, "batch": 4, "device": "cpu", "epochs": 3, "drop_path": 0.3, "stem": "cifar"}
GENOTYPE = Genotype(((("skip_connect", 2, 0), ("sep_conv_3x3", 2, 1)),) * 3, concat=(2,))  # type: ignore[arg-type]
TIMES = ("seconds", "measure_seconds", "memory_mib")


def noise(train: int = 22, size: int = 4) -> Dataset:
    """22 images, of which a search trains on 11: two whole batches of 4 and one of 3."""
    generator = torch.Generator().manual_seed(0)

    def split(count: int) -> MemorySplit:
        images = torch.randint(0, 256, (count, 1, size, size), generator=generator, dtype=torch.uint8)
        return MemorySplit(images, torch.arange(count) % 2)

    how = Augmentation(crop_padding=1)
    return Dataset("noise", split(train), split(4), ("a", "b"), (size, size), 1, (0.5,), (0.25,), how)


def search(out: Path | None = None, method: str = "ddarts", **settings: Any) -> Any:
    settings = {**SEARCH, "ablation_inactive": "random", **settings} if method == "ddarts" else {**SEARCH, **settings}
    return Searcher(settings.pop("data", noise()), method, out=out, **settings)


def shrink(out: Path | None = None, **settings: Any) -> Any:
    settings = {**SHRINK, **settings}
    return Shrinker(settings.pop("data", noise()), out=out, **settings)


def train(out: Path | None = None, **settings: Any) -> Any:
    settings = {**TRAIN, **settings}
    return Trainer(GENOTYPE, settings.pop("data", noise()), out=out, **settings)


def ran(run: Any) -> Any:
    return run.train() if isinstance(run, Trainer) else run.search()


def timeless(history: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{key: value for key, value in record.items() if key not in TIMES} for record in history]


def outcome(result: Any) -> list[torch.Tensor]:
    """What a run came to, to be compared bit by bit."""
    tensors = list(result.network.state_dict().values()) if hasattr(result, "accuracy") else [result.alphas]
    return [*tensors, torch.tensor([record["train"]["loss"] for record in result.history], dtype=torch.float64)]

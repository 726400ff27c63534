"""Imported before a block of the documentation runs: its searches and trainings take one epoch of some of the images.

What a block says is what runs, with all checks of its arguments; only how long it lasts is cut.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch

import ddarts_ext.benchmark.op_times as op_times
import ddarts_ext.comparison.improvement as improvement
import ddarts_ext.comparison.work as work
import ddarts_ext.distance.score_ops as score_ops
import ddarts_ext.distance.workers as workers
import ddarts_ext.search.settings as search_settings
import ddarts_ext.search.strategy as strategy
import ddarts_ext.training.trainer as trainer
from ddarts_ext.comparison.plan import Plan
from ddarts_ext.data.subset import Subset
from ddarts_ext.distance.protocol import Protocol
from ddarts_ext.genotype import Genotype

IMAGES = 60
CELLS = 4
SMALLER: dict[str, int] = {"cells": 3, "channels": 2, "batch": 8}


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
        config = resolve(*others, said)  # what was said, with all its checks
        channels = said.get("channels") or min(4, config.channels)
        return resolve(*others, {**said, "epochs": 1, "warmup": 0, "batch": 32, "channels": min(4, channels)})

    return resolved


def _shallow(deep: Any) -> Any:
    """The first cells of the genotype that would be trained."""

    def few(*given: Any) -> tuple[Genotype, str]:
        genotype, line = deep(*given)
        if genotype.layers > CELLS and genotype.inputs == 2:
            genotype = Genotype(
                tuple(genotype.genes[index] for index in genotype.seq[:CELLS]),
                concats=tuple(genotype.concats[index] for index in genotype.seq[:CELLS]) if genotype.concats else (),
                concat=genotype.concat,
                steps=genotype.steps,
            )
        return genotype, line

    return few


def _fewer_works(check: Any, least: Mapping[str, int]) -> Any:
    """Of a comparison or of op scores: what was said is checked, then made small."""

    def checked(plan: Any) -> None:
        check(plan)
        for name, value in least.items():
            object.__setattr__(plan, name, min(value, getattr(plan, name)))

    return checked


def _one_edge(tasks: Any) -> Any:
    """Every op is measured, on its first edge."""

    def first(protocol: Any) -> Any:
        return tuple({task.op: task for task in reversed(tasks(protocol))}.values())

    return first


def _small_search(resolve: Any) -> Any:
    def resolved(dataset: Any, method: Any, device: str, given: Any) -> Any:
        config = resolve(dataset, method, device, given)  # what was said, with all its checks
        sizes = {} if given.get("start") is not None else dict(SMALLER)
        name = config.method.space
        if name == "nasbench201":
            sizes |= {"channels": 4}
        if config.method.architect.alpha_start:
            sizes["alpha_start"] = 0  # alphas would rest in the only epoch
        epochs = 1
        if config.method.shrinking is not None:
            sizes["shrink_interval"] = 1
            epochs += config.method.shrinking.shrink_steps
        if config.method.random and config.method.baseline.evaluates and config.table is None:
            sizes["evaluations"] = max(2, config.method.baseline.population)
        wanted = {**given, **sizes, "epochs": epochs}
        return resolve(dataset, method, device, wanted)

    return resolved


def _at_once(timed: Any) -> Any:
    """As often as it must be, and no longer."""

    def taken(steps: Any, device: Any, seconds: float) -> Any:
        return timed(steps, device, min(0.05, seconds))

    return taken


for module in (strategy, trainer, score_ops, workers, work, improvement):
    module.load = _fewer(module.load)  # type: ignore[attr-defined]
strategy.resolve = search_settings.resolve = _small_search(search_settings.resolve)  # type: ignore[attr-defined]
op_times.timed = _at_once(op_times.timed)
trainer.Trainer._deep = _shallow(trainer.Trainer._deep)  # type: ignore[method-assign]
trainer.resolve = _one_epoch(trainer.resolve)  # type: ignore[attr-defined]
Plan.__post_init__ = _fewer_works(Plan.__post_init__, {"seeds": 1, "random": 1})  # type: ignore[method-assign]
Protocol.__post_init__ = _fewer_works(  # type: ignore[method-assign]
    Protocol.__post_init__, {"channels": 2, "epochs": 1, "runs": 1, "batch": 32}
)
Protocol.tasks = _one_edge(Protocol.tasks)  # type: ignore[method-assign]

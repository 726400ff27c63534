"""Random search and regularised evolution: architectures one by one, each looked up or trained for some epochs."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import torch

from ddarts_ext.data import Dataset
from ddarts_ext.data.subset import Subset
from ddarts_ext.genotype import Genotype
from ddarts_ext.genotype.mutation import mutated
from ddarts_ext.genotype.random import below
from ddarts_ext.runs.files import write_whole
from ddarts_ext.search.methods.baseline import Baseline
from ddarts_ext.search.settings import SearchSettings
from ddarts_ext.spaces import Space
from ddarts_ext.tables.nasbench201 import NASBench201Table

TABLE_EPOCHS = 200
"""Of the trainings that the table of NAS-Bench-201 is of."""


@dataclass(frozen=True)
class Evaluation:
    """One architecture. score: its metric. epochs: of the training behind it. seconds: what it took here. parent: the
    number of the architecture that it is a mutation of. same_as: of an equal one before it, whose score it has."""

    number: int
    genotype: Genotype
    score: float
    epochs: int
    seconds: float
    parent: int | None = None
    same_as: int | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {**vars(self), "genotype": self.genotype.to_json()}


class Evaluator(Protocol):
    """Gives the score of an architecture. epochs: of the training behind a score."""

    @property
    def epochs(self) -> int: ...

    def __call__(self, number: int, genotype: Genotype) -> float: ...


class FromTable:
    """Scores are validation accuracies of a table, from 0 to 1."""

    epochs = TABLE_EPOCHS

    def __init__(self, table: NASBench201Table, data: str) -> None:
        self.table, self.data = table, data

    def __call__(self, number: int, genotype: Genotype) -> float:
        return self.table.accuracy(genotype, self.data, "search: evaluation_table").valid / 100


class ByTraining:
    """Scores are metrics on the judging images after a training on the others; every training is a run of its own."""

    def __init__(
        self, config: SearchSettings, dataset: Dataset, parts: Sequence[torch.Tensor], out: Path | None, **said: Any
    ) -> None:
        weights, judging = (Subset(dataset.train, part) for part in parts)
        self.data = replace(dataset, train=weights, test=judging)
        self.config, self.out, self.said = config, out, said
        self.epochs = config.method.baseline.evaluation_epochs

    def __call__(self, number: int, genotype: Genotype) -> float:
        from ddarts_ext.training.trainer import Trainer

        config = self.config
        settings: dict[str, Any] = {"channels": config.method.channels, "batch": config.method.batch}
        if config.method.space != "nasbench201":
            settings["stem"] = config.stem
        trainer = Trainer(
            genotype,
            self.data,
            out=None if self.out is None else self.out / f"{number:04d}",
            resume=self.out is not None,
            device=config.device,
            epochs=self.epochs,
            # The same for all: equal architectures have equal scores.
            seed=config.seed,
            precision=config.precision,  # type: ignore[arg-type]
            deterministic=config.deterministic,
            class_weights=config.class_weights,  # type: ignore[arg-type]
            **settings,
            **self.said,
        )
        return float(trainer.train().accuracy)


def evaluated(
    how: Baseline,
    space: Space,
    draw: Callable[[torch.Generator], Genotype],
    evaluate: Evaluator,
    seed: int,
    *,
    higher_is_better: bool = True,
    folder: Path | None = None,
    say: Callable[[Evaluation, Evaluation], None] = lambda one, best: None,
) -> list[Evaluation]:
    """All evaluations, in their order. draw: an architecture at random. folder: where each is kept as a file, and found
    again by a search that goes on: what is drawn follows from the seed and the scores. say: is told of every evaluation
    and the best one so far."""
    generator = torch.Generator().manual_seed(seed)
    done: list[Evaluation] = []
    known: dict[str, int] = {}
    sign = 1.0 if higher_is_better else -1.0
    for number in range(how.evaluations):
        parent: int | None = None
        if number < how.population or not how.population:
            genotype = draw(generator)
        else:
            living = done[-how.population :]
            drawn = [living[below(len(living), generator)] for _ in range(how.tournament)]
            best = max(drawn, key=lambda one: sign * one.score)
            parent, genotype = best.number, mutated(best.genotype, space, generator=generator)
        text = json.dumps(genotype.to_json(), sort_keys=True)
        before = known.setdefault(text, number)
        if before != number:
            one = Evaluation(number, genotype, done[before].score, 0, 0.0, parent, before)
        else:
            one = _evaluation(number, genotype, parent, evaluate, folder)
        done.append(one)
        say(one, top(done, higher_is_better))
    return done


def top(done: Sequence[Evaluation], higher_is_better: bool) -> Evaluation:
    """The best of them; of equal ones the first."""
    sign = 1.0 if higher_is_better else -1.0
    return max(done, key=lambda one: sign * one.score)


def _evaluation(
    number: int, genotype: Genotype, parent: int | None, evaluate: Evaluator, folder: Path | None
) -> Evaluation:
    file = None if folder is None else folder / f"{number:04d}.json"
    if file is not None and file.is_file():
        kept = json.loads(file.read_text())
        if kept.get("genotype") != json.loads(json.dumps(genotype.to_json())):
            raise ValueError(f"search: {file} must be of this run, and is of another architecture")
        return Evaluation(number, genotype, float(kept["score"]), int(kept["epochs"]), float(kept["seconds"]), parent)
    began = time.perf_counter()
    score = evaluate(number, genotype)
    one = Evaluation(number, genotype, score, evaluate.epochs, round(time.perf_counter() - began, 3), parent)
    if file is not None:
        file.parent.mkdir(parents=True, exist_ok=True)
        write_whole(file, (json.dumps(one.to_json()) + "\n").encode())
    return one


def budget(done: Sequence[Evaluation]) -> dict[str, Any]:
    """What the evaluations cost: architectures that were trained or looked up, epochs of their trainings, and seconds
    that were spent here; a table spends none."""
    return {
        "architectures": sum(one.same_as is None for one in done),
        "training_epochs": sum(one.epochs for one in done),
        "seconds": round(sum(one.seconds for one in done), 3),
    }

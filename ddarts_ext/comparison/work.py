"""One search, and one training of what it found, each in a folder that a killed comparison takes up again."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, cast

import torch

from ddarts_ext.comparison.plan import Contender, Plan, Search, Training
from ddarts_ext.data import Dataset, load
from ddarts_ext.data.subset import held_out
from ddarts_ext.genotype import Genotype
from ddarts_ext.nn.count import count_parameters
from ddarts_ext.nn.nasbench201 import NASBench201Network
from ddarts_ext.runs.files import write_whole
from ddarts_ext.runs.losses import metric_in
from ddarts_ext.search import methods
from ddarts_ext.search.searcher import Searcher
from ddarts_ext.search.settings import resolve
from ddarts_ext.tables.nasbench201 import CLASSES, NASBench201Table
from ddarts_ext.training.evaluate import accuracy
from ddarts_ext.training.trainer import Trainer

Made = TypeVar("Made")
SEARCHED, TRAINED = "searched.json", "trained.json"


@dataclass(frozen=True)
class Searched:
    """A finished search. valid: accuracy of the supernet per epoch. note: why another rule stood in, else empty."""

    genotype: dict[str, Any]
    rule: str
    note: str
    seconds: float
    memory_mib: float
    valid: list[float]


@dataclass(frozen=True)
class Trained:
    """A finished training. chosen_by: accuracy on the held-out training images; test: on the test images, once. What a
    table says of a result instead has 0 seconds, and the parameters of the network that the table is of."""

    chosen_by: float
    test: float
    parameters: int
    seconds: float


class Bench:
    """What the work needs: the plan, the folder of the comparison and the images, loaded once in a process."""

    def __init__(self, plan: Plan, out: Path, device: str) -> None:
        self.plan, self.out, self.device = plan, out, device
        self.whole: Dataset = load(plan.data)
        self.table = None if plan.table is None else NASBench201Table.load(plan.table)
        self.images = self.whole if self.table is not None else held_out(self.whole, plan.holdout, plan.seed)
        check_training("compare", self.whole, plan.train)
        for contender in plan.all:  # all of them before the first one takes its time
            space = resolve(self.images, contender.method, "cpu", self._settings(contender)).method.space
            if self.table is not None and space != "nasbench201":
                raise ValueError(
                    f"compare: space must be nasbench201 where results are looked up in a table, got {space!r} for "
                    f"{contender.label}"
                )

    @classmethod
    def of(cls, plan: dict[str, Any], out: str, device: str) -> Bench:
        return cls(Plan.from_json(plan), Path(out), device)

    def search_folder(self, search: Search) -> Path:
        return search_folder(self.plan, self.out, search)

    def searched(self, search: Search) -> Searched:
        """Search, or read what was found."""
        folder = self.search_folder(search)
        return once(folder / SEARCHED, Searched, lambda: self._search(search, folder))

    def trained(self, training: Training) -> Trained:
        """Train and judge, or read how it was judged."""
        folder = training_folder(self.plan, self.out, training)
        return once(folder / TRAINED, Trained, lambda: self._train(training, folder))

    def _settings(self, contender: Contender) -> dict[str, Any]:
        """What the searches of a contender are told; those that evaluate architectures have the table too."""
        settings = {**self.plan.search, **contender.settings}
        if self.plan.table is not None and methods.get(contender.method).baseline.evaluates:
            settings = {"table": self.plan.table, "evaluation_table": self.plan.table_data, **settings}
        return settings

    def _search(self, search: Search, folder: Path) -> Searched:
        contender = self.plan.all[search.contender]
        method = methods.get(contender.method)
        settings = self._settings(contender)
        if method.random:
            settings = {**settings, **self._sizes_of_first()}
        searcher = Searcher(
            self.images,
            cast(Any, contender.method),
            **settings,
            seed=search.seed,
            device=self.device,
            out=folder,
            resume=True,
        )
        result = searcher.search()
        return Searched(
            genotype=result.genotype.to_json(),
            rule=result.rule,
            note=result.note,
            seconds=result.seconds,
            memory_mib=max((record["memory_mib"] for record in result.history), default=0.0),
            valid=[metric_in(record["valid"])[1] for record in result.history if "valid" in record],
        )

    def _sizes_of_first(self) -> dict[str, Any]:
        """What a random architecture has in common with the results of the first contender, defaults resolved."""
        first = self.plan.contenders[0]
        found = resolve(self.images, first.method, "cpu", self._settings(first))
        sizes = {"cells": found.method.cells, "steps": found.steps, "reductions": found.reductions}
        return {name: value for name, value in sizes.items() if value is not None}

    def _train(self, training: Training, folder: Path) -> Trained:
        began = time.perf_counter()
        genotype = Genotype.from_json(self.searched(training.search).genotype)
        if self.table is not None:
            return self._looked_up(self.table, genotype)
        settings = dict(self.plan.train)
        if training.short:
            settings["epochs"] = self.plan.short_epochs
        trainer = Trainer(
            genotype, self.images, **settings, seed=training.seed, device=self.device, out=folder, resume=True
        )
        result = trainer.train()
        # The test images are looked at here, once, and nothing is chosen by what they say.
        test = accuracy(result.network, self.whole, self.whole.test, trainer.device, objective=trainer.objective)
        return Trained(
            chosen_by=result.accuracy,
            test=test,
            parameters=count_parameters(result.network, auxiliary=False),
            seconds=time.perf_counter() - began,
        )

    def _looked_up(self, table: NASBench201Table, genotype: Genotype) -> Trained:
        found = table.accuracy(genotype, self.plan.table_data, "compare: table_data")
        with torch.device("meta"):
            parameters = count_parameters(NASBench201Network(genotype, classes=CLASSES[self.plan.table_data]))
        return Trained(found.valid / 100, found.test / 100, parameters, 0.0)


def check_training(command: str, dataset: Dataset, settings: Mapping[str, Any]) -> None:
    """Raise ValueError or TypeError, before the first search, where no training has these settings, or where one with
    them is judged by what is better when it is less."""
    for name in ("seed", "device", "out", "resume"):
        if name in settings:
            raise ValueError(
                f"{command}: train must leave out {name}, which the trainings have, got {settings[name]!r}"
            )
    trainer = Trainer(Genotype.load("DARTS_V2"), dataset, **settings, device="cpu")
    if not trainer.objective.higher_is_better:
        raise ValueError(
            f"{command}: metric must be one of which more is better, got {trainer.objective.metric_name!r}"
        )


def search_folder(plan: Plan, out: Path, search: Search) -> Path:
    return out / "searches" / f"{_slug(plan.all[search.contender].label)}-{search.seed}"


def training_folder(plan: Plan, out: Path, training: Training) -> Path:
    name = f"{search_folder(plan, out, training.search).name}-{'short-' if training.short else ''}{training.seed}"
    return out / "networks" / name


def search_work(search: Search, bench: Bench) -> Searched:
    """For :class:`ddarts_ext.runs.workers.Place`."""
    return bench.searched(search)


def train_work(training: Training, bench: Bench) -> Trained:
    """For :class:`ddarts_ext.runs.workers.Place`."""
    return bench.trained(training)


def _slug(label: str) -> str:
    return re.sub(r"[^A-Za-z0-9.]+", "_", label).strip("_") or "method"


def once(file: Path, kind: type[Made], make: Callable[[], Made], command: str = "compare") -> Made:
    """What ``file`` says, or what ``make`` gives, which is then written there; both are a dataclass of plain data."""
    if file.is_file():
        try:
            return kind(**json.loads(file.read_text()))
        except (ValueError, TypeError, RecursionError) as error:
            raise ValueError(f"{command}: {file} is not a result of this version: {error}") from error
    made = make()
    file.parent.mkdir(parents=True, exist_ok=True)
    write_whole(file, (json.dumps(vars(made), indent=1) + "\n").encode())
    return made

"""Strategies without a supernet: an architecture at random, or the best of many that are evaluated one by one."""

from __future__ import annotations

from dataclasses import replace

import torch

from ddarts_ext.genotype import Genotype
from ddarts_ext.genotype.random import random_genotype
from ddarts_ext.runs.losses import shown
from ddarts_ext.search import methods
from ddarts_ext.search.architecture import owners
from ddarts_ext.search.baseline import ByTraining, Evaluation, Evaluator, FromTable, budget, evaluated, top
from ddarts_ext.search.result import Reading, SearchResult
from ddarts_ext.search.strategy import Strategy


class DrawnStrategy(Strategy):
    """Random search and regularised evolution, or one architecture at random, which nothing judges."""

    def found(self) -> SearchResult:
        """Draws, evaluates what has not been, and gives the best."""
        self._say_what_counts()
        if not self.config.method.baseline.evaluates:
            return self._result(self.draw(torch.Generator().manual_seed(self.config.seed)))
        done, better = self._evaluated(), self.task.objective.higher_is_better
        cost = {"evaluations": [one.to_json() for one in done], "budget": budget(done)}
        return replace(self._result(top(done, better).genotype), **cost)  # type: ignore[arg-type]

    def _say_what_counts(self) -> None:
        method = self.config.method
        if method.epochs != methods.METHODS.get(method.name, method).epochs:
            instead = ": evaluation_epochs says how long an architecture trains" if method.baseline.evaluates else ""
            self.task.say(f"search: epochs are those of a supernet, and {method.name} has none{instead}")

    def draw(self, generator: torch.Generator) -> Genotype:
        method, space = self.config.method, self.config.space()
        # All cells are one where a space keeps every edge (NAS-Bench-201).
        reductions = self.config.reductions or space.reductions(method.cells)
        owner = owners(method.sharing, method.cells, reductions, self.config.sequence)
        return random_genotype(
            space,
            (0,) if space.selection == "every_edge" else owner,
            method.discretisation.rules[0],  # type: ignore[arg-type]
            generator=generator,
            reductions=self.config.reductions,
            configuration=method.discretisation.configuration,
        )

    def _evaluated(self) -> list[Evaluation]:
        task, how = self.task, self.config.method.baseline
        kept = None if task.folder is None else task.folder / "evaluations"
        evaluate: Evaluator
        if task.table is not None:
            evaluate = FromTable(task.table, how.evaluation_table)
        else:
            evaluate = ByTraining(self.config, task.dataset, self.divided, kept, **(task.own or {}))
        name = task.objective.metric_name

        def say(one: Evaluation, best: Evaluation) -> None:
            if task.table is None or one is best:
                found = f"{shown(name, one.score, 2)}, the best {shown(name, best.score, 2)}"
                task.say(f"search: architecture {one.number + 1} of {how.evaluations}: {found}")

        return evaluated(
            how,
            self.config.space(),
            self.draw,
            evaluate,
            self.config.seed,
            higher_is_better=task.objective.higher_is_better,
            folder=kept,
            say=say,
        )

    def _result(self, genotype: Genotype) -> SearchResult:
        space, rule = self.config.space(), self.config.method.discretisation.rules[0]
        alphas = torch.zeros(self.config.method.cells, len(space.edges), len(space.ops))
        return self.outcome(Reading(genotype, rule, "", {rule: genotype}), [], alphas)

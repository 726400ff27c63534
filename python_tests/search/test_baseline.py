"""Random search and regularised evolution: who is a parent, what a mutation changes, what it costs, and going on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from runs.shown import Shown
from runs.small import noise
from tables.whole import write_table
from typer.testing import CliRunner

from ddarts_ext import spaces
from ddarts_ext.cli import app
from ddarts_ext.genotype import Genotype
from ddarts_ext.genotype.mutation import mutated
from ddarts_ext.genotype.random import random_genotype
from ddarts_ext.runs.progress import Progress
from ddarts_ext.search import methods
from ddarts_ext.search.baseline import budget, evaluated, top
from ddarts_ext.search.methods import Baseline
from ddarts_ext.search.searcher import Searcher
from ddarts_ext.tables.nasbench201 import COLUMNS

SMALL: dict[str, Any] = {
    "cells": 3, "channels": 2, "steps": 1, "batch": 8, "device": "cpu", "evaluations": 4, "evaluation_epochs": 1,
}  # fmt: skip


def drawn(space: spaces.Space, generator: torch.Generator) -> Genotype:
    seq = (0,) if space.selection == "every_edge" else (0, 1, 1)
    return random_genotype(space, seq, generator=generator)


def convolutions(number: int, genotype: Genotype) -> float:
    """The more of them, the better."""
    return sum("conv_3x3" in entry.op for gene in genotype.genes for entry in gene)


class Scores:
    epochs = 7

    def __init__(self) -> None:
        self.seen: list[int] = []

    def __call__(self, number: int, genotype: Genotype) -> float:
        self.seen.append(number)
        return convolutions(number, genotype)


@pytest.mark.parametrize("name", ["darts", "darts_none", "nasbench201", "isdarts"])
def test_a_mutation_changes_one_op_or_one_edge(name: str) -> None:
    space, generator = spaces.get(name), torch.Generator().manual_seed(0)
    one = drawn(space, generator)
    changed: set[str] = set()
    for _ in range(60):
        other = mutated(one, space, generator=generator)
        pairs = [
            (before, after)
            for mine, theirs in zip(one.genes, other.genes, strict=True)
            for before, after in zip(mine, theirs, strict=True)
            if before != after
        ]
        assert len(pairs) == 1
        ((before, after),) = pairs
        assert before.target == after.target
        assert (before.op != after.op) + (before.source != after.source) == 1
        changed.add("op" if before.op != after.op else "edge")
        assert all(len(set(gene)) == len(gene) for gene in other.genes)
        if space.selection == "two_edges":
            assert all(len({(e.target, e.source) for e in gene}) == 2 * space.steps for gene in other.genes)
            assert not other.dead_cells()
        one = other
    assert changed == ({"op"} if name == "nasbench201" else {"op", "edge"})


def test_parents_are_the_best_of_those_alive() -> None:
    """With a tournament of so many draws the best of the population is always among them."""
    space = spaces.get("nasbench201")
    how = Baseline(evaluations=40, population=6, tournament=200)
    done = evaluated(how, space, lambda g: drawn(space, g), Scores(), 3)
    assert [one.parent for one in done[:6]] == [None] * 6
    for one in done[6:]:
        living = done[one.number - 6 : one.number]
        assert one.parent in [other.number for other in living]
        assert done[one.parent].score == max(other.score for other in living)
    assert top(done, True).score == max(one.score for one in done)
    assert top(done, False).score == min(one.score for one in done)


def test_evolution_goes_up_where_random_search_waits() -> None:
    space = spaces.get("nasbench201")
    best: dict[int, list[float]] = {0: [], 10: []}
    for population, found in best.items():
        for seed in range(10):
            how = Baseline(evaluations=100, population=population)
            found.append(top(evaluated(how, space, lambda g: drawn(space, g), Scores(), seed), True).score)
    assert sum(best[10]) > sum(best[0])


def test_less_is_better_where_the_metric_says_so() -> None:
    space = spaces.get("nasbench201")
    how = Baseline(evaluations=60, population=10)
    done = evaluated(how, space, lambda g: drawn(space, g), Scores(), 0, higher_is_better=False)
    assert top(done, False).score == 0
    assert sum(one.score for one in done[-10:]) < sum(one.score for one in done[:10])


def test_equal_architectures_are_evaluated_once_and_cost_nothing_again(tmp_path: Path) -> None:
    space = spaces.get("nasbench201")
    scores = Scores()
    same = drawn(space, torch.Generator().manual_seed(0))
    done = evaluated(Baseline(evaluations=5), space, lambda g: same, scores, 0, folder=tmp_path)
    assert scores.seen == [0]
    assert [one.same_as for one in done] == [None, 0, 0, 0, 0]
    cost = budget(done)
    assert (cost["architectures"], cost["training_epochs"]) == (1, 7)


def test_what_was_evaluated_is_found_again(tmp_path: Path) -> None:
    space = spaces.get("nasbench201")
    how = Baseline(evaluations=20, population=5)
    expected = evaluated(how, space, lambda g: drawn(space, g), Scores(), 0)

    class Ends(Scores):
        def __call__(self, number: int, genotype: Genotype) -> float:
            if len(self.seen) == 8:
                raise KeyboardInterrupt
            return super().__call__(number, genotype)

    with pytest.raises(KeyboardInterrupt):
        evaluated(how, space, lambda g: drawn(space, g), Ends(), 0, folder=tmp_path)
    rest = Scores()
    found = evaluated(how, space, lambda g: drawn(space, g), rest, 0, folder=tmp_path)
    assert [(o.genotype, o.score, o.parent) for o in found] == [(o.genotype, o.score, o.parent) for o in expected]
    assert len(rest.seen) == len({o.number for o in found if o.same_as is None}) - 8
    with pytest.raises(ValueError, match="must be of this run, and is of another architecture"):
        evaluated(how, space, lambda g: drawn(space, g), rest, 1, folder=tmp_path)


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All architectures of NAS-Bench-201; the accuracy is 50 and 5 for every 3x3 convolution, of CIFAR-100 the rest."""

    def values(index: int, ops: tuple[str, ...]) -> list[float]:
        value = 50 + 5 * ops.count("nor_conv_3x3")
        return [value if "cifar100" not in column else 100 - value for column in COLUMNS]

    return write_table(tmp_path_factory.mktemp("table") / "table.csv", COLUMNS, values)


@pytest.mark.parametrize(("method", "evaluations"), [("evolution", 100), ("random", 100)])
def test_accuracies_of_a_table(method: str, evaluations: int, table: Path) -> None:
    how: dict[str, Any] = {"space": "nasbench201", "table": table, "evaluations": evaluations, "device": "cpu"}
    result = Searcher(noise(), method, **how).search()
    assert len(result.evaluations) == evaluations
    best = max(one["score"] for one in result.evaluations)
    assert result.figures is not None
    assert result.figures.accuracies["cifar10"].valid == pytest.approx(100 * best)
    assert result.budget["training_epochs"] == 200 * result.budget["architectures"]
    other = Searcher(noise(), method, evaluation_table="cifar100", **how).search()
    assert max(one["score"] for one in other.evaluations) == pytest.approx(0.5)


class EndsAt(Progress):
    """Ends the search after so many architectures."""

    def __init__(self, left: int) -> None:
        self.left = left

    def say(self, line: str) -> None:
        self.left -= "architecture" in line
        if not self.left:
            raise KeyboardInterrupt


@pytest.mark.parametrize("method", ["evolution", "random"])
def test_architectures_are_trained_and_a_kill_changes_nothing(method: str, tmp_path: Path) -> None:
    how = {**SMALL, "population": 2} if method == "evolution" else SMALL
    expected = Searcher(noise(), method, **how).search()
    assert 0 <= expected.evaluations[0]["score"] <= 1
    assert expected.budget["training_epochs"] == expected.budget["architectures"]
    with pytest.raises(KeyboardInterrupt):
        Searcher(noise(), method, out=tmp_path, progress=EndsAt(2), **how).search()
    assert not (tmp_path / "genotype.json").exists()
    found = Searcher(noise(), method, out=tmp_path, resume=True, **how).search()
    assert found.genotype == expected.genotype
    scores = [[one["score"] for one in result.evaluations] for result in (found, expected)]
    assert scores[0] == scores[1]
    assert len(json.loads((tmp_path / "evaluations.json").read_text())["evaluations"]) == 4
    # More follow those that there are.
    more = Searcher(noise(), method, out=tmp_path, resume=True, **{**how, "evaluations": 5}).search()
    assert [one["score"] for one in more.evaluations[:4]] == scores[0]
    assert more.network(channels=2)(torch.zeros(2, 1, 4, 4)).shape == (2, 2)


def test_the_judging_images_are_not_trained_on(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []
    from ddarts_ext.training.trainer import Trainer

    real = Trainer.train
    monkeypatch.setattr(Trainer, "train", lambda self: (seen.append(self.dataset), real(self))[1])
    run = Searcher(noise(), "random", **{**SMALL, "evaluations": 2})
    run.search()
    for dataset in seen:
        parts = [set(part.indices.tolist()) for part in (dataset.train, dataset.test)]
        assert parts == [set(part.tolist()) for part in run.strategy.divided]
        assert not parts[0] & parts[1]


def test_one_at_random_is_the_one_that_is_drawn() -> None:
    result = Searcher(noise(), "random", cells=3, channels=2, device="cpu").search()
    assert (result.evaluations, result.budget) == ([], {})
    several = Searcher(noise(), "random", **{**SMALL, "steps": None, "evaluations": 2}).search()
    assert several.evaluations[0]["genotype"] == result.genotype.to_json()


@pytest.mark.parametrize(("settings", "says"), [({}, False), ({"epochs": 7}, True)])
def test_epochs_of_a_supernet_are_said_to_be_none(settings: dict[str, Any], says: bool) -> None:
    shown = Shown()
    Searcher(noise(), "random", cells=3, channels=2, device="cpu", progress=shown, **settings).search()
    assert any("epochs are those of a supernet, and random has none" in line for line in shown.lines) is says


def test_the_command(table: Path, tmp_path: Path) -> None:
    arguments = ["search", "--data", "digits", "--method", "evolution", "--space", "nasbench201", "--table", str(table)]
    arguments += ["--set", "evaluations=30", "--out", str(tmp_path / "run"), "--device", "cpu"]
    found = CliRunner().invoke(app, arguments)
    assert found.exit_code == 0, found.output
    assert "architectures, " in found.output
    assert (tmp_path / "run" / "genotype.json").is_file()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"method": "darts", "evaluations": 3}, "method darts: evaluations and population must be left out, as it has"),
        ({"method": "evolution", "evaluations": 3}, "method evolution: population must be at most the 3 evaluations"),
        ({"method": "evolution", "rules": ["edge"]}, "method evolution: rules must begin with darts with a population"),
        ({"method": "evolution", "tournament": 0}, "search: tournament must be >= 1"),
        ({"method": "random", "evaluation_table": "mnist"}, "search: evaluation_table must be one of cifar10"),
    ],
)
def test_what_cannot_be_is_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Searcher(noise(), device="cpu", **settings)


def test_published_settings() -> None:
    how = methods.get("evolution").baseline
    assert (how.evaluations, how.population, how.tournament) == (200, 10, 3)

"""Methods against each other and random architectures: what is trained on what, chosen by what, and judged once."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tables.whole import write_table
from typer.testing import CliRunner

import ddarts_ext
from ddarts_ext.cli import app
from ddarts_ext.comparison import Contender, Plan, compare
from ddarts_ext.comparison.plan import Search
from ddarts_ext.comparison.work import Bench, search_folder
from ddarts_ext.data import load
from ddarts_ext.data.subset import held_out
from ddarts_ext.genotype import Genotype
from ddarts_ext.tables.nasbench201 import COLUMNS, NASBench201Table

SEARCH: dict[str, Any] = {"cells": 3, "channels": 2, "steps": 1, "batch": 8, "epochs": 1}
TRAIN: dict[str, Any] = {"channels": 2, "epochs": 1, "batch": 8}


@pytest.fixture
def images(tmp_path: Path) -> Path:
    random = np.random.RandomState(0)
    arrays = {f"x_{part}": random.randint(0, 256, (40, 6, 6), dtype=np.uint8) for part in ("train", "test")}
    np.savez(tmp_path / "images.npz", **arrays, y_train=np.arange(40) % 2, y_test=np.arange(40) % 2)
    return tmp_path / "images.npz"


@pytest.mark.parametrize(
    ("train", "error", "said"),
    [
        ({"foo": 1}, TypeError, "train: setting must be one of .*, got 'foo'"),
        ({"batch": 0}, ValueError, "train: batch must be"),
        ({"seed": 3}, ValueError, "train must leave out seed, which the trainings have, got 3"),
    ],
)
def test_wrong_trainings_are_refused_before_the_first_search(
    images: Path, tmp_path: Path, train: dict[str, Any], error: type[Exception], said: str
) -> None:
    with pytest.raises(error, match=said):
        run(images, tmp_path / "compare", train=train)
    with pytest.raises(error, match=said):
        ddarts_ext.optimise("ResNet18", images, out=tmp_path / "optimised", train=train, device="cpu")
    assert not list(tmp_path.glob("*/searches/*"))
    assert not list(tmp_path.glob("*/search/*"))


def run(images: Path, out: Path, **how: Any) -> Any:
    settings: dict[str, Any] = {"seeds": 2, "random": 2, "search": SEARCH, "train": TRAIN, "train_seeds": 2, **how}
    return compare(images, ["ddarts", "plain=ddarts:ablation_weight=0"], out=out, device="cpu", **settings)


def test_contenders() -> None:
    assert Contender.parse("ddarts").label == "ddarts"
    found = Contender.parse('mine=ddarts:ablation_weight=0,rules=["edge"]'.replace(',rules=["edge"]', ""))
    assert (found.label, found.method, found.settings) == ("mine", "ddarts", {"ablation_weight": 0})
    assert Contender("ddarts", {"epochs": 3}).label == "ddarts:epochs=3"
    for wrong in ("ddart", "ddarts:epochs", "x=ddart:a=1"):
        with pytest.raises(ValueError, match="method must be"):
            Contender.parse(wrong)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"contenders": ()}, "methods must be one or more"),
        ({"seeds": 0}, "seeds must be >= 1"),
        ({"holdout": 1.0}, "holdout must be between 0 and 1"),
        ({"protocol": "some"}, "protocol must be one of all, best"),
        ({"contenders": (Contender("darts"), Contender("darts"))}, "methods must differ, got 'darts' twice"),
        ({"table_data": "cifar"}, "table_data must be one of cifar10, cifar100, imagenet16"),
        ({"table": "t.csv", "train": {"epochs": 1}}, "train must be left as it is where a table is looked up in"),
        ({"table": "t.csv", "train_seeds": 2}, "train_seeds must be left as it is"),
        ({"table": "t.csv", "protocol": "best"}, "protocol must be left as it is"),
    ],
)
def test_plans_are_checked(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Plan("digits", **{"contenders": (Contender("darts"),), **wrong})


def test_random_architectures_are_of_the_first_method() -> None:
    plan = Plan("digits", (Contender("ddarts", {"cells": 3}), Contender("darts")), seeds=2, random=3)
    random = plan.all[-1]
    assert random.settings == {"space": "darts", "rules": ["sparse"]}
    searches = plan.searches()
    assert [search.contender for search in searches] == [0, 1, 2, 0, 1, 2, 2]
    assert Plan.from_json(json.loads(json.dumps(plan.to_json()))) == plan


def test_held_out_images_are_seen_by_no_one(images: Path) -> None:
    whole = load(images)
    part = held_out(whole, 0.25, 0)
    keys = {name: set(split.keys()) for name, split in (("train", part.train), ("chosen by", part.test))}
    assert (len(part.train), len(part.test)) == (30, 10)
    assert not keys["train"] & keys["chosen by"]
    assert keys["train"] | keys["chosen by"] == set(whole.train.keys())
    assert np.bincount(part.test.labels).tolist() == [5, 5]
    assert part.train.batches(np_indices(part)).__next__()[0].shape == (4, 1, 6, 6)


def np_indices(part: Any) -> Any:
    import torch

    return torch.arange(4)[None]


def test_compared_resumed_and_judged_once(images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    found = run(images, tmp_path / "out", say=said.append)
    assert [line.label for line in found.lines] == ["ddarts", "plain", "random"]
    assert [line.searches for line in found.lines] == [2, 2, 2]
    assert [line.trainings for line in found.lines] == [4, 4, 4]
    assert all(0 <= line.mean <= 1 and line.error is not None for line in found.lines)
    assert sum("trained" in line for line in said) == 12
    assert not any("test" in line for line in said)
    stored = json.loads((tmp_path / "out" / "comparison.json").read_text())
    assert stored == json.loads(json.dumps(found.to_json()))
    with pytest.raises(ValueError, match="out must be a new folder"):
        run(images, tmp_path / "out")

    def again(*_: Any) -> None:
        raise AssertionError("nothing may be computed twice")

    monkeypatch.setattr(Bench, "_search", again)
    monkeypatch.setattr(Bench, "_train", again)
    assert run(images, tmp_path / "out", resume=True) == found


def test_every_contender_is_checked_before_the_first_is_searched(images: Path, tmp_path: Path) -> None:
    said: list[str] = []
    with pytest.raises(ValueError, match="epochs must be more than shrink_steps"):
        compare(images, ["darts", "isdarts:space=darts"], out=tmp_path, say=said.append, search={"epochs": 2}, random=0)
    assert not said


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All architectures of NAS-Bench-201, with accuracies that tell every one from the others."""
    return write_table(
        tmp_path_factory.mktemp("table") / "table.csv",
        COLUMNS[:4],
        lambda index, ops: [index / 200, index / 250, index / 300, index / 400],
    )


IN_TABLE: dict[str, Any] = {
    "search": {"space": "nasbench201", "cells": 3, "channels": 2, "batch": 8, "epochs": 1}, "seeds": 2, "random": 3
}  # fmt: skip
EVOLUTION = "evolution:evaluations=12,population=4,tournament=2"


def test_results_are_looked_up_in_a_table(images: Path, table: Path, tmp_path: Path) -> None:
    data = NASBench201Table.load(table)
    for name in ("cifar10", "cifar100"):
        out = tmp_path / name
        how = {**IN_TABLE, "table": str(table), "table_data": name, "device": "cpu"}
        found = compare(images, ["darts", EVOLUTION], out=out, **how)
        assert [line.label for line in found.lines] == ["darts", EVOLUTION, "random"]
        assert [line.searches for line in found.lines] == [2, 2, 3]
        for number, line in enumerate(found.lines):
            folders = [search_folder(found.plan, out, Search(number, seed)) for seed in range(line.searches)]
            own = [data[Genotype.load(folder)].accuracies[name] for folder in folders]
            assert line.mean == pytest.approx(sum(one.test for one in own) / len(own) / 100)
            assert line.best == pytest.approx(max(own, key=lambda one: one.valid).test / 100)
        folder = search_folder(found.plan, out, Search(1, 0))
        best = max(one["score"] for one in json.loads((folder / "evaluations.json").read_text())["evaluations"])
        assert 100 * best == pytest.approx(data[Genotype.load(folder)].accuracies[name].valid)
    assert compare(images, ["darts", EVOLUTION], out=out, resume=True, **how) == found


def test_what_a_table_cannot_judge_is_refused(images: Path, table: Path, tmp_path: Path) -> None:
    how = {**IN_TABLE, "table": str(table), "device": "cpu"}
    with pytest.raises(ValueError, match=r"space must be nasbench201 .* got 'darts.*' for darts"):
        compare(images, ["darts"], out=tmp_path / "space", **{**how, "search": SEARCH, "random": 0})
    with pytest.raises(ValueError, match="table_data must be one of cifar10, cifar100, which the table has"):
        compare(images, ["random"], out=tmp_path / "data", **{**how, "table_data": "imagenet16", "random": 0})


def test_settings_may_be_lists() -> None:
    found = Contender.parse("pdarts:stage_ops=[4,3],epochs=3")
    assert found.settings == {"stage_ops": [4, 3], "epochs": 3}


def test_random_architectures_are_of_the_space_of_all_searches() -> None:
    plan = Plan("digits", (Contender("darts"),), search={"space": "nasbench201"}, random=1)
    assert plan.all[-1].settings == {"space": "nasbench201", "rules": ["darts"]}


def test_a_killed_comparison_goes_on(images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = run(images, tmp_path / "whole")
    train, count = Bench._train, 0

    def killed(self: Bench, *arguments: Any) -> Any:
        nonlocal count
        count += 1
        if count == 4:
            raise KeyboardInterrupt
        return train(self, *arguments)

    monkeypatch.setattr(Bench, "_train", killed)
    with pytest.raises(KeyboardInterrupt):
        run(images, tmp_path / "cut")
    found = run(images, tmp_path / "cut", resume=True)
    assert [(line.mean, line.best) for line in found.lines] == [(line.mean, line.best) for line in whole.lines]


def test_several_processes_give_the_same(images: Path, tmp_path: Path) -> None:
    one, two = (run(images, tmp_path / str(jobs), jobs=jobs, train_seeds=1, random=0) for jobs in (1, 2))
    assert [line.mean for line in one.lines] == [line.mean for line in two.lines]


def test_the_best_of_each_goes_on(images: Path, tmp_path: Path) -> None:
    found = run(images, tmp_path / "out", protocol="best", short_epochs=1, random=0)
    assert [line.searches for line in found.lines] == [2, 2]
    assert [line.trainings for line in found.lines] == [2, 2]
    short = sorted(path.name for path in (tmp_path / "out" / "networks").iterdir() if "short" in path.name)
    assert short == ["ddarts-0-short-0", "ddarts-1-short-0", "plain-0-short-0", "plain-1-short-0"]


def test_command_and_pictures(images: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    out = tmp_path / "out"
    settings = [f"--set={name}={value}" for name, value in SEARCH.items() if name != "epochs"]
    train = [f"--train={name}={value}" for name, value in TRAIN.items() if name != "epochs"]
    command = ["compare", "--data", str(images), "--out", str(out), "--method", "darts", "--method", "ddarts"]
    sizes = ["--seeds", "2", "--random", "2", "--epochs", "2", "--train-epochs", "1", "--device", "cpu"]
    done = CliRunner().invoke(app, [*command, *sizes, *settings, *train], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    assert all(len(line) <= 80 for line in done.stdout.splitlines() if not line.startswith("figures in"))
    assert {path.name for path in out.glob("*.png")} == {"search.png", "accuracy.png", "correlation.png"}
    genotype = Genotype.load(out / "searches" / "random-1")
    assert genotype.layers == Genotype.load(out / "searches" / "darts-0").layers == 3
    assert not genotype.dead_cells()
    assert ddarts_ext.compare is compare


def test_random_architectures_have_the_sizes_that_the_method_takes_for_itself(tmp_path: Path) -> None:
    """Where nothing is said, small images have 4 cells: the random ones too."""
    plan = Plan("digits", (Contender("ddarts"),), seeds=1, random=1)
    bench = Bench(plan, tmp_path, "cpu")
    assert bench._sizes_of_first() == {"cells": 4}
    found = bench.searched(plan.searches()[-1])
    assert Genotype.from_json(found.genotype).layers == 4

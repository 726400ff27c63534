"""Searching by shrinking, end to end on small supernets: what goes is gone, and a resumed run is the same run."""

from __future__ import annotations

import math
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

import ddarts_ext
from ddarts_ext.cli import app
from ddarts_ext.data import Augmentation, Dataset, MemorySplit
from ddarts_ext.nn import NASBench201Supernet
from ddarts_ext.nn.count import count_parameters
from ddarts_ext.search import methods
from ddarts_ext.search.methods import variant
from ddarts_ext.search.parts.part import Part
from ddarts_ext.search.result import SearchResult
from ddarts_ext.search.searcher import Searcher
from ddarts_ext.search.shrinking.shrinker import Shrinker
from ddarts_ext.search.state import forget
from ddarts_ext.tables.nasbench201 import NASBench201Table

NASBENCH: dict[str, Any] = {"cells": 3, "channels": 2, "batch": 8, "epochs": 5, "shrink_interval": 1, "device": "cpu"}
DARTS: dict[str, Any] = {**NASBENCH, "space": "darts", "epochs": 3, "shrink_steps": 2}


def noise(train: int = 24) -> Dataset:
    generator = torch.Generator().manual_seed(0)

    def split(count: int) -> MemorySplit:
        images = torch.randint(0, 256, (count, 1, 8, 8), generator=generator, dtype=torch.uint8)
        return MemorySplit(images, torch.arange(count) % 2)

    classes = ("even", "odd")
    return Dataset("noise", split(train), split(4), classes, (8, 8), 1, (0.5,), (0.25,), Augmentation(crop_padding=1))


class Watch(Part):
    """Keeps, after every epoch, how many tensors the optimiser moves and remembers."""

    def __init__(self) -> None:
        self.seen: list[tuple[int, int, int]] = []
        self.state: Any = None

    def after_epoch(self, state: Any, epoch: int, record: dict[str, Any]) -> bool:
        optimizer = state.weight_optimizer
        moved = sum(p.numel() for group in optimizer.param_groups for p in group["params"])
        self.state = state
        self.seen.append((moved, sum(s["momentum_buffer"].numel() for s in optimizer.state.values()), epoch))
        return False


@pytest.fixture(scope="module")
def nasbench(tmp_path_factory: pytest.TempPathFactory) -> tuple[SearchResult, Watch]:
    watch = Watch()
    out = tmp_path_factory.mktemp("runs") / "whole"
    result = Shrinker(noise(), **NASBENCH, seed=3, parts=[watch], out=out).search()
    assert isinstance(result, SearchResult)
    return result, watch


def test_one_op_of_every_edge_is_left(nasbench: tuple[SearchResult, Watch]) -> None:
    result, _ = nasbench
    assert result.mask is not None
    assert result.mask.shape == (3, 6, 5)
    assert (result.mask.sum(2) == 1).all()
    assert result.genotype == ddarts_ext.Genotype.from_nb201(result.genotype.to_nb201())
    assert "none" not in result.genotype.ops
    assert result.network(channels=4)(torch.zeros(2, 1, 8, 8)).shape == (2, 2)


def test_history_tells_the_steps(nasbench: tuple[SearchResult, Watch]) -> None:
    history = nasbench[0].history
    assert [record["epoch"] for record in history if "removed" in record] == [0, 1, 2, 3]
    assert [entry[2] for entry in history[0]["removed"]] == [0] * 6  # `none` first, on every edge
    assert [len(record["removed"]) for record in history[:4]] == [6] * 4
    assert "growing" in history[0]
    assert history[0]["growing"]["samples"][-1] == 24
    assert all("alphas" not in record and "valid" not in record for record in history)
    for before, after in pairwise(history):
        gone = {tuple(entry) for entry in before["removed"]} if "removed" in before else set()
        for row, edge, op in gone:
            assert before["mask"][row][edge][op] == 1
            assert after["mask"][row][edge][op] == 0
            assert after["scores"][row][edge][op] is None
            kept = [s for s in before["scores"][row][edge] if s is not None]
            assert before["scores"][row][edge][op] == max(kept)
    assert all(edge[0] == math.inf for edge in history[0]["scores"][0])


def test_what_is_removed_is_gone(nasbench: tuple[SearchResult, Watch]) -> None:
    """The network, the optimiser's parameters and its momenta shrink together; multiply-adds fall with them."""
    result, watch = nasbench
    sizes = [record["parameters"] for record in result.history]
    assert sizes[0] == count_parameters(NASBench201Supernet(2, 1, 2, in_channels=1))
    assert sizes[0] == sizes[1] > sizes[-1]  # `none` has no parameters
    adds = [record["multiply_adds"] for record in result.history]
    assert adds == sorted(adds, reverse=True)
    assert adds[0] > adds[-1]
    # The watch looks after the shrinking of its epoch, the record before it.
    assert [moved for moved, _, _ in watch.seen[:-1]] == sizes[1:]
    assert all(moved == remembered for moved, remembered, _ in watch.seen)
    assert watch.state.net.cells[0].present().sum() == 6


def test_all_images_train_the_weights() -> None:
    shrinker = Shrinker(noise(), **NASBENCH)
    weights, rest = shrinker.strategy.divided
    assert len(weights) == 24
    assert len(rest) == 0
    assert shrinker._initial().weight_optimizer.defaults["nesterov"]


@pytest.mark.parametrize("settings", [NASBENCH, DARTS], ids=["nasbench201", "darts"])
def test_resumed_run_equals_the_whole_one(settings: dict[str, Any], tmp_path: Path) -> None:
    """Masks, momenta and random state come back: stopped after a step, the run ends as if it had not been."""

    class Stop(Exception):
        pass

    class Break(Part):
        def before_epoch(self, state: Any, epoch: int) -> None:
            if epoch == 2 and not resumed:
                raise Stop

    resumed = False
    whole = Shrinker(noise(), **settings, out=tmp_path / "whole", parts=[Break()])
    with pytest.raises(Stop):
        Shrinker(noise(), **settings, out=tmp_path / "cut", parts=[Break()]).search()
    resumed = True
    expected = whole.search()
    found = Shrinker(noise(), **settings, out=tmp_path / "cut", resume=True, parts=[Break()]).search()
    timings = {"seconds", "measure_seconds", "memory_mib"}
    assert found.genotype == expected.genotype
    for ours, theirs in zip(found.history, expected.history, strict=True):
        assert {k: v for k, v in ours.items() if k not in timings} == {
            k: v for k, v in theirs.items() if k not in timings
        }
    files = [tmp_path / name / "checkpoint.pt" for name in ("whole", "cut")]
    ends = [torch.load(file, weights_only=True)["content"] for file in files]
    assert ends[0]["net"].keys() == ends[1]["net"].keys()
    for name, tensor in ends[0]["net"].items():
        assert torch.equal(tensor, ends[1]["net"][name]), name
    assert torch.equal(ends[0]["mask"], ends[1]["mask"])


def test_darts_space_keeps_two_ops_per_node() -> None:
    result = Shrinker(noise(), **DARTS, measure_curve=0).search()
    assert isinstance(result, SearchResult)
    assert result.mask is not None
    assert result.mask.shape == (3, 14, 8)
    for cell in result.genotype.cells:
        assert [sum(entry.target == node for entry in cell) for node in (2, 3, 4, 5)] == [2, 2, 2, 2]
        assert not {entry.op for entry in cell} & {"none", "dua_sepc_3x3", "dil_sepc_3x3"}
    assert len(result.genotype.genes) == 2  # one normal, one reduction cell
    assert [len(record.get("removed", ())) for record in result.history] == [2 * 52, 2 * 52, 0]
    assert result.network(channels=4)(torch.zeros(2, 1, 8, 8)).shape == (2, 2)


@pytest.mark.parametrize(
    ("settings", "steps"),
    [({"shrink_steps": 1}, 1), ({"shrink_by": "alphas"}, 4), ({"measure_form": "paper", "measure_samples": 0}, 4)],
    ids=["I-DARTS", "S-DARTS", "paper form, all images"],
)
def test_ablations(settings: dict[str, Any], steps: int) -> None:
    result = Shrinker(noise(), **NASBENCH, **settings).search()
    assert isinstance(result, SearchResult)
    assert result.mask is not None
    assert (result.mask.sum(2) == 1).all()
    assert sum("removed" in record for record in result.history) == steps
    assert ("alphas" in result.history[0]) == (settings.get("shrink_by") == "alphas") == ("valid" in result.history[0])


def test_alphas_compare_by_their_softmax() -> None:
    result = Shrinker(
        noise(), **{**NASBENCH, "epochs": 2, "shrink_steps": 1}, shrink_by="alphas", alpha_lr=0.5
    ).search()
    first = result.history[0]
    expected = torch.tensor(first["alphas"][0]).softmax(-1)
    torch.testing.assert_close(torch.tensor(first["scores"][0]), expected)
    assert torch.equal(torch.tensor(result.history[1]["mask"][0]).argmax(-1), expected.argmax(-1))


def test_figures_are_looked_up(tmp_path: Path) -> None:
    result = Shrinker(noise(), **NASBENCH, seed=3).search()
    text = result.genotype.to_nb201()
    (tmp_path / "table.csv").write_text(f"index,arch,cifar10_valid,cifar10_test\n7,{text},90.5,93.25\n")
    again = Shrinker(noise(), **NASBENCH, seed=3, table=tmp_path / "table.csv", out=tmp_path / "run").search()
    assert isinstance(again, SearchResult)
    assert again.figures is not None
    assert again.figures == NASBench201Table.load(tmp_path / "table.csv")[text]
    assert (tmp_path / "run" / "nasbench201.json").is_file()


def test_momentum_of_the_rest_is_kept() -> None:
    kept, gone = (torch.nn.Parameter(torch.ones(2)) for _ in range(2))
    optimizer = torch.optim.SGD([gone, kept], lr=0.1, momentum=0.9)
    for parameter in (kept, gone):
        parameter.grad = torch.full((2,), 3.0)
    optimizer.step()
    forget(optimizer, [kept])
    assert optimizer.param_groups[0]["params"] == [kept]
    assert list(optimizer.state) == [kept]
    assert optimizer.state[kept]["momentum_buffer"].tolist() == [3, 3]


def test_spaces_have_the_published_settings() -> None:
    nasbench, darts = variant("isdarts", None), variant("isdarts", "darts")
    assert nasbench.shrinking is not None
    assert darts.shrinking is not None
    assert (nasbench.space, nasbench.epochs, nasbench.cells, nasbench.batch) == ("nasbench201", 30, 15, 64)
    assert (darts.space, darts.epochs, darts.cells) == ("isdarts", 50, 8)
    assert (nasbench.shrinking.shrink_steps, nasbench.shrinking.measure_samples) == (4, 200)
    assert (darts.shrinking.shrink_steps, darts.shrinking.shrink_interval, darts.shrinking.measure_samples) == (
        7,
        3,
        600,
    )
    assert variant(darts, "nasbench201") == nasbench


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"epochs": 4}, r"search: epochs must be more than shrink_steps \* shrink_interval = 4, got 4"),
        ({"cells": 4}, "search: cells must be a multiple of the 3 stages of nasbench201, got 4"),
        ({"space": "dartopti"}, "search: space must be nasbench201 or darts for method isdarts, got 'dartopti'"),
        ({"shrink_by": "luck"}, "search: shrink_by must be one of measure, alphas, got 'luck'"),
        ({"shrink_steps": 0}, "search: shrink_steps must be >= 1, got 0"),
        ({"table": "nowhere.csv"}, "nasbench201: table must be a file or folder, and 'nowhere.csv' is not there"),
    ],
)
def test_wrong_input_is_refused_before_anything_runs(settings: dict[str, Any], message: str) -> None:
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        Shrinker(noise(), **{**NASBENCH, **settings})


def test_it_is_a_searcher_of_methods_that_shrink() -> None:
    found = Searcher(noise(), "isdarts", **NASBENCH, seed=3).search()
    again = Shrinker(noise(), **NASBENCH, seed=3).search()
    assert found.genotype == again.genotype
    assert found.mask is not None
    assert again.mask is not None
    assert torch.equal(found.mask, again.mask)


def test_it_refuses_what_does_not_shrink() -> None:
    with pytest.raises(ValueError, match="search: method darts must be searched by Searcher"):
        Shrinker(noise(), "darts", device="cpu")
    with pytest.raises(TypeError, match="shrink_steps is a setting of methods that shrink, and ddarts does not"):
        methods.get("ddarts").with_settings(shrink_steps=3)


def test_command_searches_resumes_and_looks_up(tmp_path: Path) -> None:
    """What is left unsaid on resuming is taken from the run: method, space, and the settings of the shrinking."""
    rng = np.random.default_rng(0)
    arrays = {f"x_{part}": rng.integers(0, 256, (16, 8, 8), dtype=np.uint8) for part in ("train", "test")}
    np.savez(tmp_path / "noise.npz", **arrays, **{f"y_{part}": np.arange(16) % 2 for part in ("train", "test")})
    sizes = ["--epochs", "2", "--channels", "2", "--cells", "3", "--batch", "8", "--device", "cpu"]
    steps = ["--set", "shrink_steps=1", "--set", "shrink_interval=1"]
    run = ["search", "--method", "isdarts", "--data", str(tmp_path / "noise.npz"), "--out", str(tmp_path / "run")]
    done = CliRunner().invoke(app, [*run, *sizes, *steps], catch_exceptions=False)
    text = done.stdout.splitlines()[0]
    assert done.exit_code == 0
    assert text == ddarts_ext.Genotype.load(tmp_path / "run").to_nb201()
    (tmp_path / "table.csv").write_text(f"index,arch,cifar10_valid,cifar10_test\n0,{text},90.5,93.25\n")
    again = ["search", "--out", str(tmp_path / "run"), "--resume", "--device", "cpu", "--table"]
    told = CliRunner().invoke(app, [*again, str(tmp_path / "table.csv")], catch_exceptions=False)
    assert "cifar10: validation 90.500 %, test 93.250 %, rank 1 of 1" in told.stdout
    refused = CliRunner().invoke(app, ["search", "--data", "digits", "--table", "x.csv"])
    assert "table must not be given for space darts: it is one of nasbench201" in str(refused.exception)


def test_unshuffled_images_come_in_order() -> None:
    """As the published implementation shows them."""
    shrinker = Shrinker(noise(), **NASBENCH, shuffle=False)
    rows = shrinker.strategy.rows(shrinker._initial())
    batches = [list(range(start, start + 8)) for start in range(0, 24, 8)]
    assert [row.tolist() for part in rows for row in part] == batches


def test_cells_of_skips_alone_still_run() -> None:
    """The collapsed architecture has no weight in any cell."""
    state = ddarts_ext.Shrinker(noise(), **NASBENCH)._initial()
    mask = torch.zeros(1, 6, 5, dtype=torch.bool)
    mask[..., 1] = True
    state.shrink(mask)
    assert not list(state.net.cells.parameters())
    logits = state.net(torch.ones(2, 1, 8, 8), state.architecture.weights())
    logits.sum().backward()
    state.weight_optimizer.step()
    assert logits.isfinite().all()

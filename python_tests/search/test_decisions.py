"""What the history says of how far op weights have decided, and what a result must be: connected."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from search.test_searcher import SMALL, noise

from ddarts_ext import Genotype, spaces
from ddarts_ext.genotype import Gene
from ddarts_ext.search.decisions import decisions, decisiveness, one_hot
from ddarts_ext.search.methods import Discretisation
from ddarts_ext.search.result import read
from ddarts_ext.search.searcher import Searcher

DARTS = spaces.get("darts")


def test_undecided_and_decided_weights() -> None:
    even = decisions(torch.full((2, 14, 7), 0.5), DARTS)
    assert even["dominant"] == 0
    assert even["decided"] == 0
    assert even["spread"] == 0
    assert even["entropy"] == pytest.approx(math.log(7))
    weights = torch.full((2, 14, 7), 0.01)
    weights[:, :, 2] = 0.95  # skip_connect
    sure = decisions(weights, DARTS)
    assert sure["dominant"] == 2 * 14
    assert sure["decided"] == 1
    assert sure["entropy"] < 0.5
    assert sure["skips"] == 2 * 8
    assert "leads by 0.940" in decisiveness(weights, DARTS)


def test_one_hot_is_read_back() -> None:
    genotype = Genotype.load("D-DARTS_sparse_cifar10")
    weights = one_hot(genotype.cells, DARTS)
    assert weights.sum() == sum(len(cell) for cell in genotype.cells)


def chain(cells: int, entries: tuple[Gene, ...], odd: dict[int, tuple[Gene, ...]]) -> Genotype:
    return Genotype(tuple(odd.get(i, entries) for i in range(cells)))


def test_a_cell_that_no_later_one_reads_is_dead() -> None:
    reads_last, reads_before = (Gene("sep_conv_3x3", 4, 1),), (Gene("sep_conv_3x3", 4, 0),)
    assert chain(4, reads_last, {}).dead_cells() == ()
    # Cells 2 and 3 read the cell before last: cell 2 is lost, as the last cell reads cell 1.
    assert chain(4, reads_last, {2: reads_before, 3: reads_before}).dead_cells() == (2,)
    assert chain(4, reads_before, {}).dead_cells() == (0, 2)
    # An entry on a path that never reaches the cell's output reads nothing.
    assert Genotype.load("DARTS_V2").dead_cells() == ()


@pytest.mark.parametrize("seed", range(3))
def test_dead_cells_are_those_without_a_gradient(seed: int) -> None:
    from ddarts_ext.nn.network import build_network

    random = torch.Generator().manual_seed(seed)

    def cell() -> tuple[Gene, ...]:
        source = int(torch.randint(0, 2, (), generator=random))
        return (Gene("sep_conv_3x3", 2, source), Gene("skip_connect", 3, 2))

    genotype = Genotype(tuple(cell() for _ in range(6)))
    network = build_network(genotype, channels=4, classes=2, in_channels=1)
    torch.autograd.backward(network(torch.randn(2, 1, 16, 16)).square().sum())
    silent = tuple(index for index, part in enumerate(network.cells) if all(p.grad is None for p in part.parameters()))
    assert silent == genotype.dead_cells()


def test_a_rule_that_leaves_a_dead_cell_is_passed_over() -> None:
    weights = torch.full((4, 14, 7), 0.1)
    weights[:, DARTS.edge_index(4, 1), 3] = 0.95
    weights[2:, DARTS.edge_index(4, 1), 3] = 0.1
    weights[2:, DARTS.edge_index(4, 0), 3] = 0.95
    reading = read(weights, DARTS, Discretisation(rules=("sparse", "edge")), range(4), None)
    assert reading.all["sparse"].dead_cells() == (2,)
    assert reading.rule == "darts"
    assert reading.genotype.dead_cells() == ()
    assert "cells that no later one reads: 2" in reading.note
    assert "leads by" in reading.note


@pytest.mark.parametrize("method", ["darts", "fairdarts", "ddarts"])
def test_the_history_tells(method: str, tmp_path: Any) -> None:
    result = Searcher(noise(), method, **SMALL, out=tmp_path / "run").search()
    record = result.history[-1]
    assert set(record["decisions"]) == {"dominant", "decided", "entropy", "spread", "skips"}
    assert ("ablation_ratio" in record) == (method == "ddarts")
    gap = record["discretisation"]
    assert gap["rule"] == result.rule
    assert gap["before"] == record["valid"]["accuracy"]
    assert 0 <= gap["after"] <= 1
    again = Searcher(noise(), method, **SMALL, out=tmp_path / "run", resume=True).search()
    assert again.history == result.history


def test_the_gap_is_that_of_the_genotype_alone() -> None:
    """A supernet whose weights are those of one architecture loses nothing."""
    searcher = Searcher(noise(), "ddarts", **SMALL, alpha_lr=0.0)
    result = searcher.search()
    state = searcher._initial()
    state.history = [{"valid": {"accuracy": 0.0}}]
    with torch.no_grad():
        state.architecture.table.copy_(one_hot(result.genotype.cells, state.space) * 200 - 100)
    searcher.strategy.gap(state, result)
    record = state.history[-1]["discretisation"]
    stepper_record: dict[str, Any] = {}
    from ddarts_ext.runs.device import autocast
    from ddarts_ext.runs.sums import Sums
    from ddarts_ext.search.iterations import Iterations
    from ddarts_ext.search.step import Stepper

    sums = Sums()
    stepper = Stepper(state, searcher.config.method, autocast(searcher.device, "float32"))
    searcher.strategy.judge(Iterations(stepper, searcher.dataset, searcher.config), sums)
    stepper_record = sums.means()
    assert record["after"] == stepper_record["valid_accuracy"]
    assert record["loss_after"] == pytest.approx(stepper_record["valid_loss"], rel=1e-5)


def test_the_zero_one_loss_joins_in_late() -> None:
    """With ``zero_one_start`` 1/2 it counts in the second half of the epochs in which alphas move."""
    settings = {**SMALL, "epochs": 5, "alpha_start": 1, "zero_one_start": 0.5}
    history = Searcher(noise(), "ddarts", **settings).search().history
    assert ["zero_one" in record for record in history] == [False, False, False, True, True]

"""Stages of growing depth: what the published code does at their ends, op dropout, the limit of skip connections."""

from __future__ import annotations

from math import exp
from pathlib import Path
from typing import Any

import pytest
import torch
from runs.small import noise, search

from ddarts_ext import plot, spaces
from ddarts_ext.nn.forward_pass import Pass, SkipDropout
from ddarts_ext.nn.graph import SearchGraph
from ddarts_ext.nn.primitives import DroppedIdentity
from ddarts_ext.search import methods
from ddarts_ext.search.methods import Discretisation
from ddarts_ext.search.parts.stages import largest
from ddarts_ext.search.result import read
from ddarts_ext.search.searcher import Searcher
from ddarts_ext.search.settings import resolve

PD: dict[str, Any] = {"method": "pdarts", "epochs": 6, "steps": 2}


def test_published_settings_and_schedules() -> None:
    method = methods.get("pdarts")
    stages, start = method.stages, method.architect.alpha_start
    assert [method.cells + more for more in stages.stage_cells] == [5, 11, 17]
    assert (stages.stage_ops, len(spaces.get(method.space).ops)) == ((5, 3), 8)
    assert (method.batch, method.epochs, start, method.architect.alpha_lr) == (96, 75, 10, 6e-4)
    assert (method.weights.weight_lr, method.weights.weight_lr_min, method.discretisation.max_skips) == (0.025, 0, 2)
    assert [stages.place(epoch, 75) for epoch in (0, 24, 25, 74)] == [(0, 0, 25), (0, 24, 25), (1, 0, 25), (2, 24, 25)]
    # The published loop, epoch by epoch.
    for stage, rate in enumerate((0.1, 0.4, 0.7)):
        for epoch in range(25):
            expected = rate * (25 - epoch - 1) / 25 if epoch < 10 else rate * exp(-(epoch - 10) * 0.2)
            assert stages.dropout(stage, epoch, 25, start) == pytest.approx(expected)
    assert methods.get("darts").stages.place(7, 50) == (0, 7, 50)
    # Lengths that do not divide: all epochs are in some stage.
    assert [stages.place(epoch, 7)[0] for epoch in range(7)] == [0, 0, 1, 1, 2, 2, 2]


def test_edges_keep_the_ops_of_largest_weight() -> None:
    weights = torch.rand(2, 5, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    mask = torch.ones(2, 5, 8, dtype=torch.bool)
    for count in (5, 3):
        after = largest(weights, mask, count)
        for row in range(2):
            for edge in range(5):
                left = [op for op in range(8) if mask[row, edge, op]]
                dropped = sorted(left, key=lambda op: float(weights[row, edge, op]))[: len(left) - count]
                assert after[row, edge].nonzero().flatten().tolist() == sorted(set(left) - set(dropped))
        mask = after


def test_dropout_of_skips_is_that_of_their_elements() -> None:
    x = torch.randn(64, 4, 8, 8).contiguous(memory_format=torch.channels_last)
    how = SkipDropout(torch.tensor(0.4), torch.Generator().manual_seed(1))
    one, other = DroppedIdentity.run([DroppedIdentity(), DroppedIdentity()], x, Pass(skip_dropout=how))
    for out in (one, other):
        kept = out != 0
        assert float(kept.float().mean()) == pytest.approx(0.6, abs=0.02)
        torch.testing.assert_close(out[kept], x[kept] / 0.6)
        assert out.is_contiguous(memory_format=torch.channels_last)
    assert not torch.equal(one, other)
    (same,) = DroppedIdentity.run([DroppedIdentity()], x, Pass())
    assert same is x


def test_a_cell_without_dropout_is_the_plain_one_and_with_it_scales_skips() -> None:
    space = spaces.get("darts")
    drawn = torch.Generator().manual_seed(0)
    inputs = [torch.randn(4, 4, 6, 6, generator=drawn) for _ in range(2)]
    weights = torch.rand(len(space.edges), len(space.ops), generator=drawn)
    torch.manual_seed(0)
    plain = SearchGraph(space, 4)
    torch.manual_seed(0)
    dropped = SearchGraph(space, 4, drop_skips=True)
    expected = plain.states(inputs, weights, Pass(statistics="batch"))[-1]
    generator = torch.Generator().manual_seed(0)
    for how in (None, SkipDropout(torch.tensor(0.0), generator)):
        found = dropped.states(inputs, weights, Pass(statistics="batch", skip_dropout=how))[-1]
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    # Skip connections alone, into the first node: half of the elements of each, twice as large.
    skips = torch.zeros_like(weights)
    skips[0, space.op_index("skip_connect")] = 1.0
    found = dropped.states(inputs, skips, Pass(statistics="batch", skip_dropout=SkipDropout(torch.tensor(0.5), None)))[
        2
    ]
    kept = found != 0
    torch.testing.assert_close(found[kept], 2 * inputs[0][kept])
    assert 0.3 < float(kept.float().mean()) < 0.7


def test_stages_grow_and_lose_ops() -> None:
    records = search(**PD).search().history
    assert [record["stage"] for record in records] == [0, 0, 1, 1, 2, 2]
    assert [len(record["owner"]) for record in records] == [3, 3, 4, 4, 5, 5]
    left = [torch.tensor(record["left"]).sum(-1).unique().tolist() for record in records]
    assert left == [[8], [8], [5], [5], [3], [3]]
    for before, after in ((records[1], records[2]), (records[3], records[4])):
        # What stays are the ops of the largest alphas at the end of the stage.
        first = [before["owner"].index(row) for row in range(2)]
        weights = torch.tensor(before["alphas"])[first].masked_fill(torch.tensor(before["left"]) == 0, -torch.inf)
        count = int(torch.tensor(after["left"])[0, 0].sum())
        expected = torch.zeros_like(weights).scatter(-1, weights.topk(count, -1).indices, 1)
        assert torch.equal(torch.tensor(after["left"]).float(), expected)
    # Rates, dropout and alphas begin anew.
    assert [record["weight_lr"] for record in records] == pytest.approx([0.025, 0.0125] * 3)
    assert [record["skip_dropout"] for record in records] == pytest.approx(
        [rate * f for rate in (0.1, 0.4, 0.7) for f in (1, exp(-0.2))]
    )


def test_the_result_has_the_depth_of_the_last_stage_and_ops_that_are_left(tmp_path: Path) -> None:
    run = search(out=tmp_path, **PD)
    result = run.search()
    assert (result.genotype.layers, len(result.alphas)) == (5, 5)
    space, left = run.config.space(), result.history[-1]["left"]
    for row, gene in enumerate(result.genotype.genes):
        for entry in gene:
            assert left[row][space.edge_index(entry.target, entry.source)][space.op_index(entry.op)]
    assert {"before", "after"} < set(result.history[-1]["discretisation"])
    plot.plot_run(tmp_path)


def published_restriction(weights: torch.Tensor, space: spaces.Space, most: int) -> set[tuple[str, int]]:
    """P-DARTS: set the smallest probability of the skip connections that there are to 0, and choose again."""
    skip, none = space.op_index("skip_connect"), space.op_index("none")
    probabilities = weights.clone()
    probabilities[:, none] = 0

    def chosen() -> list[tuple[int, int]]:
        found = []
        for node in space.nodes:
            edges = sorted(space.incoming(node), key=lambda e: -float(probabilities[e].max()))[:2]
            found += [(edge, int(probabilities[edge].argmax())) for edge in edges]
        return found

    while sum(op == skip for _, op in chosen()) > most:
        edge = min((e for e, op in chosen() if op == skip), key=lambda e: float(probabilities[e, skip]))
        probabilities[edge, skip] = 0
    return {(space.ops[op], edge) for edge, op in chosen()}


@pytest.mark.parametrize("most", [0, 2, 8])
def test_skips_are_limited_as_published(most: int) -> None:
    space = spaces.get("darts_none")
    skip = space.op_index("skip_connect")
    for seed in range(20):
        weights = torch.rand(2, 14, 8, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        weights[..., skip] += 0.5
        genotype = read(weights, space, Discretisation(max_skips=most), (0, 1, 1), (1, 2)).genotype
        normal, reduction = genotype.genes
        found = {(entry.op, space.edge_index(entry.target, entry.source)) for entry in normal}
        assert found == published_restriction(weights[0], space, most)
        # Reduction cells keep theirs.
        free = {(entry.op, space.edge_index(entry.target, entry.source)) for entry in reduction}
        assert free == published_restriction(weights[1], space, 99)


def test_few_images_have_small_stages() -> None:
    found = resolve(noise(), "pdarts", "cpu", {"epochs": 6}).method
    assert (found.cells, found.stages.stage_cells, found.architect.alpha_start) == (4, (0, 1, 2), 1)
    in_201 = {"epochs": 3, "space": "nasbench201", "stage_ops": [4, 2], "skip_dropout": [0.0, 0.0, 0.2]}
    found = resolve(noise(), "pdarts", "cpu", in_201).method
    assert (found.cells, found.stages.stage_cells) == (3, (0, 3, 6))


def test_nasbench201_in_stages_and_with_a_sampler() -> None:
    how: dict[str, Any] = {"channels": 2, "batch": 8, "epochs": 3, "device": "cpu", "stage_ops": [4, 2]}
    result = Searcher(noise(), "pdarts", space="nasbench201", sampler="gumbel_hard", **how).search()
    assert result.genotype.to_nb201().count("~") == 6
    assert [len(record["owner"]) for record in result.history] == [3, 6, 9]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"stage_ops": [5]},
            "method pdarts: stage_ops must be 2 falling numbers >= 1, one for each stage but the last",
        ),
        ({"stage_ops": [3, 5]}, "method pdarts: stage_ops must be 2 falling numbers"),
        ({"stage_ops": [9, 5]}, "search: stage_ops must be fewer than the 8 ops of space darts_none"),
        ({"stage_cells": [2, 1, 0]}, r"method pdarts: stage_cells must not fall, got \[2, 1, 0\]"),
        ({"skip_dropout": [0.1]}, "method pdarts: skip_dropout must be none or 3 rates from 0 to below 1"),
        ({"skip_dropout": [0.1, 0.2, 1]}, "method pdarts: skip_dropout must be none or 3 rates"),
        ({"order": 2}, "method pdarts: skip_dropout must be none with order=2"),
        ({"curvature_stop": True}, "stage_cells must be none with selection, op_stop"),
        ({"reductions": [1]}, r"search: reductions must be left out with stages, whose cells become more, got \(1,\)"),
        ({"track_distance": True}, "search: early_stop and track_distance must be left out with stages"),
        ({"epochs": 5, "alpha_start": 1}, "search: epochs of each of 3 stages must be more than the 1 before alphas"),
        ({"cells": 2}, "search: cells must be at least 3 with stages"),
        ({"method": "ddarts", "stage_cells": [0, 1], "stage_ops": [3]}, "stage_cells must be none with an ablation"),
        ({"method": "darts", "stage_ops": [3]}, "method darts: stage_ops must be none without stage_cells"),
        ({"method": "darts", "skip_dropout": [0.1, 0.2]}, "method darts: skip_dropout must be none or 1 rates"),
    ],
)
def test_what_does_not_go_together_is_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        search(**{**PD, **settings})


def test_lists_hold_numbers() -> None:
    with pytest.raises(TypeError, match="search: skip_dropout must be a list of numbers, got"):
        search(**{**PD, "skip_dropout": ["a", "b", "c"]})
    with pytest.raises(TypeError, match="search: stage_ops must be a list of whole numbers, got"):
        search(**{**PD, "stage_ops": [5.5, 3]})

"""DA2S end to end: what moves when, what the history and the result hold, and that a search goes on as it was."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from runs.shown import Shown
from runs.small import noise, outcome, search, timeless

from ddarts_ext.genotype import discretize
from ddarts_ext.genotype.configuration import Configuration
from ddarts_ext.search import methods
from ddarts_ext.search.searcher import Searcher

NB201: dict[str, Any] = {
    "cells": 3, "channels": 2, "batch": 4, "device": "cpu", "epochs": 4, "alpha_start": 1, "alpha_lr": 0.1,
}  # fmt: skip


def da2s(**settings: Any) -> Any:
    return search(method="da2s", **{"steps": 2, "alpha_start": 1, **settings})


def nasbench201(**settings: Any) -> Any:
    return Searcher(noise(), "da2s", space="nasbench201", **{**NB201, **settings})


def test_alphas_rest_while_edges_move() -> None:
    result = da2s(epochs=4, alpha_start=2).search()
    records = result.history
    assert [record["alpha_lr"] for record in records] == [0, 0, 0.02, 0.02]
    assert [record["edge_lr"] for record in records] == [0.02] * 4
    assert records[0]["alphas"] == records[1]["alphas"] != records[2]["alphas"]
    assert records[0]["betas"] != records[1]["betas"] != records[2]["betas"]
    # Node 2 keeps both of its edges, and they have no weights; those of node 3 mean 1.
    for cell in records[-1]["edge_weights"]:
        assert cell[:2] == [1, 1]
        assert sum(cell[2:]) == pytest.approx(3, rel=1e-5)
    # As in any epoch from 1: linear times the delayed logarithm, over 4 epochs of which 2 are waited for.
    assert [record["op_entropy_strength"] for record in records[:3]] == [0, 0, 0]
    assert records[3]["op_entropy_strength"] == pytest.approx(0.1)
    assert [record["edge_entropy_strength"] for record in records] == pytest.approx([0, 0.4 / 3, 0.8 / 3, 0.4])
    assert all(len(record["op_entropy"]) == len(record["edge_entropy"]) == 2 for record in records)
    assert {"before", "after", "rule"} < set(records[-1]["discretisation"])
    assert records[-1]["discretisation"]["rule"] == "configuration"


def test_the_result_is_of_the_configuration() -> None:
    method = methods.get("da2s")
    for settings in ({}, {"edges_per_node": [1, 3], "ops_per_edge": 2}, {"edges_per_cell": 3}):
        states: list[Any] = []
        run = da2s(**settings)
        begin = run._initial
        run._initial = lambda begin=begin, states=states: states.append(begin()) or states[0]
        result = run.search()
        architecture = states[0].architecture
        expected = discretize(
            architecture.relax(architecture.table),
            states[0].space,
            "configuration",
            seq=architecture.owner,
            configuration=Configuration(tuple(settings.get("edges_per_node", ())), settings.get("edges_per_cell", 0),
                                        settings.get("ops_per_edge", 1)),
            strengths=architecture.edge_table,
        )  # fmt: skip
        assert result.genotypes["configuration"].genes == expected.genes
        assert result.network(channels=2)(torch.zeros(2, 1, 4, 4)).shape == (2, 2)
    assert method.discretisation.rules == ("configuration",)


@pytest.mark.parametrize("kind", [da2s, nasbench201])
def test_a_search_that_was_ended_goes_on_as_it_was(kind: Any, tmp_path: Path) -> None:
    expected = kind().search()
    for steps in (2, 8):
        out = tmp_path / str(steps)
        with pytest.raises(KeyboardInterrupt):
            kind(out=out, progress=Shown(steps)).search()
        found = kind(out=out, resume=True).search()
        assert timeless(found.history) == timeless(expected.history)
        assert all(torch.equal(one, other) for one, other in zip(outcome(found), outcome(expected), strict=True))
        assert found.genotype == expected.genotype


def test_nasbench201_moves_alphas_by_some_of_the_training_batches() -> None:
    run = nasbench201()
    method = run.config.method
    assert (method.relaxation, method.edge_relaxation, method.batch) == ("softmax", None, 4)
    assert (method.architect.alpha_optimizer, method.architect.alpha_every) == ("sgd", 5)
    result = run.search()
    records = result.history
    # Three steps an epoch: steps 3 to 11 move alphas, in step 5 and step 10.
    assert records[0]["alphas"] != records[1]["alphas"] == records[2]["alphas"] != records[3]["alphas"]
    assert "architecture" not in records[0] and "architecture" not in records[2]  # noqa: PT018
    assert records[1]["op_entropy_strength"] == 0 < records[3]["op_entropy_strength"]
    assert result.genotype.layers == 1
    assert result.genotype.to_nb201().count("~") == 6
    assert result.network(channels=2)(torch.zeros(2, 1, 4, 4)).shape == (2, 2)


def test_the_smallest_searches_of_the_digits() -> None:
    """Data that comes along, with the settings that suit it but for the size of the network and its epochs."""
    for space, cells in (("darts", 3), ("nasbench201", 3)):
        result = Searcher(
            "digits", "da2s", space=space, epochs=2, cells=cells, channels=2, steps=None, batch=128
        ).search()
        first, last = (record["train"]["loss"] for record in (result.history[0], result.history[-1]))
        assert last < first
        assert result.note == ""


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"method": "darts", "edge_entropy_weight": 1.0}, "method darts: edge_entropy_weight must be 0"),
        ({"method": "ddarts", "op_entropy_weight": 1.0}, "method ddarts: op_entropy_weight must be 0 with sigmoid"),
        ({"method": "da2s", "zero_one_weight": 1.0}, "method da2s: zero_one_weight must be 0 with softmax"),
        ({"method": "da2s", "edges_per_cell": 1, "steps": 2}, r"search: edges_per_cell must be in 2\.\.5, got 1"),
        ({"method": "da2s", "op_entropy_growth": "fast"}, "search: op_entropy_growth must be one of const"),
        ({"method": "ddarts", "space": "nasbench201"}, "search: space must be another one for method ddarts"),
        ({"method": "da2s", "alpha_every": 0}, "search: alpha_every must be >= 1"),
    ],
)
def test_what_does_not_go_together_is_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        search(**settings)

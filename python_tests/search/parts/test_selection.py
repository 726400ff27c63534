"""Selection by perturbation: what stays is what the supernet misses most."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from runs.shown import Shown
from runs.small import noise, outcome, search, timeless

from ddarts_ext import spaces
from ddarts_ext.nn.forward_pass import Pass
from ddarts_ext.search import methods
from ddarts_ext.search.methods import Selection
from ddarts_ext.search.parts.selection import SelectionPart, most_missed
from ddarts_ext.search.searcher import Searcher

PT: dict[str, Any] = {"method": "darts-pt", "steps": 2, "selection_every": 1}


def test_published_settings() -> None:
    method, in_201 = methods.get("darts-pt"), methods.variant("darts-pt", "nasbench201")
    assert (method.space, method.epochs, in_201.epochs, in_201.cells) == ("darts", 50, 100, 15)
    assert (method.selection.selection_every, in_201.selection.selection_every) == (10, 5)
    assert method.selection.selection_lr == method.weights.weight_lr / 10
    # 14 edges, and 3 nodes that have more than two; with 10 epochs between two decisions.
    assert method.selection.decisions(spaces.get("darts")) == 17
    assert method.selection.tuning_epochs(spaces.get("darts")) == 160
    assert in_201.selection.tuning_epochs(spaces.get("nasbench201")) == 25
    assert Selection().tuning_epochs(spaces.get("darts")) == 0


def test_the_one_without_which_it_is_worst_stays() -> None:
    found = {0: (0.5, 1.0), 1: (0.3, 0.9), 2: (0.3, 1.2), 3: (0.7, 5.0)}
    assert most_missed(found, 2, "metric") == [2, 1]
    assert most_missed(found, 1, "loss") == [3]
    assert most_missed({4: (0.5, 1.0), 2: (0.5, 1.0)}, 1, "metric") == [4]


def test_decisions_are_those_of_the_naive_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every op of the edge is left out of the weights by hand, and all images are judged in one batch."""
    checked: list[str] = []
    real = SelectionPart._choose_op

    def watched(self: SelectionPart, state: Any, row: int, edge: int) -> dict[str, Any]:
        naive: dict[str, tuple[int, float]] = {}
        part, data = self.around.judging(), self.around.dataset
        images = data.normalise(data.train.images[part])  # type: ignore[attr-defined]
        labels = data.train.labels[part]
        table = state.architecture.table.detach()
        present = state.mask
        for op in range(len(state.space.ops)):
            if not present[row, edge, op]:
                continue
            rows = []
            for r in range(len(table)):
                weights = torch.zeros_like(table[r])
                for e in range(len(table[r])):
                    left = present[r, e].nonzero().flatten()
                    weights[e, left] = table[r, e, left].softmax(-1)
                if r == row:
                    weights[edge, op] = 0.0
                rows.append(weights)
            with torch.no_grad():
                logits = state.net(
                    images, torch.stack([rows[owner] for owner in state.architecture.owner]), Pass(statistics="batch")
                )
            loss = float(torch.nn.functional.cross_entropy(logits, labels))
            naive[state.space.ops[op]] = (int((logits.argmax(1) == labels).sum()), -loss)
        expected = min(naive, key=naive.__getitem__)
        decision = real(self, state, row, edge)
        assert decision["without"] == pytest.approx({op: hits / len(labels) for op, (hits, _) in naive.items()})
        assert decision["op"] == expected
        checked.append(expected)
        return decision

    monkeypatch.setattr(SelectionPart, "_choose_op", watched)
    # One batch of all judging images: the norms of the supernet use the statistics of each.
    search(**{**PT, "batch": 16}).search()
    assert len(checked) == 2 * 5


def test_every_edge_keeps_one_op_and_every_node_two_edges() -> None:
    run = search(**PT)
    result = run.search()
    assert len(result.history) == 3 + 5 == run.config.epochs
    assert ["selection" in record for record in result.history] == [False] * 2 + [True] * 6
    taken = [decision for record in result.history if "selection" in record for decision in record["selection"]]
    assert len(taken) == 2 * 6
    space = run.config.space()
    for row, cell in enumerate(result.genotype.genes):
        mine = [decision for decision in taken if decision["row"] == row]
        ops = {decision["edge"]: decision["op"] for decision in mine if "op" in decision}
        kept = {0, 1} | {edge for decision in mine if "edges" in decision for edge in decision["edges"]}
        assert sorted(ops) == list(range(5))
        assert len(kept) == 4
        read = {(space.edge_index(gene.target, gene.source), gene.op) for gene in cell}
        assert read == {(edge, ops[edge]) for edge in kept}
    # The supernet is the discrete network in the end.
    gap = result.history[-1]["discretisation"]
    assert gap["after"] == pytest.approx(gap["before"], abs=0.3)
    assert result.note == ""


def test_the_network_shrinks_and_weights_are_tuned_at_their_rate() -> None:
    states: list[Any] = []
    run = search(**PT)
    begin = run._initial

    def remembered() -> Any:
        states.append(begin())
        return states[0]

    run._initial = remembered
    before = sum(p.numel() for p in remembered().net.parameters())
    states.clear()
    records = run.search().history
    state = states[0]
    assert sum(p.numel() for p in state.net.parameters()) < before
    assert state.mask.sum() == 2 * 4
    assert sum(len(group["params"]) for group in state.weight_optimizer.param_groups) == len(
        list(state.net.parameters())
    )
    rates = [record["weight_lr"] for record in records]
    assert rates[3] == 0.0025
    assert rates[3] > rates[4] > rates[-1] > 0.001


def test_without_epochs_between_all_is_decided_at_once() -> None:
    records = search(**{**PT, "selection_every": 0}).search().history
    assert len(records) == 3
    assert len(records[-1]["selection"]) == 2 * 6


@pytest.mark.parametrize(
    "settings",
    [
        {"method": "gdas"},
        {"method": "drnas"},
        {"method": "sdarts-rs"},
        {"method": "fairdarts"},
        {"method": "ddarts"},
        {"method": "pcdarts", "partial_channels": 2, "channels": 4},
    ],
)
def test_any_supernet_can_be_selected_from(settings: dict[str, Any]) -> None:
    result = search(**{"selection": "perturbation", "selection_every": 0, "steps": 2, **settings}).search()
    assert len(result.history) == 3
    read = {(gene.target, gene.source): gene.op for gene in result.genotype.cells[0]}
    taken = {d["edge"]: d["op"] for d in result.history[-1]["selection"] if "op" in d and d["row"] == 0}
    space = spaces.get("darts", steps=2)
    assert len(read) == 4
    assert all(taken[space.edge_index(*where)] == op for where, op in read.items())


def test_nasbench201_decides_edges_alone() -> None:
    how: dict[str, Any] = {"cells": 3, "channels": 2, "batch": 4, "epochs": 1, "device": "cpu", "selection_every": 0}
    result = Searcher(noise(), "darts-pt", space="nasbench201", **how).search()
    taken = {decision["edge"]: decision["op"] for decision in result.history[-1]["selection"]}
    assert len(taken) == 6
    space = spaces.get("nasbench201")
    assert {space.edge_index(g.target, g.source): g.op for g in result.genotype.cells[0]} == taken


def test_a_kill_between_two_decisions_changes_nothing(tmp_path: Path) -> None:
    expected = search(**PT).search()
    for steps in (13, 19):
        out = tmp_path / str(steps)
        with pytest.raises(KeyboardInterrupt):
            search(out=out, progress=Shown(steps), **PT).search()
        found = search(out=out, resume=True, **PT).search()
        assert timeless(found.history) == timeless(expected.history)
        assert all(torch.equal(one, other) for one, other in zip(outcome(found), outcome(expected), strict=True))
        assert found.genotype == expected.genotype


def test_methods_that_shrink_are_not_selected_from() -> None:
    with pytest.raises(ValueError, match="method isdarts: selection must be none, as the method shrinks"):
        methods.get("isdarts").with_settings(selection="perturbation")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"method": "da2s", "selection": "perturbation"}, "method da2s: selection must be none with clamped_softmax"),
        ({"method": "darts-es", "selection": "perturbation"}, "method darts-es: curvature_stop must be false with sel"),
        ({"method": "darts-pt", "early_stop": True}, "search: early_stop must be false with selection=perturbation"),
        ({"method": "darts-pt", "space": "isdarts"}, "search: selection must be none in space isdarts"),
        ({"method": "darts-pt", "rules": ["configuration"]}, "search: rules must not be configuration with selection"),
        ({"method": "darts", "selection": "alphas"}, "search: selection must be one of none, perturbation"),
    ],
)
def test_what_does_not_go_together_is_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        search(**settings)

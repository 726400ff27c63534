"""Ops that stop training by themselves: cosines, when they stop, and that they stay as they are."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from runs.small import search
from search.test_family import stepper

from ddarts_ext.nn.forward_pass import Pass
from ddarts_ext.runs.sums import Sums
from ddarts_ext.search import methods
from ddarts_ext.search.op_stop import OpStop
from ddarts_ext.search.step import Stepper


def test_published_settings() -> None:
    how = methods.get("oles").stopping
    assert (how.op_stop, how.op_stop_similarity, how.op_stop_window) == (True, 0.4, 20)
    assert methods.get("oles").architect == methods.get("darts").architect
    # Gradients of few images are noisier.
    assert search(method="oles").config.method.stopping.op_stop_similarity == 0.1


def gradients(one: Stepper, batch: Any) -> list[torch.Tensor]:
    """Of the ops' weights, by a pass of its own."""
    state = one.state
    stops = state.op_stop
    assert stops is not None
    logits = state.net(batch[0], state.architecture.weights().detach(), Pass(statistics="batch"))
    return list(torch.autograd.grad(F.cross_entropy(logits, batch[1]), stops.parameters))


def test_cosines_are_those_of_two_passes() -> None:
    one, valid = stepper("oles", op_stop_window=20)
    train = (torch.randn(4, 1, 4, 4, generator=torch.Generator().manual_seed(3)), valid[1])
    stops = one.state.op_stop
    assert stops is not None
    on_valid = gradients(one, valid)
    one.architecture(0, train, valid, Sums())
    # The weights are those of before; the alphas have moved in between, and the training loss is at the new ones.
    on_train = gradients(one, train)
    one.weights(train, Sums())
    place = 0
    for (cell, edge, name), found in zip(stops.names, stops.total, strict=True):
        count = len(list(one.state.net.cells[cell].edges[edge][name].parameters()))  # type: ignore[index,union-attr]
        ours = torch.cat([g.flatten() for g in on_train[place : place + count]])
        theirs = torch.cat([g.flatten() for g in on_valid[place : place + count]])
        torch.testing.assert_close(found, F.cosine_similarity(ours, theirs, 0), rtol=1e-3, atol=1e-4)
        place += count
    assert place == len(stops.parameters)
    assert float(stops.steps) == 1


def cells() -> tuple[OpStop, list[torch.nn.Parameter]]:
    one, _ = stepper("oles")
    found = OpStop(list(one.state.net.cells), 0.4, 2)
    return found, found.parameters


def test_an_op_stops_when_the_mean_of_a_window_is_below() -> None:
    stops, parameters = cells()
    drawn = [torch.randn_like(p) for p in parameters]
    for p, g in zip(parameters, drawn, strict=True):
        p.grad = g
    first = stops.names[0]
    # The first op's gradients disagree, those of all others are the same.
    count = 4  # a depthwise and a pointwise convolution, twice
    assert first[2].startswith("sep_conv")
    valid = [-g if i < count else g for i, g in enumerate(drawn)]
    stops.training()
    assert float(stops.steps) == 0, "without a step of the alphas nothing is compared"
    for step in range(4):
        stops.validation(valid)
        stops.training()
        expected = [first] if step >= 1 else []
        assert [name for name, still in zip(stops.names, stops.stopped.tolist(), strict=True) if still] == expected
    assert float(stops.steps) == 0
    before = stops.before()
    with torch.no_grad():
        for p in parameters:
            p.add_(1.0)
    stops.put_back(before)
    stayed = int(stops._sizes[0])
    assert torch.equal(stops.before()[:stayed], before[:stayed])
    assert torch.equal(stops.before()[stayed:], before[stayed:] + 1)


def test_a_similarity_of_nothing_is_darts_and_of_more_than_one_stops_all() -> None:
    plain = search(method="darts").search()
    never = search(method="oles", op_stop_similarity=0.0, op_stop_window=100).search()
    for ours, theirs in zip(never.history, plain.history, strict=True):
        assert ours["train"] == theirs["train"]
        assert ours["alphas"] == theirs["alphas"]
    records = search(method="oles", op_stop_similarity=1.1, op_stop_window=3).search().history
    # Three steps an epoch: all have stopped at the end of the first.
    assert records[0]["op_stop"]["stopped"] == records[0]["op_stop"]["ops"] > 0
    assert set(records[0]["op_stop"]["of"]) >= {"sep_conv_3x3", "dil_conv_5x5"}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"method": "oles", "order": 2}, "method oles: op_stop must be false with order=2, an ablation loss"),
        ({"method": "ddarts", "op_stop": True}, "method ddarts: op_stop must be false with order=2, an ablation"),
        ({"method": "single-level", "op_stop": True}, "op_stop must be false with alpha_images=training"),
        ({"method": "darts-pt", "op_stop": True}, "op_stop must be false with selection=perturbation"),
        ({"method": "oles", "op_stop_window": 0}, "search: op_stop_window must be >= 1"),
    ],
)
def test_what_does_not_go_together_is_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        search(**settings)

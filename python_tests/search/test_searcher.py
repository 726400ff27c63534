"""A search end to end on a small supernet: every method, what the history holds, and what a step must not do."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

import numpy as np
import pytest
import torch

from ddarts_ext import spaces
from ddarts_ext.data import Augmentation, Dataset, MemorySplit
from ddarts_ext.runs.device import autocast
from ddarts_ext.runs.sums import Sums
from ddarts_ext.search import methods
from ddarts_ext.search.methods import Discretisation
from ddarts_ext.search.parts.part import Part
from ddarts_ext.search.result import read
from ddarts_ext.search.searcher import Searcher
from ddarts_ext.search.start import initial_state
from ddarts_ext.search.step import Stepper

SMALL: dict[str, Any] = {"cells": 3, "channels": 2, "steps": 1, "batch": 4, "epochs": 1, "device": "cpu"}


def noise(train: int = 16) -> Dataset:
    generator = torch.Generator().manual_seed(0)

    def split(count: int) -> MemorySplit:
        images = torch.randint(0, 256, (count, 1, 4, 4), generator=generator, dtype=torch.uint8)
        return MemorySplit(images, torch.arange(count) % 2)

    classes = ("even", "odd")
    return Dataset("noise", split(train), split(4), classes, (4, 4), 1, (0.5,), (0.25,), Augmentation(crop_padding=1))


@pytest.mark.parametrize(
    ("method", "settings"),
    [
        ("darts", {}),
        ("darts", {"order": 2}),
        ("fairdarts", {"zero_one_form": "l1"}),
        ("ddarts", {}),
        ("ddarts", {"ablation_gradient": "none", "ablation_inactive": "half", "ablation_every": 3}),
        ("ddarts", {"ablation_gradient": "stopgrad_mean", "ablation_inactive": "zero", "ablation_sign": "code"}),
    ],
)
def test_every_method_gives_a_network(method: str, settings: dict[str, Any]) -> None:
    result = Searcher(noise(), method, **SMALL, **settings).search()
    assert result.genotype.layers == 3
    assert result.alphas.shape == (3, 2, 8 if method == "darts" else 7)
    assert result.alphas.isfinite().all()
    logits = result.network(channels=2)(torch.zeros(2, 1, 4, 4))
    assert logits.shape == (2, 2)
    (record,) = result.history
    assert {"loss", "accuracy"} == set(record["train"]) == set(record["valid"])
    assert ("contributions" in record) == (method == "ddarts")
    if method == "ddarts":
        assert sum(record["ablation"]) == pytest.approx(0, abs=1e-3)
        assert len(record["contributions"]) == 3


def test_bfloat16_and_the_same_seed() -> None:
    first, second = (Searcher(noise(), "darts", precision="bf16", **SMALL).search() for _ in range(2))
    assert torch.equal(first.alphas, second.alphas)
    other = Searcher(noise(), "darts", precision="bf16", seed=1, **SMALL).search()
    assert not torch.equal(first.alphas, other.alphas)


def stepper(method: str, **settings: Any) -> tuple[Stepper, tuple[torch.Tensor, torch.Tensor]]:
    searcher = Searcher(noise(), method, **SMALL, **settings)
    state = initial_state(searcher.config, searcher.dataset, torch.device("cpu"))
    batch = (torch.randn(4, 1, 4, 4, generator=torch.Generator().manual_seed(2)), torch.tensor([0, 1, 0, 1]))
    return Stepper(state, searcher.config.method, autocast(torch.device("cpu"), "float32")), batch


@pytest.mark.parametrize(("method", "order"), [("ddarts", 1), ("darts", 2)])
def test_nothing_leaks_from_the_architecture_step(method: str, order: int) -> None:
    """The weights, and their gradients, are what they were; and the weight step leaves the alphas alone."""
    one, batch = stepper(method, order=order)
    before = {name: p.detach().clone() for name, p in one.state.net.named_parameters()}
    alphas = one.state.architecture.table.detach().clone()
    one.architecture(0, batch, batch, Sums())
    assert all(torch.equal(p, before[name]) for name, p in one.state.net.named_parameters())
    assert all(p.grad is None for p in one.state.net.parameters())
    moved = one.state.architecture.table.detach().clone()
    assert not torch.equal(moved, alphas)
    one.weights(batch, Sums())
    assert torch.equal(one.state.architecture.table, moved)
    assert one.state.architecture.table.grad is None


def test_each_row_moves_by_its_own_loss() -> None:
    """L_i = CE + w01 L01_i + wAB LAB_i: without the ablation loss the gradient is that of the cross-entropy plus a
    row's zero-one loss (the mean over its own entries), from one backward."""
    one, batch = stepper("ddarts", ablation_weight=0.0, zero_one_weight=7.0, alpha_weight_decay=0.0)
    state = one.state
    with torch.no_grad():
        state.architecture.table.uniform_(-1, 1)
    table = state.architecture.table.detach().clone().requires_grad_(True)
    loss = torch.nn.functional.cross_entropy(state.net(batch[0], torch.sigmoid(table)), batch[1])
    zero_one = [-((torch.sigmoid(row) - 0.5) ** 2).mean() for row in table]
    expected = torch.stack(
        [torch.autograd.grad(loss + 7.0 * part, table, retain_graph=True)[0][i] for i, part in enumerate(zero_one)]
    )
    seen: list[torch.Tensor] = []
    state.alpha_optimizer.register_step_pre_hook(lambda *_: seen.append(state.architecture.table.grad))  # type: ignore[arg-type,func-returns-value]
    one.architecture(0, batch, batch, Sums())
    torch.testing.assert_close(seen[0], expected, rtol=1e-4, atol=1e-6)


class _StopAtOnce(Part):
    def after_epoch(self, state: Any, epoch: int, record: dict[str, Any]) -> bool:
        record["seen"] = epoch
        return True


def test_a_part_adds_to_the_history_and_stops() -> None:
    result = Searcher(noise(), "darts", **{**SMALL, "epochs": 5}, parts=[_StopAtOnce()]).search()
    assert [record["seen"] for record in result.history] == [0]


def test_a_threshold_that_leaves_nothing_falls_back_with_a_reason() -> None:
    space = spaces.get("darts")
    weights = torch.full((3, 14, 7), 0.5)
    reading = read(weights, space, Discretisation(("sparse", "edge")), (0, 1, 2), None)
    assert reading.rule == "darts"
    assert "'sparse' (threshold 0.85) leaves 3 of 3 cells" in reading.note
    weights[:, :, 3] = 0.9
    reading = read(weights, space, Discretisation(("sparse", "edge")), (0, 1, 2), None)
    assert (reading.rule, reading.note) == ("sparse", "")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"batch": 0}, "batch must be >= 1"),
        ({"split": 1.0}, "split must be between 0 and 1"),
        ({"seed": -1}, "seed must be a whole number"),
        ({"reductions": (9,)}, r"reductions must be in 0\.\."),
        ({"order": 3}, "order must be 1 or 2"),
        ({"weight_lr": float("nan")}, "weight_lr must be a finite number"),
        ({"stem": "none"}, "stem must be one of"),
    ],
)
def test_wrong_settings_are_refused_before_anything_runs(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"search: {message}"):
        Searcher(noise(), **arguments)


def test_rules_are_one_or_more() -> None:
    with pytest.raises(ValueError, match="method darts: rules must be one or more, got none"):
        Searcher(noise(), "darts", rules=[])


def test_numbers_of_numpy_serve_as_pythons() -> None:
    of_numpy = {"epochs": np.int64(1), "cells": np.int32(3), "seed": np.int64(3), "alpha_lr": np.float32(0.25)}
    numbers = {"epochs": 1, "cells": 3, "seed": 3, "alpha_lr": 0.25}
    found = [
        Searcher(noise(), "darts", channels=4, batch=8, reductions=[np.int64(1)], **how).config
        for how in (of_numpy, numbers)
    ]
    assert found[0] == found[1]
    json.dumps(asdict(found[0]), allow_nan=False)


def test_a_part_is_an_object() -> None:
    with pytest.raises(TypeError, match="search: parts must be objects of classes of Part, got the class _StopAtOnce"):
        Searcher(noise(), "darts", **SMALL, parts=[_StopAtOnce])  # type: ignore[list-item]


def test_methods_are_data() -> None:
    ddarts = methods.get("ddarts")
    assert (ddarts.objectives.zero_one_weight, ddarts.objectives.ablation_weight) == (7.0, 0.5)
    changed = ddarts.with_settings(weight_lr=0.1, rules=["edge"])
    assert (changed.weights.weight_lr, changed.discretisation.rules) == (0.1, ("edge",))
    with pytest.raises(ValueError, match="name must be new"):
        methods.register(ddarts)
    with pytest.raises(ValueError, match="zero_one_weight must be 0 with softmax"):
        methods.get("darts").with_settings(zero_one_weight=1.0)

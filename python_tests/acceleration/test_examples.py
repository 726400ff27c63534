"""What an example is run on: a few of its images where they tell enough, all of them where they do not."""

from __future__ import annotations

import copy
import gc
from typing import Any

import pytest
import torch
from acceleration import conventions as user
from acceleration.equality import assert_same, run, spread
from torch import Tensor, nn

from ddarts_ext import accelerate
from ddarts_ext.acceleration import walk
from ddarts_ext.acceleration.calls import Call

C = user.C


class Edge(nn.Module):
    """Notes how many images it gets; it takes no fewer than ``least``, of sides that ``sides`` divides."""

    def __init__(self, least: int = 1, sides: int = 1) -> None:
        super().__init__()
        self._ops = nn.ModuleList([user.SepConv(C, 3, 1), user.DilConv(C, 5, 1)])
        self.alphas = nn.Parameter(torch.rand(2))
        self.least, self.sides = least, sides
        self.got: list[int] = []

    def forward(self, x: Tensor) -> Tensor:
        self.got.append(len(x))
        if len(x) < self.least or x.shape[2] % self.sides:
            raise ValueError("too few")
        return sum(w * op(x) for w, op in zip(self.alphas, self._ops, strict=True))  # type: ignore[return-value]


class Network(nn.Module):
    def __init__(self, edge: nn.Module, often: int = 1) -> None:
        super().__init__()
        self.edge, self.other, self.often = edge, Edge(), often

    def forward(self, x: Tensor) -> Tensor:
        x = self.edge(x)
        return x if len(x) < self.often else self.other(x)


def timed_on(model: nn.Module, monkeypatch: pytest.MonkeyPatch, gain: float) -> list[int]:
    """Of how many images the timing was told in :func:`accelerate` on 16."""
    batches: list[int] = []

    def measure(found: object, installed: object, method: str, given: Call) -> float:
        batches.append(len(given.args[0]))
        return gain

    monkeypatch.setattr(walk, "measure_gain", measure)
    accelerate(model, torch.randn(16, C, 32, 32))
    return batches


def test_a_clear_gain_is_seen_on_few_images(monkeypatch: pytest.MonkeyPatch) -> None:
    model = nn.Sequential(Edge())
    assert timed_on(model, monkeypatch, 3.0) == [2]
    assert max(model[0].got) == 2, "the model never ran on all of them"


def test_a_doubtful_one_is_timed_on_all(monkeypatch: pytest.MonkeyPatch) -> None:
    assert timed_on(nn.Sequential(Edge()), monkeypatch, 1.2) == [2, 16]


@pytest.mark.parametrize("model", [nn.Sequential(Edge(least=9)), Network(Edge(), often=9)])
def test_all_are_taken_where_few_are_not_enough(model: nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
    assert set(timed_on(model, monkeypatch, 3.0)) == {16}


def test_proved_on_the_first_cut_that_the_original_takes() -> None:
    before = spread(nn.Sequential(Edge(least=3, sides=32))).double()
    model = copy.deepcopy(before)
    x = torch.randn(4, C, 32, 32, dtype=torch.float64)
    assert [entry.path for entry in accelerate(model, x, least_gain=0).replaced] == ["0"]
    assert_same(run(model, "forward", [x]), run(before, "forward", [x]))
    refused = accelerate(nn.Sequential(Bad()).double(), x, least_gain=0)
    assert not refused.replaced
    assert "not finite" in str(refused)


class Bad(Edge):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) / 0.0


def test_the_collector_is_left_as_it_was() -> None:
    assert gc.get_freeze_count() == 0
    accelerate(user.MixedOp(), least_gain=0)
    assert gc.get_freeze_count() == 0
    gc.freeze()
    accelerate(user.MixedOp(), least_gain=0)
    frozen = gc.get_freeze_count()
    gc.unfreeze()
    assert frozen > 1000, "what the user froze stays frozen"


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ({"example_input": torch.randn(2, 7, 8, 8)}, "example_input must be what the model takes"),
        ({"example_input": "images"}, "example_input must be what the model takes"),
        ({"least_gain": float("nan")}, "least_gain must be a number >= 0, got nan"),
        ({"least_gain": -1}, "least_gain must be a number >= 0, got -1"),
    ],
)
def test_what_no_model_takes(how: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=f"accelerate: {said}"):
        accelerate(nn.Sequential(nn.Conv2d(3, 4, 3)), **how)

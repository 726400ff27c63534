"""What looks unusual is found, proved, and equal to the user's code; what only looks like a mixture is none."""

from __future__ import annotations

import copy
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from acceleration import conventions as user
from acceleration import further_conventions as further
from acceleration.equality import assert_same, features, run, spread, table
from torch import Tensor, nn

from ddarts_ext import accelerate, restore
from ddarts_ext.acceleration import walk
from ddarts_ext.acceleration.classes import is_routed

C = user.C
CELL = [(2 * C, 1), (3 * C, 1)]


def edge() -> list[Any]:
    return [*features((C, 1)), table(6)]


CASES: dict[str, tuple[Callable[[], nn.Module], Callable[[], list[Any]]]] = {
    "projections beside blocks": (further.ProjectedCell, lambda: [*features((C, 1)), table(3, 6)]),
    "and their weights": (further.ProjectedCell, lambda: [*features((C, 1)), table(3, 6), table(3)]),
    "padded reduction": (further.PaddedCell, lambda: [*features((2 * C, 2), (3 * C, 1)), table(5, 6)]),
    "a divisor": (further.CountedMixedOp, lambda: [*features((C, 1)), (table(6) > 0.4).double(), 3]),
    "lists of lists": (further.NestedCell, lambda: [*features(*CELL), [table(2, 6), table(3, 6)]]),
    "many methods": (further.ManyForwards, edge),
    "children": (further.Children, lambda: [*features((C, 1)), table(3)]),
    "by key": (further.LayerChoice, lambda: features((C, 1))),
    "by key, unknown ops": (lambda: further.LayerChoice([user.Scaled(C)]), lambda: features((C, 1))),
    "data of an edge": (further.MixedOp, lambda: [*features((C, 1)), SimpleNamespace(alpha=table(6))]),
    "a list of weights": (further.OperationChoices, lambda: [*features((C, 1)), list(table(6))]),
}


@pytest.mark.parametrize("name", CASES)
def test_equals_the_users_code(name: str) -> None:
    make, arguments = CASES[name]
    before = spread(make()).double()
    module = copy.deepcopy(before)
    report = accelerate(module, least_gain=0)
    assert [entry.path for entry in report.replaced] == [type(module).__name__], report
    given = arguments()
    for training in (True, False):
        for one in (before, module):
            one.train(training)
        for _ in range(2):
            assert_same(run(module, "forward", given), run(before, "forward", given))
    restore(module)
    assert not any(is_routed(inner) for inner in module.modules())


@pytest.mark.parametrize("sides", [(8, 6), (9, 7), (8, 7)])
def test_a_padded_reduction_of_any_side(sides: tuple[int, int]) -> None:
    class Edge(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self._ops = nn.ModuleList([further.PaddedReduce(C, C), further.PaddedReduce(C, C)])

        def forward(self, x: Tensor, weights: Tensor) -> Tensor:
            return weights[0] * self._ops[0](x) + weights[1] * self._ops[1](x)

    before = spread(Edge()).double()
    module = copy.deepcopy(before)
    assert not accelerate(module, strict=True, least_gain=0).raw
    given = [torch.randn(3, C, *sides, dtype=torch.float64), table(2)]
    assert_same(run(module, "forward", given), run(before, "forward", given))
    assert not accelerate(further.PaddedReduce(C, C)).left, "its two convolutions are no candidates"


@pytest.mark.parametrize("example", [False, True])
def test_networks_are_replaced_cell_by_cell(example: bool) -> None:
    before = spread(further.ProjectedNetwork()).double()
    module = copy.deepcopy(before)
    x = torch.randn(2, C, 8, 8, dtype=torch.float64)
    report = accelerate(module, x if example else None, strict=True, least_gain=0)
    assert [entry.path for entry in report.replaced] == ["cells.0", "cells.1"]
    for _ in range(2):
        assert_same(run(module, "forward", [x]), run(before, "forward", [x]))


@pytest.mark.parametrize("example", [None, {"images": torch.randn(2, 3, 16, 16), "mean": True}])
def test_modules_called_by_keyword(example: object) -> None:
    before = spread(further.NamedNetwork())
    module = copy.deepcopy(before)
    report = accelerate(module, example, strict=True, least_gain=0)
    assert [entry.path for entry in report.replaced] == ["edge"]
    before, module = before.double(), module.double()
    x = torch.randn(2, 3, 8, 8, dtype=torch.float64)
    for _ in range(2):
        assert_same(run(module, "forward", [x]), run(before, "forward", [x]))
    alone = further.NamedArguments()
    assert accelerate(alone, strict=True, least_gain=0).replaced, "a None by default may have to be given"


def test_only_methods_that_sum_ops_themselves_are_replaced() -> None:
    report = accelerate(further.ManyForwards(), least_gain=0)
    assert report.replaced[0].methods == ("forward", "forward_joint")
    assert not report.left, "nobody asked for the others"


def test_only_methods_that_the_example_reaches_are_proved() -> None:
    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.cell, self.spare = user.TableCell(), user.MixedOp()
            self.alphas = nn.Parameter(torch.rand(6, 5))

        def forward(self, x: Tensor) -> Tensor:
            return self.cell.forward_gdas(x, self.alphas, [0, 1, 2, 3, 4, 2])

    report = accelerate(Network(), torch.randn(2, C, 8, 8), least_gain=0)
    assert [(entry.path, entry.methods) for entry in report.replaced] == [("cell", ("forward_gdas",))]
    assert [str(entry) for entry in report.left] == ["spare: the example does not reach it"]


@pytest.mark.parametrize(("gain", "kept"), [(0.9, False), (1.04, False), (1.06, True), (3.0, True)])
def test_what_is_slower_is_not_kept(monkeypatch: pytest.MonkeyPatch, gain: float, kept: bool) -> None:
    monkeypatch.setattr(walk, "measure_gain", lambda *_: gain)
    model = nn.ModuleList([user.Cell(), user.Cell()])
    report = accelerate(model)
    assert len(report.replaced) == (2 if kept else 0)
    assert any(is_routed(module) for module in model.modules()) == kept
    if kept:
        assert report.gain == gain
    else:
        assert [entry.gain for entry in report.left] == [gain] * 2
        assert f"not worth it: {gain:.2f}x" in str(report)
        with pytest.raises(ValueError, match="not worth it"):
            accelerate(model, strict=True)


def test_a_second_call_takes_what_is_new() -> None:
    model = nn.ModuleList([user.Cell()])
    assert accelerate(model, least_gain=0).already == ()
    again = accelerate(model, least_gain=0, strict=True)
    assert not again.replaced
    assert again.already == ("0",)
    assert "already accelerated: 1 modules" in str(again)
    model.append(user.Cell())
    third = accelerate(model, least_gain=0)
    assert ([entry.path for entry in third.replaced], third.already) == (["1"], ("0",))
    restore(model)
    assert not any(is_routed(module) for module in model.modules())


class Moody(user.SepConv):
    """A separable convolution that does something else when it is wide: a size, not a setting, decides."""

    def forward(self, x: Tensor) -> Tensor:
        return self.op(x) * (1.5 if x.shape[1] > C else 1.0)


class MoodyMixedOp(nn.Module):
    def __init__(self, c: int) -> None:
        super().__init__()
        self._ops = nn.ModuleList([Moody(c, 3, 1), user.DilConv(c, 5, 1)])

    def forward(self, x: Tensor, weights: Tensor) -> Tensor:
        return weights[0] * self._ops[0](x) + weights[1] * self._ops[1](x)


def test_every_module_is_checked_though_one_of_its_kind_was_proved() -> None:
    before = nn.ModuleList([MoodyMixedOp(C), MoodyMixedOp(2 * C)]).double()
    model = copy.deepcopy(before)
    report = accelerate(model, least_gain=0)
    assert [entry.path for entry in report.replaced] == ["0", "1"]
    assert [entry.path for entry in report.raw] == ["1._ops.0 (Moody)"]
    for i, channels in enumerate((C, 2 * C)):
        given = [*features((channels, 1)), table(2)]
        assert_same(run(model[i], "forward", given), run(before[i], "forward", given))

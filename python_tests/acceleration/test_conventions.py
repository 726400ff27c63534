"""An accelerated model of every convention gives the outputs, gradients and statistics of the user's own code."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator

import pytest
import torch
from acceleration import conventions as user
from acceleration.equality import assert_same, features, run, spread, table
from torch import nn

from ddarts_ext import accelerate, restore
from ddarts_ext.acceleration import register_adapter, unregister_adapter

C = user.C

CELL = [(2 * C, 1), (3 * C, 1)]
Setup = tuple[Callable[[], nn.Module], str, Callable[[], list[object]]]
CASES: dict[str, Setup] = {
    "mixed op": (user.MixedOp, "forward", lambda: [*features((C, 1)), table(6)]),
    "mixed op, stride 2": (lambda: user.MixedOp(stride=2), "forward", lambda: [*features((C, 1)), table(6)]),
    "mixed op, affine": (lambda: user.MixedOp(affine=True), "forward", lambda: [*features((C, 1)), table(6)]),
    "unknown ops": (
        lambda: user.MixedOp(extra=[user.Louder(C, 3, 1), user.Scaled(C)]),
        "forward",
        lambda: [*features((C, 1)), table(8)],
    ),
    "active": (user.SwitchedMixedOp, "forward", lambda: [*features((C, 1)), table(6), True]),
    "inactive": (user.SwitchedMixedOp, "forward", lambda: [*features((C, 1)), table(6), False]),
    "partial": (user.PartialMixedOp, "forward", lambda: [*features((4 * C, 1)), table(6)]),
    "partial, stride 2": (lambda: user.PartialMixedOp(stride=2), "forward", lambda: [*features((4 * C, 1)), table(6)]),
    "cell": (user.Cell, "forward", lambda: [*features(*CELL), table(5, 6)]),
    "reduction": (lambda: user.Cell(reduction=True), "forward", lambda: [*features(*CELL), table(5, 6)]),
    "after reduction": (
        lambda: user.Cell(previous=True),
        "forward",
        lambda: [*features((2 * C, 2), (3 * C, 1)), table(5, 6)],
    ),
    "cell inactive": (user.SwitchedCell, "forward", lambda: [*features(*CELL), table(5, 6), False]),
    "partial cell": (user.PartialCell, "forward", lambda: [*features((8, 1), (12, 1)), table(5, 6), table(5)]),
    "table": (user.TableCell, "forward", lambda: [*features((C, 1)), table(6, 5)]),
    "table, masked": (user.TableCell, "forward_masked", lambda: [*features((C, 1)), table(6, 5), [0, 1, 2, 3, 4, 2]]),
    "table, hard": (user.TableCell, "forward_gdas", lambda: [*features((C, 1)), table(6, 5), [0, 1, 2, 3, 4, 2]]),
    "table, sampled": (user.TableCell, "forward_urs", lambda: features((C, 1))),
    "list": (user.ListMixture, "forward", lambda: [*features((C, 1)), {"alpha": table(6)}]),
    "choice": (user.ChoiceBlock, "forward", lambda: [*features((C, 1)), table(6)]),
}


class ListAdapter:
    """What a user of such a code base writes."""

    def primitives(self, module: nn.Module) -> list[nn.Module] | None:
        return module.primitives if isinstance(module, user.ListMixture) else None

    def probe(self, module: nn.Module) -> tuple[object, ...]:
        return torch.randn(4, C, 6, 6), {"alpha": torch.randn(6)}


@pytest.fixture(scope="module", autouse=True)
def _adapter() -> Iterator[None]:
    adapter = register_adapter(ListAdapter())
    yield
    unregister_adapter(adapter)


@pytest.mark.parametrize("name", CASES)
def test_equals_the_users_code(name: str) -> None:
    make, method, arguments = CASES[name]
    before = spread(make())
    module = copy.deepcopy(before)
    report = accelerate(module, least_gain=0)
    assert method in report.replaced[0].methods
    assert type(module) is not type(before)
    given = arguments()
    for training in (True, False):
        ours, theirs = (copy.deepcopy(m).double().train(training) for m in (module, before))
        for _ in range(2):  # the second pass runs together what the first saw read one tensor
            assert_same(run(ours, method, given), run(theirs, method, given))
        assert_same(
            run(ours, method, given, layout=torch.channels_last, second=False), run(theirs, method, given, second=False)
        )
    ours, theirs = copy.deepcopy(module), copy.deepcopy(before)
    assert_same(
        run(ours, method, given, torch.float32, second=False), run(theirs, method, given, torch.float32, second=False)
    )
    restore(module)
    assert type(module) is type(before)
    assert module.__dict__.keys() == before.__dict__.keys()
    assert_same(run(module.double(), method, given, second=False), run(before.double(), method, given, second=False))


def test_the_layout_of_the_caller_comes_back() -> None:
    module = user.Cell()
    accelerate(module, least_gain=0)
    s0, s1, weights = (x.float() for x in (*features(*CELL), table(5, 6)))
    assert module(s0, s1, weights).is_contiguous()
    kept = module(*(x.contiguous(memory_format=torch.channels_last) for x in (s0, s1)), weights)
    assert kept.is_contiguous(memory_format=torch.channels_last)


def test_a_whole_network() -> None:
    before = spread(user.Network()).double()
    module = copy.deepcopy(before)
    report = accelerate(module, torch.randn(2, 3, 8, 8, dtype=torch.float64), least_gain=0)
    assert [entry.path for entry in report.replaced] == ["cells.0", "cells.1", "cells.2"]
    x = torch.randn(2, 3, 8, 8, dtype=torch.float64)
    for _ in range(2):
        assert_same(run(module, "forward", [x]), run(before, "forward", [x]))

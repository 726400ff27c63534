"""What the graphs of an architecture step hold at once, against a plain step."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

import pytest
import torch
import torch.nn.functional as F
from runs.small import SEARCH, noise
from torch import Tensor

from ddarts_ext import Searcher, spaces
from ddarts_ext.nn.memory import StepMemory
from ddarts_ext.nn.supernet import Supernet
from ddarts_ext.runs.progress import Progress
from ddarts_ext.search import strategy as strategy_module
from ddarts_ext.search.contributions.budget import Budget, budget
from ddarts_ext.search.contributions.marginal import contributions, frozen
from ddarts_ext.search.methods import Method
from ddarts_ext.search.state import SearchState
from ddarts_ext.search.step import Stepper
from ddarts_ext.search.strategy import Strategy
from ddarts_ext.training import demand


class Held:
    """A tensor saved for a backward, counted as long as a graph holds it; tensors that share storage count once."""

    users: ClassVar[dict[int, int]] = {}
    bytes = 0
    peak = 0

    def __init__(self, tensor: Tensor) -> None:
        # Detached, lest an output that its own node saved keeps that node alive.
        self.tensor, self.key = tensor.detach(), tensor.untyped_storage().data_ptr()
        self.size = tensor.untyped_storage().nbytes()
        if Held.users.setdefault(self.key, 0) == 0:
            Held.bytes += self.size
            Held.peak = max(Held.peak, Held.bytes)
        Held.users[self.key] += 1

    def __del__(self) -> None:
        Held.users[self.key] -= 1
        if Held.users[self.key] == 0:
            Held.bytes -= self.size


def most_held(step: Callable[[], object]) -> int:
    """Bytes."""
    Held.users, Held.bytes, Held.peak = {}, 0, 0
    with torch.autograd.graph.saved_tensors_hooks(Held, lambda held: held.tensor):
        step()
    assert Held.bytes == 0
    return Held.peak


@pytest.fixture(scope="module")
def measured() -> Callable[..., float]:
    """The most that contributions hold, in units of a plain step."""
    torch.manual_seed(0)
    net = Supernet(spaces.get("darts"), cells=8, channels=4)
    table = torch.randn(8, len(net.space.edges), len(net.space.ops))
    x, y = torch.randn(2, 3, 16, 16), torch.arange(2)

    def plain() -> None:
        leaf = table.clone().requires_grad_(True)
        with frozen(net):
            torch.autograd.grad(F.cross_entropy(net(x, torch.sigmoid(leaf)), y), leaf)

    unit = most_held(plain)
    return lambda **options: most_held(lambda: contributions(net, table, torch.sigmoid, x, y, **options)) / unit


def test_values_alone_hold_no_more_than_a_plain_step(measured: Callable[..., float]) -> None:
    assert measured(gradient="none") <= 1.0


@pytest.mark.parametrize("memory", [0.0, 0.5, 1.0, 1.5])
def test_exact_gradients_keep_to_the_budget(measured: Callable[..., float], memory: float) -> None:
    """A single group that needs more than the budget runs all the same; the largest needs nearly a plain step."""
    assert measured(memory=memory) < 1.15 * max(memory, 0.85)


@pytest.mark.parametrize("memory", [1.0, math.inf])
def test_a_kept_graph_is_one_unit_more(measured: Callable[..., float], memory: float) -> None:
    without = measured(memory=memory)
    assert without < measured(memory=memory, keep=True) < without + 1.15


@pytest.mark.parametrize(
    ("said", "device", "units", "expected"),
    [
        (None, "cpu", 100, Budget()),
        (0.5, "cuda", 100, Budget(0.5)),
        (None, "cuda", 100, Budget(3.5, keep=True)),
        (None, "cuda", 4, Budget(1.8, keep=True)),
        (None, "cuda", 2, Budget(1.4)),
        (None, "cuda", 1, Budget(1.0)),
    ],
)
def test_a_gpu_gives_contributions_what_it_has(said: float | None, device: str, units: int, expected: Budget) -> None:
    """units: plain steps that fit into the free memory, of which seven tenths are used."""
    need = StepMemory(fixed=0, per_image=1000)
    found = budget(said, need, 64, 8, torch.device(device), units * 64_000)
    assert found.keep == expected.keep
    assert found.memory == pytest.approx(expected.memory)


def test_without_a_budget_all_groups_are_held_together(measured: Callable[..., float]) -> None:
    assert measured(memory=math.inf) > 2


@pytest.mark.parametrize(("available", "kept"), [(1 << 50, True), (600 << 20, False)])
def test_a_resumed_search_takes_the_memory_that_it_had(
    available: int, kept: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another budget gives other roundings: it is chosen again only where the first no longer fits."""
    lines, used, stepper = list[str](), list[Budget | None](), Strategy.stepper
    large = Budget(1e9, keep=True)

    def noted(self: Strategy, state: SearchState, method: Method) -> Stepper:
        used.append(state.budget)
        return stepper(self, state, method)

    monkeypatch.setattr(Strategy, "stepper", noted)
    monkeypatch.setattr(strategy_module, "budget", lambda *_: large)
    monkeypatch.setattr(demand, "available_bytes", lambda _: 1 << 50)
    sizes = SEARCH | {"epochs": 1}
    Searcher(noise(), "ddarts", out=tmp_path / "run", **sizes).search()
    monkeypatch.setattr(strategy_module, "budget", lambda *_: Budget(1.0))
    monkeypatch.setattr(demand, "available_bytes", lambda _: available)
    monkeypatch.setattr(Progress, "say", lambda self, line: lines.append(line))
    more = sizes | {"epochs": 2, "resume": True, "progress": Progress()}
    Searcher(noise(), "ddarts", out=tmp_path / "run", **more).search()
    assert used[0] == large
    assert used[-1] == (large if kept else Budget(1.0))
    assert any("other memory than before" in line for line in lines) is not kept

"""States summed edge by edge equal states summed node by node, as observers have them."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from ddarts_ext import spaces
from ddarts_ext.nn import NASBench201Supernet, NodeKey, Pass, Supernet, graph
from ddarts_ext.nn.outgoing import applies

DARTS = spaces.get("darts", steps=2)
PASSES = [Pass(), Pass(statistics="batch"), Pass(statistics="running"), Pass(groups=2)]


def results(net: Any, x: Tensor, weights: Tensor, p: Pass) -> list[Tensor]:
    """Logits, gradients and buffers of a copy of the network."""
    own = copy.deepcopy(net)
    leaves = [weights.detach().requires_grad_(), *own.parameters()]
    logits = own(x, leaves[0], p)
    gradients = torch.autograd.grad(logits.square().sum(), leaves, allow_unused=True)
    kept = [torch.zeros(()) if g is None else g for g in gradients]
    return [logits.detach(), *kept, *(buffer for buffer in own.buffers() if buffer.is_floating_point())]


def calls(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many ops every call of mixed_edges serves, from now on."""
    found: list[int] = []
    original = graph.Outgoing.run

    def run(self: graph.Outgoing, *args: Any) -> None:
        found.append(sum(len(slots) for slots in self.slots.values()))
        original(self, *args)

    monkeypatch.setattr(graph.Outgoing, "run", run)
    return found


def both_ways(net: Any, weights: Tensor, p: Pass, monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch.Generator().manual_seed(2)
    x = torch.randn(4, 3, 8, 8, dtype=torch.float64, generator=generator)
    served = calls(monkeypatch)
    by_edge = results(net, x, weights, p)
    assert served
    with monkeypatch.context() as patched:
        patched.setattr(graph, "applies", lambda x, p: False)
        before = len(served)
        by_node = results(net, x, weights, p)
        assert len(served) == before
    for a, b in zip(by_edge, by_node, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-9)


def supernet(space: spaces.Space, cells: int = 3) -> tuple[Supernet, Tensor]:
    torch.manual_seed(0)
    net = Supernet(space, cells=cells, channels=4, classes=5).double()
    net(torch.randn(4, 3, 8, 8, dtype=torch.float64), torch.rand(cells, len(space.edges), len(space.ops)).double())
    return net, torch.rand(cells, len(space.edges), len(space.ops), dtype=torch.float64)


@pytest.mark.parametrize("p", PASSES, ids=lambda p: f"{p.statistics}-{p.groups}")
@pytest.mark.parametrize("name", ["darts", "darts_none", "dartopti"])
def test_same_numbers_in_every_space_and_pass(name: str, p: Pass, monkeypatch: pytest.MonkeyPatch) -> None:
    both_ways(*supernet(spaces.get(name, steps=2)), p, monkeypatch)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_same_numbers_in_pruned_networks(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    net, weights = supernet(spaces.get("darts"))
    generator = torch.Generator().manual_seed(seed)
    for cell in net.cells:
        cell.prune(torch.rand(len(net.space.edges), len(net.space.ops), generator=generator) < 0.25)  # type: ignore[operator]
    both_ways(net, weights, Pass(), monkeypatch)


def test_one_call_serves_all_that_leaves_a_state(monkeypatch: pytest.MonkeyPatch) -> None:
    net, weights = supernet(DARTS)
    served = calls(monkeypatch)
    net(torch.randn(2, 3, 8, 8, dtype=torch.float64), weights)
    # Cells 0, 1 and 2; two inputs and a node leave to 2, 2 and 1 nodes. Cells 1 and 2 are reductions: at stride 2 an
    # identity is a factorised reduction, which has a call of its own.
    assert served == [14, 14, 7, 12, 12, 7, 12, 12, 7]


def test_where_states_are_summed_node_by_node() -> None:
    x = torch.zeros(2, 4, 4, 4)

    def watch(
        key: NodeKey, branches: Sequence[Tensor], mean: Tensor, rstd: Tensor, normalize: Sequence[bool]
    ) -> None: ...

    assert applies(x, Pass())
    assert applies(x.double(), Pass())
    assert applies(x.half(), Pass())
    assert applies(x.to("meta"), Pass())
    assert not applies(x, Pass(observe=watch))
    with torch.autocast("cpu", torch.bfloat16):
        assert not applies(x, Pass())
        assert applies(x.bfloat16(), Pass())
        assert not applies(x.double(), Pass())


def test_autocast_sums_edge_by_edge_as_well_as_node_by_node(monkeypatch: pytest.MonkeyPatch) -> None:
    """Partial sums are rounded to bfloat16 either way less than the branches: errors are of one size."""
    net, weights = supernet(DARTS)
    net, weights = net.float(), weights.float()
    x = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(2))
    exact = results(net, x, weights, Pass())[0]
    served = calls(monkeypatch)

    def error() -> float:
        with torch.autocast("cpu", torch.bfloat16):
            logits = results(net, x, weights, Pass())[0]
        assert logits.dtype == torch.bfloat16
        return float((logits.float() - exact).norm() / exact.norm())

    by_edge = error()
    assert len(served) == 9  # of all states that have ops with convolutions
    monkeypatch.setattr(graph, "applies", lambda x, p: False)
    by_node = error()
    assert len(served) == 9
    assert 0 < by_edge < 2 * by_node + 0.01
    assert by_node < 0.1


def test_spaces_without_convolutions_that_fit_have_no_such_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    """NAS-Bench-201 has dense ones; those of IS-DARTS's space have biases, which only there do nothing."""
    served = calls(monkeypatch)
    net = NASBench201Supernet(channels=4, cells_per_stage=1).double()
    net(torch.randn(2, 3, 8, 8, dtype=torch.float64), torch.rand(3, 6, 5, dtype=torch.float64))
    supernet(replace(spaces.get("isdarts"), track_statistics=True))
    assert not served
    supernet(spaces.get("isdarts"))
    assert served

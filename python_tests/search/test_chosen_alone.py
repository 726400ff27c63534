"""Ops that were not drawn are not computed where nothing needs them, and nothing is other than if they were."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from runs.small import search
from torch import Tensor

from ddarts_ext import spaces
from ddarts_ext.nn.forward_pass import Pass
from ddarts_ext.nn.graph import SearchGraph
from ddarts_ext.nn.norm import RunningStatistics
from ddarts_ext.nn.primitives import DepthwiseConv, Primitive
from ddarts_ext.search.samplers import mode

CASES = [("darts", False, 1), ("darts", True, 1), ("darts_none", True, 2), ("nasbench201", False, 1)]


def graph_of(name: str, reduction: bool, partial: int) -> tuple[SearchGraph, list[Tensor], Tensor]:
    torch.manual_seed(0)
    space = spaces.get(name)
    graph = SearchGraph(space, 4, reduction=reduction, partial=partial).double()
    shape = (3, 4, 6, 6)
    inputs = [torch.randn(shape, dtype=torch.float64).contiguous(memory_format=torch.channels_last) for _ in range(2)]
    weights = mode(torch.randn(len(space.edges), len(space.ops), dtype=torch.float64))
    # Two ops of an edge and none of another: not only what a sampler draws.
    weights[0, :2] = 0.5
    weights[1] = 0
    return graph, [x.requires_grad_(True) for x in inputs[: space.inputs]], weights


@pytest.mark.parametrize(("name", "reduction", "partial"), CASES)
@pytest.mark.parametrize("statistics", ["update", "batch", "running"])
def test_a_cell_is_the_same(name: str, reduction: bool, partial: int, statistics: Any) -> None:
    found: list[tuple[list[Tensor], dict[str, Tensor], list[Tensor]]] = []
    for alone in (False, True):
        graph, inputs, weights = graph_of(name, reduction, partial)
        with torch.no_grad():
            for module in graph.modules():
                if isinstance(module, RunningStatistics) and module.running_mean is not None:
                    module.running_mean.fill_(0.1)
        graph.index = 1
        only = [[], weights.ne(0).tolist()] if alone else None
        states = graph.states(inputs, weights, Pass(statistics=statistics, only=only))
        total = torch.stack([s.square().sum() for s in states[graph.space.inputs :]]).sum()
        leaves = [*inputs, *graph.parameters()]
        gradients = torch.autograd.grad(total, leaves, allow_unused=True)
        zeros = [torch.zeros_like(p) if g is None else g for g, p in zip(gradients, leaves, strict=True)]
        found.append((states, dict(graph.named_buffers()), zeros))
    (full, buffers, gradients), (part, others, theirs) = found  # type: ignore[assignment]
    torch.testing.assert_close(part, full)
    torch.testing.assert_close(theirs, list(gradients))
    weights = graph_of(name, reduction, partial)[2]
    for key, ours in others.items():
        if ours.dtype != torch.float64:
            continue
        if ours.dim() == 1:  # of a norm inside an op, which follows if the op was computed
            assert torch.allclose(ours, buffers[key]) or bool((ours == ours[0]).all())
            continue
        node = int(key.split(".")[1])
        graph = graph_of(name, reduction, partial)[0]
        chosen = weights.flatten()[list(graph._columns[node])] != 0
        torch.testing.assert_close(ours[chosen], buffers[key][chosen])
        if statistics == "update":
            assert (ours[~chosen] == (0.1 if "mean" in key else 1.0)).all()


def test_ops_that_were_not_drawn_do_not_run_in_the_steps_of_the_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    counts: list[int] = []
    real = DepthwiseConv.run.__func__  # type: ignore[attr-defined]

    def counted(cls: Any, members: Sequence[Primitive], x: Tensor, p: Pass) -> list[Tensor]:
        counts.append(len(members))
        return real(cls, members, x, p)  # type: ignore[no-any-return]

    monkeypatch.setattr(DepthwiseConv, "run", classmethod(counted))
    run = search(method="gdas", epochs=1)
    edges = 3 * len(run.config.space().edges)
    run.search()
    # Three steps of the weights and one or two batches of judging, twice; the steps of the alphas need all ops, of
    # which the fused kernel of the CPU computes all but one kind without coming here.
    assert 0 < sum(counts) <= (3 + 4) * edges


def test_a_search_goes_the_same_way() -> None:
    one, other = (search(method="gdas", compute_unchosen=flag).search() for flag in (False, True))
    for ours, theirs in zip(one.history, other.history, strict=True):
        assert ours["train"]["loss"] == pytest.approx(theirs["train"]["loss"], rel=2e-2)
        assert ours["valid"]["loss"] == pytest.approx(theirs["valid"]["loss"], rel=5e-2)
    torch.testing.assert_close(one.alphas, other.alphas, rtol=0.05, atol=0.02)


def test_all_are_computed_where_the_host_would_wait() -> None:
    run = search(method="gdas")
    state = run._initial()
    assert run.strategy.stepper(state, run.config.method).chosen_alone
    assert (
        not search(method="gdas", compute_unchosen=True)
        .strategy.stepper(state, run.config.method.with_settings(compute_unchosen=True))
        .chosen_alone
    )
    assert not run.strategy.stepper(state, run.config.method.with_settings(sampler="concrete")).chosen_alone
    from ddarts_ext.search.captured import CapturedIterations

    stepper = run.strategy.stepper(state, run.config.method)
    captured = CapturedIterations(stepper, run.dataset, run.config, lambda error: None)
    assert not captured.stepper.chosen_alone

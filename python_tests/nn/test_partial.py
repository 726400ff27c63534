"""Partial channels: a cell against the published mixed op, edge by edge, in plain torch."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ddarts_ext import spaces
from ddarts_ext.nn.cell import Cell
from ddarts_ext.nn.forward_pass import Pass
from ddarts_ext.nn.graph import SearchGraph
from ddarts_ext.nn.nasbench201 import NASBench201Supernet
from ddarts_ext.nn.partial import shuffled
from ddarts_ext.nn.primitives import Primitive
from ddarts_ext.nn.supernet import Supernet

BATCH = Pass(statistics="batch")


def published_shuffle(x: Tensor, groups: int) -> Tensor:
    n, channels, h, w = x.shape
    return x.reshape(n, groups, channels // groups, h, w).transpose(1, 2).reshape(n, channels, h, w)


def mixed_op(graph: SearchGraph, e: int, x: Tensor, row: Tensor, k: int) -> Tensor:
    """PC-DARTS' MixedOp: sum over ops on the first C / k channels, the rest beside it, shuffled."""
    ops = graph.edges[e]
    assert isinstance(ops, nn.ModuleDict)
    seen, rest = x[:, : x.shape[1] // k], x[:, x.shape[1] // k :]
    total = torch.zeros(())
    for weight, name in zip(row, graph.space.ops, strict=True):
        if name not in ops:
            continue
        op = ops[name]
        assert isinstance(op, Primitive)
        out = op(seen, BATCH)
        if op.normalized:
            out = F.batch_norm(out, None, None, training=True)
        total = total + weight * out
    if total.shape[2] != x.shape[2]:
        rest = F.max_pool2d(rest, 2, 2)
    return published_shuffle(torch.cat((total, rest), 1), k)


def naive(graph: SearchGraph, inputs: tuple[Tensor, ...], alphas: Tensor, edges: Tensor, k: int) -> list[Tensor]:
    states = list(inputs)
    for node in graph.space.nodes:
        into = zip(graph.space.incoming(node), states, strict=True)
        states.append(torch.stack([edges[e] * mixed_op(graph, e, x, alphas[e].softmax(-1), k) for e, x in into]).sum(0))
    return states


def inputs(space: spaces.Space, channels: int, side: int = 6) -> tuple[Tensor, ...]:
    drawn = torch.Generator().manual_seed(0)
    shape = (3, channels, side, side)
    found = [torch.randn(shape, generator=drawn, dtype=torch.float64) for _ in range(space.inputs)]
    return tuple(x.contiguous(memory_format=torch.channels_last).requires_grad_(True) for x in found)


@pytest.mark.parametrize(("name", "reduction"), [("darts_none", False), ("darts_none", True), ("nasbench201", False)])
@pytest.mark.parametrize("k", [2, 4])
def test_a_cell_is_the_published_one(name: str, reduction: bool, k: int) -> None:
    """Values, and gradients of alphas, edge weights, states and weights."""
    torch.manual_seed(0)
    space = spaces.get(name)
    graph = SearchGraph(space, 8, reduction=reduction, partial=k).double()
    states = inputs(space, 8)
    alphas = torch.randn(len(space.edges), len(space.ops), dtype=torch.float64).requires_grad_(True)
    edges = torch.rand(len(space.edges), dtype=torch.float64).requires_grad_(True)
    leaves = [alphas, edges, *states, *graph.parameters()]
    ours = torch.cat([s.flatten() for s in graph.states(states, alphas.softmax(-1) * edges[:, None], BATCH)[2:]])
    theirs = torch.cat([s.flatten() for s in naive(graph, states, alphas, edges, k)[2:]])
    torch.testing.assert_close(ours, theirs)
    direction = torch.randn(len(ours), dtype=torch.float64)
    found = torch.autograd.grad(ours @ direction, leaves)
    expected = torch.autograd.grad(theirs @ direction, leaves, allow_unused=True)
    for one, other in zip(found, expected, strict=True):
        # Biases before a norm have no influence: zero here, absent there.
        torch.testing.assert_close(one, torch.zeros_like(one) if other is None else other)


def test_shuffle_is_the_published_one_and_in_channels_last() -> None:
    parts = torch.randn(2, 12, 3, 5).chunk(4, 1)
    found = shuffled(parts)
    torch.testing.assert_close(found, published_shuffle(torch.cat(parts, 1), 4), rtol=0, atol=0)
    assert found.is_contiguous(memory_format=torch.channels_last)


def test_groups_are_those_of_one_after_the_other() -> None:
    torch.manual_seed(0)
    space = spaces.get("darts")
    graph = SearchGraph(space, 4, partial=2)
    one, other = inputs(space, 4), inputs(space, 4)
    weights = torch.rand(2, len(space.edges), len(space.ops))
    apart = [graph.states([x.float() for x in pair], weights[g], BATCH)[-1] for g, pair in enumerate((one, other))]
    joined = [torch.cat((a.float(), b.float())) for a, b in zip(one, other, strict=True)]
    together = graph.states(joined, weights, Pass(groups=2, statistics="batch"))[-1]
    torch.testing.assert_close(together, torch.cat(apart), rtol=1e-4, atol=1e-5)


def depthwise(net: nn.Module) -> int:
    return sum(p.numel() for name, p in net.named_parameters() if ".edges." in name and "depthwise" in name)


def pointwise(net: nn.Module) -> int:
    return sum(p.numel() for name, p in net.named_parameters() if ".edges." in name and "pointwise" in name)


def test_parameters_are_a_k_th_and_a_k_th_squared() -> None:
    space = spaces.get("darts")
    whole, part = Supernet(space, 3, 16), Supernet(space, 3, 16, partial=4)
    assert depthwise(whole) == 4 * depthwise(part) > 0
    assert pointwise(whole) == 16 * pointwise(part) > 0
    # 299,578, where those of DARTS have 1,930,618.
    net = Supernet(spaces.get("darts_none"), 8, 16, partial=4)
    assert sum(p.numel() for p in net.parameters()) == published_parameters(16, 8, 4)


def published_parameters(channels: int, cells: int, k: int) -> int:
    """Counted by hand, of stem, preprocessing, ops and classifier."""
    total, before, last, halved = 3 * 3 * channels * 9 + 2 * 3 * channels, 3 * channels, 3 * channels, False
    for cell in range(cells):
        reduction = cell in (cells // 3, 2 * cells // 3)
        channels *= 2 if reduction else 1
        total += before * channels + last * channels
        c = channels // k
        # sep_conv: two stages, dil_conv: one, of a depthwise and a pointwise convolution; a skip that halves: one.
        edge = 2 * (9 * c + c * c) + 2 * (25 * c + c * c) + (9 * c + c * c) + (25 * c + c * c)
        total += 14 * edge + (8 * c * c if reduction else 0)
        before, last, halved = last, 4 * channels, reduction
    assert not halved
    return total + 10 * last + 10


def test_networks_of_both_kinds_have_the_shapes_of_whole_ones() -> None:
    x = torch.randn(2, 3, 9, 8)
    for space, build in (("darts", Supernet), ("nasbench201", NASBench201Supernet)):
        sizes: dict[str, Any] = {"partial": 4}
        net = build(spaces.get(space), 3, 8, **sizes) if build is Supernet else build(8, 1, **sizes)
        weights = torch.rand(3, len(net.space.edges), len(net.space.ops))
        assert net(x, weights).shape == (2, 10)
        assert net(x, torch.zeros_like(weights)).isfinite().all()


def test_pruned_to_nothing_passes_by_all_the_same() -> None:
    space = spaces.get("darts")
    graph = SearchGraph(space, 4, partial=2)
    graph.prune(torch.zeros(len(space.edges), len(space.ops), dtype=torch.bool))
    out = graph.states([x.float() for x in inputs(space, 4)], torch.rand(len(space.edges), len(space.ops)), BATCH)[-1]
    assert out.shape == (3, 4, 6, 6)
    assert (out[:, ::2] == 0).all()
    assert (out[:, 1::2] != 0).any()


def test_what_cannot_be_divided_is_refused() -> None:
    with pytest.raises(ValueError, match="Cell: partial must divide the 6 channels, got 4"):
        Cell(spaces.get("darts"), 6, 6, 6, partial=4)

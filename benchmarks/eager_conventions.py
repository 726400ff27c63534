"""Cells and mixed ops in plain PyTorch as the known code bases write them, at the sizes of a search.

``CONVENTIONS`` maps a name to a function that returns a model and what its forward takes; see ``docs/drop-in.md``.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ddarts_ext.benchmark import neighbour

eager = neighbour(__file__, "eager_supernet")
CHANNELS, NODES = 16, 2
EDGES = 5
Sum = Callable[[Sequence[nn.Module], Tensor, Tensor], Tensor]


def weighted(ops: Sequence[nn.Module], x: Tensor, weights: Tensor) -> Tensor:
    """DARTS, P-DARTS, FairDARTS."""
    return functools.reduce(operator.add, [w * op(x) for w, op in zip(weights, ops, strict=True)])


def divided(ops: Sequence[nn.Module], x: Tensor, weights: Tensor) -> Tensor:
    """IS-DARTS: over the number of ops."""
    return sum(w * op(x) / len(ops) for w, op in zip(weights, ops, strict=True))  # type: ignore[return-value]


def accumulated(ops: Sequence[nn.Module], x: Tensor, weights: Tensor) -> Tensor:
    out = torch.zeros_like(x)
    for w, op in zip(weights, ops, strict=True):
        out += w * op(x)
    return out


def stacked(ops: Sequence[nn.Module], x: Tensor, weights: Tensor) -> Tensor:
    return torch.einsum("k,kbchw->bchw", weights, torch.stack([op(x) for op in ops]))


class MixedOp(nn.Module):
    def __init__(self, form: Sum, channels: int = CHANNELS) -> None:
        super().__init__()
        self.form = form
        self.ops = eager.MixedOp(channels, 1).ops

    def forward(self, x: Tensor, weights: Tensor) -> Tensor:
        return self.form(list(self.ops), x, weights)


class PartialMixedOp(MixedOp):
    """PC-DARTS: a quarter of the channels, then a shuffle."""

    def forward(self, x: Tensor, weights: Tensor) -> Tensor:
        n, c, height, width = x.shape
        mixed = self.form(list(self.ops), x[:, : c // 4], weights)
        out = torch.cat([mixed, x[:, c // 4 :]], dim=1).view(n, 4, c // 4, height, width)
        return out.transpose(1, 2).contiguous().view(n, c, height, width)


class Cell(nn.Module):
    """Two inputs, two nodes."""

    def __init__(self, edge: Callable[[], nn.Module], channels: int = CHANNELS) -> None:
        super().__init__()
        self.preprocess0 = eager.relu_conv(4 * CHANNELS, channels)
        self.preprocess1 = eager.relu_conv(4 * CHANNELS, channels)
        self.edges = nn.ModuleList(edge() for _ in range(EDGES))

    def forward(self, s0: Tensor, s1: Tensor, weights: Tensor) -> Tensor:
        states = [self.preprocess0(s0), self.preprocess1(s1)]
        edge = 0
        for _ in range(NODES):
            rows = range(edge, edge + len(states))
            node: Any = sum(self.edges[k](state, weights[k]) for k, state in zip(rows, states, strict=True))
            edge += len(states)
            states.append(node)
        return torch.cat(states[2:], dim=1)


class TableCell(nn.Module):
    """NAS-Bench-201: four nodes, four ops, two of them dense convolutions. hard: GDAS, one op an edge."""

    def __init__(self, hard: bool) -> None:
        super().__init__()
        self.hard = hard
        self.edges = nn.ModuleDict({f"{i}<-{j}": nn.ModuleList(self._ops()) for i in range(1, 4) for j in range(i)})

    def _ops(self) -> list[nn.Module]:
        def conv(k: int) -> nn.Module:
            weights = nn.Conv2d(CHANNELS, CHANNELS, k, padding=k // 2, bias=False)
            return nn.Sequential(nn.ReLU(), weights, nn.BatchNorm2d(CHANNELS, affine=False))

        return [nn.Identity(), conv(1), conv(3), nn.AvgPool2d(3, 1, 1, count_include_pad=False)]

    def forward(self, x: Tensor, weights: Tensor) -> Tensor:
        nodes = [x]
        rows = iter(weights)
        for i in range(1, 4):
            found: list[Any] = []
            for j in range(i):
                row = next(rows)
                pairs = enumerate(zip(row, self.edges[f"{i}<-{j}"], strict=True))  # type: ignore[arg-type]
                found.append(sum(w * op(nodes[j]) if not self.hard or k == 2 else w for k, (w, op) in pairs))
            nodes.append(sum(found))
        return nodes[-1]


class Block(nn.Module):
    """NAS-Bench-1Shot1: adds its inputs, mixes three ops on the sum."""

    def __init__(self) -> None:
        super().__init__()
        self.mixed = MixedOp(weighted)

    def forward(self, inputs: Sequence[Tensor], weights: Tensor) -> Tensor:
        out: Tensor = self.mixed(sum(inputs), weights)
        return out


class ProjectedCell(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Block() for _ in range(3))
        self.projections = nn.ModuleList(eager.relu_conv(4 * CHANNELS, CHANNELS) for _ in range(3))

    def forward(self, x: Tensor, weights: Tensor) -> Tensor:
        states: list[Tensor] = []
        for block, projection, row in zip(self.blocks, self.projections, weights, strict=True):
            states.append(block([projection(x), *states], row))
        return torch.cat(states, dim=1)


def _images(*channels: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(2)
    return [torch.randn(16, c, 32, 32, generator=generator) for c in channels]


def _table(*shape: int) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(3)) + 0.1


def _edge(form: Sum) -> tuple[nn.Module, list[Tensor]]:
    return MixedOp(form), [*_images(CHANNELS), _table(7)]


def _cell(edge: Callable[[], nn.Module], channels: int = CHANNELS) -> tuple[nn.Module, list[Tensor]]:
    return Cell(edge, channels), [*_images(4 * CHANNELS, 4 * CHANNELS), _table(EDGES, 7)]


CONVENTIONS: dict[str, Callable[[], tuple[nn.Module, list[Tensor]]]] = {
    "DARTS mixed op": lambda: _edge(weighted),
    "mixed op, += into zeros": lambda: _edge(accumulated),
    "mixed op, stack and einsum": lambda: _edge(stacked),
    "DARTS cell of two nodes": lambda: _cell(lambda: MixedOp(weighted)),
    "IS-DARTS cell": lambda: _cell(lambda: MixedOp(divided)),
    "PC-DARTS cell, C=64": lambda: _cell(lambda: PartialMixedOp(weighted), 4 * CHANNELS),
    "NAS-Bench-201 cell": lambda: (TableCell(hard=False), [*_images(CHANNELS), _table(6, 4)]),
    "NAS-Bench-201 cell, GDAS": lambda: (TableCell(hard=True), [*_images(CHANNELS), _table(6, 4)]),
    "NAS-Bench-1Shot1 cell": lambda: (ProjectedCell(), [*_images(4 * CHANNELS), _table(3, 7)]),
}

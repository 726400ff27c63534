"""The D-DARTS supernet in plain PyTorch, layer by layer as published: what the search step is compared with.

Seven ops (no ``none``), sigmoid weights, affine-free norms inside the cells, every op on every edge run by itself.
Parameters are registered in the order of ``ddarts_ext.nn.supernet.Supernet``, so that ``share`` can copy them over.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

STEPS = 4
OPS = 7


def norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, affine=False)


def stage(channels: int, kernel: int, stride: int, padding: int, dilation: int) -> list[nn.Module]:
    return [
        nn.ReLU(),
        nn.Conv2d(channels, channels, kernel, stride, padding, dilation, groups=channels, bias=False),
        nn.Conv2d(channels, channels, 1, bias=False),
        norm(channels),
    ]


def sep_conv(channels: int, kernel: int, stride: int) -> nn.Module:
    padding = kernel // 2
    return nn.Sequential(*stage(channels, kernel, stride, padding, 1), *stage(channels, kernel, 1, padding, 1))


def dil_conv(channels: int, kernel: int, stride: int) -> nn.Module:
    return nn.Sequential(*stage(channels, kernel, stride, kernel - 1, 2))


def relu_conv(channels_in: int, channels: int) -> nn.Module:
    return nn.Sequential(nn.ReLU(), nn.Conv2d(channels_in, channels, 1, bias=False), norm(channels))


class FactorizedReduce(nn.Module):
    def __init__(self, channels_in: int, channels: int) -> None:
        super().__init__()
        self.even = nn.Conv2d(channels_in, channels // 2, 1, stride=2, bias=False)
        self.odd = nn.Conv2d(channels_in, channels // 2, 1, stride=2, bias=False)
        self.norm = norm(channels)

    def forward(self, x: Tensor) -> Tensor:
        x = x.relu()
        result: Tensor = self.norm(torch.cat([self.even(x), self.odd(x[:, :, 1:, 1:])], dim=1))
        return result


class MixedOp(nn.Module):
    """All ops of one edge, weighted."""

    def __init__(self, channels: int, stride: int) -> None:
        super().__init__()
        pools = (
            nn.MaxPool2d(3, stride=stride, padding=1),
            nn.AvgPool2d(3, stride=stride, padding=1, count_include_pad=False),
        )
        self.ops = nn.ModuleList(
            [
                *(nn.Sequential(pool, norm(channels)) for pool in pools),
                nn.Identity() if stride == 1 else FactorizedReduce(channels, channels),
                sep_conv(channels, 3, stride),
                sep_conv(channels, 5, stride),
                dil_conv(channels, 3, stride),
                dil_conv(channels, 5, stride),
            ]
        )

    def forward(self, x: Tensor, weights: Tensor) -> Tensor:
        result: Tensor = sum(w * op(x) for w, op in zip(weights, self.ops, strict=True))  # type: ignore[assignment]
        return result


class Cell(nn.Module):
    def __init__(
        self, channels_0: int, channels_1: int, channels: int, reduction: bool, previous_reduction: bool
    ) -> None:
        super().__init__()
        self.edges = nn.ModuleList(
            MixedOp(channels, 2 if reduction and source < 2 else 1)
            for node in range(STEPS)
            for source in range(2 + node)
        )
        if previous_reduction:
            self.preprocess0: nn.Module = FactorizedReduce(channels_0, channels)
        else:
            self.preprocess0 = relu_conv(channels_0, channels)
        self.preprocess1 = relu_conv(channels_1, channels)

    def forward(self, s0: Tensor, s1: Tensor, weights: Tensor) -> Tensor:
        states = [self.preprocess0(s0), self.preprocess1(s1)]
        edge = 0
        for _ in range(STEPS):
            node = sum(self.edges[edge + i](state, weights[edge + i]) for i, state in enumerate(states))
            edge += len(states)
            states.append(node)  # type: ignore[arg-type]
        return torch.cat(states[-STEPS:], dim=1)


class EagerSupernet(nn.Module):
    """forward(x, weights [cells, 14, 7] after the sigmoid) -> logits."""

    def __init__(self, cells: int = 8, channels: int = 16, classes: int = 10) -> None:
        super().__init__()
        current = 3 * channels
        self.stem = nn.Sequential(nn.Conv2d(3, current, 3, padding=1, bias=False), nn.BatchNorm2d(current))
        self.cells = nn.ModuleList()
        previous, halved = current, False
        for i in range(cells):
            reduction = i in (cells // 3, 2 * cells // 3)
            channels *= 2 if reduction else 1
            self.cells.append(Cell(previous, current, channels, reduction, halved))
            previous, current, halved = current, STEPS * channels, reduction
        self.classifier = nn.Linear(current, classes)

    def forward(self, x: Tensor, weights: Tensor) -> Tensor:
        s0 = s1 = self.stem(x)
        for cell, row in zip(self.cells, weights, strict=True):
            s0, s1 = s1, cell(s0, s1, row)
        logits: Tensor = self.classifier(s1.mean((2, 3)))
        return logits


@torch.no_grad()
def share(source: nn.Module, target: nn.Module) -> None:
    """Copies all parameters over; both networks register them in the same order."""
    for ours, theirs in zip(target.parameters(), source.parameters(), strict=True):
        if ours.shape != theirs.shape:
            raise ValueError(f"share: parameters must have equal shapes, got {ours.shape} and {theirs.shape}")
        ours.copy_(theirs)

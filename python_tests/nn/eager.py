"""The ops of the papers layer by layer in plain torch.nn: what the networks are compared with."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class Halve(nn.Module):
    """FactorizedReduce without its norm, odd sides padded by a zero row or column."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.even = nn.Conv2d(channels, channels // 2, 1, 2, bias=False)
        self.odd = nn.Conv2d(channels, channels // 2, 1, 2, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = x.relu()
        padded = nn.functional.pad(x, (0, x.shape[3] % 2, 0, x.shape[2] % 2))
        return torch.cat((self.even(x), self.odd(padded[:, :, 1:, 1:])), 1)


def _depthwise(c: int, k: int, s: int, d: int) -> list[nn.Module]:
    return [
        nn.ReLU(),
        nn.Conv2d(c, c, k, s, d * (k - 1) // 2, d, groups=c, bias=False),
        nn.Conv2d(c, c, 1, bias=False),
        nn.BatchNorm2d(c, affine=False),
    ]


def _split(c: int, k: int, s: int) -> list[nn.Module]:
    row = nn.Conv2d(c, c, (1, k), (1, s), (0, k // 2), bias=False)
    column = nn.Conv2d(c, c, (k, 1), (s, 1), (k // 2, 0), bias=False)
    return [nn.ReLU(), row, column, nn.BatchNorm2d(c, affine=False)]


def _simple(c: int, k: int, s: int) -> list[nn.Module]:
    return [nn.ReLU(), nn.Conv2d(c, c, k, s, k // 2, bias=False), nn.BatchNorm2d(c, affine=False)]


def _bottleneck(c: int, s: int) -> list[nn.Module]:
    return [
        nn.ReLU(),
        nn.Conv2d(c, c, 1, bias=False),
        nn.BatchNorm2d(c, affine=False),
        nn.Conv2d(c, c, 3, s, 1, bias=False),
        nn.BatchNorm2d(c, affine=False),
        nn.Conv2d(c, 4 * c, 1, bias=False),
        nn.BatchNorm2d(4 * c, affine=False),
        nn.ReLU(),
        nn.Conv2d(4 * c, c, 1, bias=False),
        nn.BatchNorm2d(c, affine=False),
    ]


class Zero(nn.Module):
    def __init__(self, stride: int) -> None:
        super().__init__()
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        return x[:, :, :: self.stride, :: self.stride] * 0


def eager_op(name: str, c: int, s: int) -> nn.Module:
    """One op of the search network with its last norm."""
    size = int(name[-1]) if name[-1].isdigit() else 0
    if name == "none":
        return Zero(s)
    if name == "skip_connect":
        return nn.Identity() if s == 1 else nn.Sequential(Halve(c), nn.BatchNorm2d(c, affine=False))
    if name.endswith("pool_3x3"):
        average = nn.AvgPool2d(3, s, 1, count_include_pad=False)
        return nn.Sequential(average if name[0] == "a" else nn.MaxPool2d(3, s, 1), nn.BatchNorm2d(c, affine=False))
    layers = {
        "sep": lambda: _depthwise(c, size, s, 1) + _depthwise(c, size, 1, 1),
        "dil": lambda: _depthwise(c, size, s, 2),
        "con": lambda: _split(c, int(name[5]), s),
        "sim": lambda: _simple(c, size, s),
        "bot": lambda: _bottleneck(c, s),
    }[name[:3]]()
    return nn.Sequential(*layers)


class EagerMixedOp(nn.Module):
    """sum_o w_o op_o(x)."""

    def __init__(self, names: Sequence[str], channels: int, stride: int) -> None:
        super().__init__()
        self.ops = nn.ModuleList(eager_op(name, channels, stride) for name in names)

    def forward(self, x: Tensor, weights: Tensor) -> Tensor:
        return sum((w * op(x) for w, op in zip(weights, self.ops, strict=True)), torch.zeros(()))

    def norms(self) -> list[nn.BatchNorm2d]:
        return [module for module in self.modules() if isinstance(module, nn.BatchNorm2d)]

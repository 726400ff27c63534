"""The deterministic fill that golden vectors are given for: parameters, images, targets and alphas by formula."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TypeVar

import torch
from torch import Tensor, nn

from ddarts_ext.nn.norm import RunningStatistics

Network = TypeVar("Network", bound=nn.Module)


def fill(model: Network) -> Network:
    """Float64 parameters by formula, norms neutral; independent of the order of the parameters."""
    model.double()
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, RunningStatistics):
                continue
            for parameter in module.parameters(recurse=False):
                parameter.copy_(_values(parameter))
    return model


def images(batch: int = 4, side: int = 16, phase: float = 0.0) -> Tensor:
    """X[b,c,h,w] = sin(0.35 bch + 0.11 cw^2 + phase), indices from 1."""
    b, c, h, w = (
        torch.arange(1, n + 1, dtype=torch.float64).view([-1 if i == axis else 1 for i in range(4)])
        for axis, n in enumerate((batch, 3, side, side))
    )
    return torch.sin(0.35 * b * c * h + 0.11 * c * w**2 + phase)


def targets(batch: int = 4) -> Tensor:
    return (3 * torch.arange(batch) + 1) % 10


def alphas(edges: int, ops: int, shift: float) -> Tensor:
    """alpha[k,o] = 0.5 sin(7k + 1.3o + shift)."""
    k = torch.arange(edges, dtype=torch.float64)[:, None]
    o = torch.arange(ops, dtype=torch.float64)
    return 0.5 * torch.sin(7 * k + 1.3 * o + shift)


def close(actual: Tensor, expected: float | Sequence[float]) -> None:
    """Equal to 1e-6 relative, element by element."""
    torch.testing.assert_close(
        actual.detach().double(), torch.tensor(expected, dtype=torch.float64), rtol=1e-6, atol=1e-12
    )


def _values(parameter: Tensor) -> Tensor:
    o = torch.arange(1, parameter.shape[0] + 1, dtype=torch.float64)
    if parameter.dim() == 1:
        return 0.01 * o
    i = torch.arange(1, parameter.shape[1] + 1, dtype=torch.float64)
    if parameter.dim() == 2:
        return torch.sin(0.9 * o[:, None] * i) / math.sqrt(parameter.shape[1])
    _, inside, height, width = parameter.shape
    y, x = torch.arange(height, dtype=torch.float64), torch.arange(width, dtype=torch.float64)
    angle = (0.9 * o[:, None] * i)[:, :, None, None] + 0.7 * y[:, None] + 0.3 * x
    return torch.sin(angle) / math.sqrt(inside * height * width)

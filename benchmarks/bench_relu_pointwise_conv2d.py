"""The preprocessing of a cell's inputs (ReLU, 1x1) and the factorised reduction; forward and backward."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ddarts_ext import ops
from ddarts_ext.benchmark import SHAPES, Case, batches

OP = "relu_pointwise_conv2d"


def inputs(batch: int, channels: int, size: int, outs: Sequence[int]) -> Sequence[Any]:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(batch, channels, size, size, generator=generator)
    weights = [torch.randn(out, channels, 1, 1, generator=generator) / channels**0.5 for out in outs]
    return x.requires_grad_(), [weight.requires_grad_() for weight in weights]


def eager(x: Tensor, weights: list[Tensor]) -> Tensor:
    """As the published networks have it: the factorised reduction cuts the ReLU'd tensor."""
    y = F.relu(x)
    if len(weights) == 1:
        return F.conv2d(y, weights[0])
    return torch.cat([F.conv2d(y, weights[0], stride=2), F.conv2d(y[:, :, 1:, 1:], weights[1], stride=2)], 1)


def kernel(x: Tensor, weights: list[Tensor]) -> Tensor:
    return ops.relu_pointwise_conv2d(x, weights, stride=len(weights))


def cases(device: str) -> Iterator[Case]:
    for batch in batches(device):
        for channels, size in SHAPES["D-DARTS"]:
            wide = 4 * channels  # a cell hands on the concatenation of four nodes
            for name, outs, read in (("1x1", [channels], 1.0), ("factorised", [channels, channels], 0.5)):
                values = batch * size * size
                written = values * sum(outs) / len(outs) ** 2
                # forward: x, out; backward: x, the gradient, dx
                moved = int(4 * (values * wide * (2 * read + 1) + 2 * written))
                yield Case(
                    OP,
                    f"{name} [{batch},{wide},{size},{size}] -> {sum(outs)}",
                    lambda n=batch, c=wide, s=size, o=outs: inputs(n, c, s, o),  # type: ignore[misc]
                    eager,
                    kernel,
                    moved,
                    backward=True,
                    library=True,
                )

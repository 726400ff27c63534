"""The depthwise filters of one edge (sep 3x3, 5x5, dil 3x3, 5x5), which read one input; forward and backward."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ddarts_ext import ops
from ddarts_ext.benchmark import SHAPES, Case, batches

OP = "relu_depthwise_conv2d"
FILTERS = ((3, 1), (5, 1), (3, 2), (5, 2))  # kernel size, dilation
DILATIONS = [dilation for _, dilation in FILTERS]
TARGETS = {"eager": 20.0, "eager channels-last": 10.0}


def edge_inputs(batch: int, channels: int, size: int) -> tuple[Tensor, list[Tensor]]:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(batch, channels, size, size, generator=generator)
    weights = [torch.randn(channels, 1, k, k, generator=generator) / k for k, _ in FILTERS]
    return x.requires_grad_(), [weight.requires_grad_() for weight in weights]


def eager_edge(x: Tensor, weights: Sequence[Tensor]) -> list[Tensor]:
    """Each operation has a ReLU of its own, as in the published search networks."""
    return [
        F.conv2d(F.relu(x), w, None, 1, d * (w.shape[-1] - 1) // 2, d, x.shape[1])
        for w, d in zip(weights, DILATIONS, strict=True)
    ]


def kernel_edge(x: Tensor, weights: Sequence[Tensor]) -> list[Tensor]:
    return ops.relu_depthwise_conv2d(x, weights, dilations=DILATIONS).outputs


def eager_second(x: Tensor, weight: Tensor) -> Tensor:
    """The second half of a separable convolution: norm, ReLU, depthwise 3x3."""
    return F.conv2d(F.relu(F.batch_norm(x, None, None, training=True)), weight, None, 1, 1, 1, x.shape[1])


def kernel_second(x: Tensor, weight: Tensor) -> Tensor:
    return ops.relu_depthwise_conv2d(x, [weight], dilations=[1], normalize=True).outputs[0]


def cases(device: str) -> Iterator[Case]:
    for batch in batches(device):
        edges = [(batch, channels, size) for channels, size in SHAPES["D-DARTS"]]

        def all_inputs(edges: Sequence[tuple[int, int, int]] = edges) -> Sequence[Any]:
            return ([edge_inputs(*edge) for edge in edges],)

        # forward: x, F outputs; backward: x, F gradients, dx
        moved = sum(n * c * s * s * 4 * (2 * len(FILTERS) + 3) for n, c, s in edges)
        yield Case(
            OP,
            f"edge, {', '.join(f'[{n},{c},{s},{s}]' for n, c, s in edges)} summed",
            all_inputs,
            lambda pairs: [out for pair in pairs for out in eager_edge(*pair)],
            lambda pairs: [out for pair in pairs for out in kernel_edge(*pair)],
            moved,
            backward=True,
            library=True,
            flops=sum(6 * n * c * s * s * sum(k * k for k, _ in FILTERS) for n, c, s in edges),
            targets=TARGETS if device == "cpu" else {},
        )
        for n, c, s in edges:

            def inputs(n: int = n, c: int = c, s: int = s) -> Sequence[Any]:
                x, weights = edge_inputs(n, c, s)
                return x, weights[0]

            name = f"norm and 3x3 [{n},{c},{s},{s}]"
            values = n * c * s * s
            yield Case(
                OP,
                name,
                inputs,
                eager_second,
                kernel_second,
                32 * values,
                backward=True,
                library=True,
                flops=54 * values,
            )

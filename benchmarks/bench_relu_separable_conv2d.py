"""The first stage of all separable and dilated convolutions of one edge: ReLU, depthwise, 1x1; forward and backward."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ddarts_ext import ops
from ddarts_ext.benchmark import SHAPES, Case, batches

OP = "relu_separable_conv2d"
FILTERS = ((3, 1), (5, 1), (3, 2), (5, 2))  # kernel size, dilation
DILATIONS = [dilation for _, dilation in FILTERS]


def stage_inputs(batch: int, channels: int, size: int) -> tuple[Tensor, list[Tensor], list[Tensor]]:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(batch, channels, size, size, generator=generator)
    weights = [torch.randn(channels, 1, k, k, generator=generator) / k for k, _ in FILTERS]
    pointwise = [torch.randn(channels, channels, 1, 1, generator=generator) / channels**0.5 for _ in FILTERS]
    return x.requires_grad_(), *([weight.requires_grad_() for weight in group] for group in (weights, pointwise))  # type: ignore[return-value]


def eager_stage(x: Tensor, weights: Sequence[Tensor], pointwise: Sequence[Tensor]) -> list[Tensor]:
    """Each operation has a ReLU of its own, as in the published search networks."""
    return [
        F.conv2d(F.conv2d(F.relu(x), w, None, 1, d * (w.shape[-1] - 1) // 2, d, x.shape[1]), u)
        for w, u, d in zip(weights, pointwise, DILATIONS, strict=True)
    ]


def kernel_stage(x: Tensor, weights: Sequence[Tensor], pointwise: Sequence[Tensor]) -> list[Tensor]:
    return ops.relu_separable_conv2d([x], weights, pointwise, sources=[0] * len(weights), dilations=DILATIONS).outputs


def eager_second(x: Tensor, weights: Sequence[Tensor], pointwise: Sequence[Tensor]) -> Tensor:
    """The second stage of a separable convolution: norm, ReLU, depthwise 3x3, 1x1."""
    y = F.relu(F.batch_norm(x, None, None, training=True))
    return F.conv2d(F.conv2d(y, weights[0], None, 1, 1, 1, x.shape[1]), pointwise[0])


def kernel_second(x: Tensor, weights: Sequence[Tensor], pointwise: Sequence[Tensor]) -> Tensor:
    return ops.relu_separable_conv2d(
        [x], weights[:1], pointwise[:1], sources=[0], dilations=[1], normalize=True
    ).outputs[0]


def cases(device: str) -> Iterator[Case]:
    for batch in batches(device):
        for channels, size in SHAPES["D-DARTS"]:

            def inputs(n: int = batch, c: int = channels, s: int = size) -> Sequence[Any]:
                return stage_inputs(n, c, s)

            def second(n: int = batch, c: int = channels, s: int = size) -> Sequence[Any]:
                x, weights, pointwise = stage_inputs(n, c, s)
                return x, weights[:1], pointwise[:1]

            shape, plane = f"[{batch},{channels},{size},{size}]", batch * channels * size * size * 4
            # forward: x, F outputs; backward: x, F gradients, dx
            moved = plane * (2 * len(FILTERS) + 3)
            # a multiply-add a tap and channel, forward and for each of the gradients
            flops = 6 * plane // 4 * sum(k * k + channels for k, _ in FILTERS)
            name = f"edge {shape}"
            yield Case(OP, name, inputs, eager_stage, kernel_stage, moved, backward=True, library=True, flops=flops)
            name, flops = f"norm and 3x3 {shape}", 6 * plane // 4 * (9 + channels)
            yield Case(
                OP, name, second, eager_second, kernel_second, plane * 8, backward=True, library=True, flops=flops
            )

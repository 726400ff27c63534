"""All ops on the four edges that leave an input of a DARTS cell, summed into its nodes; forward and backward."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ddarts_ext import ops
from ddarts_ext.benchmark import SHAPES, Case, batches
from ddarts_ext.ops import AVERAGE, MAXIMUM, SKIP

OP = "mixed_edges"
NODES = 4
CONVOLUTIONS = ((3, 1, True), (5, 1, True), (3, 2, False), (5, 2, False))  # kernel, dilation, whether a second stage
EDGES = ops.Edges(
    targets=tuple(node for node in range(NODES) for _ in range(7)),
    kinds=tuple(kind for node in range(NODES) for kind in (MAXIMUM, AVERAGE, SKIP, *range(4 * node, 4 * node + 4))),
    normalize=(True, True, False, True, True, True, True) * NODES,
    dilations=tuple(dilation for _, dilation, _ in CONVOLUTIONS) * NODES,
    seconds=tuple(4 * node + f for node in range(NODES) for f in range(4) if CONVOLUTIONS[f][2]),
)
KERNELS = [kernel for kernel, _, _ in CONVOLUTIONS] * NODES


def inputs(batch: int, channels: int, size: int) -> Sequence[Any]:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(batch, channels, size, size, generator=generator)
    kernels = KERNELS + [KERNELS[f] for f in EDGES.seconds]
    depthwise = [torch.randn(channels, 1, k, k, generator=generator) / k for k in kernels]
    pointwise = [torch.randn(channels, channels, 1, 1, generator=generator) / channels**0.5 for _ in kernels]
    weights = torch.rand(1, len(EDGES.kinds), generator=generator)
    filters = ([weight.requires_grad_() for weight in group] for group in (depthwise, pointwise))
    return x.requires_grad_(), *filters, weights.requires_grad_()


def stage(x: Tensor, depthwise: Tensor, pointwise: Tensor, dilation: int) -> Tensor:
    padding = dilation * (depthwise.shape[-1] - 1) // 2
    return F.conv2d(F.conv2d(F.relu(x), depthwise, None, 1, padding, dilation, x.shape[1]), pointwise)


def eager(x: Tensor, depthwise: list[Tensor], pointwise: list[Tensor], weights: Tensor) -> list[Tensor]:
    """Every op is computed on its own, as in the published search networks."""

    def normed(y: Tensor) -> Tensor:
        return F.batch_norm(y, None, None, training=True)

    def branch(kind: int) -> Tensor:
        if kind == MAXIMUM:
            return normed(F.max_pool2d(x, 3, 1, 1))
        if kind == AVERAGE:
            return normed(F.avg_pool2d(x, 3, 1, 1, count_include_pad=False))
        if kind == SKIP:
            return x
        y = stage(x, depthwise[kind], pointwise[kind], EDGES.dilations[kind])
        if kind in EDGES.seconds:
            i = len(EDGES.dilations) + EDGES.seconds.index(kind)
            y = stage(normed(y), depthwise[i], pointwise[i], 1)
        return normed(y)

    sums: list[Any] = [0] * NODES
    for k, (node, kind) in enumerate(zip(EDGES.targets, EDGES.kinds, strict=True)):
        sums[node] = sums[node] + weights[0, k] * branch(kind)
    return sums


def kernel(x: Tensor, depthwise: list[Tensor], pointwise: list[Tensor], weights: Tensor) -> list[Tensor]:
    return ops.mixed_edges(x, EDGES, depthwise, pointwise, weights).sums


def cases(device: str) -> Iterator[Case]:
    for batch in batches(device):
        for channels, size in SHAPES["D-DARTS"]:
            plane = batch * channels * size * size * 4
            convolutions, seconds = len(EDGES.dilations), len(EDGES.seconds)
            # outputs: written, read for moments and the sum; first stages: read again for moments and by second ones
            forward = 3 * convolutions + 3 * seconds + NODES + 6
            # outputs: read for the sums and as gradients; first stages: read twice, their gradients written and read
            backward = 2 * convolutions + 4 * seconds + NODES + 8
            moved = plane * (forward + backward)
            yield Case(
                OP,
                f"D-DARTS K={len(EDGES.kinds)} [{batch},{channels},{size},{size}]",
                lambda n=batch, c=channels, s=size: inputs(n, c, s),  # type: ignore[misc]
                eager,
                kernel,
                moved,
                backward=True,
                library=True,
                flops=6 * plane // 4 * sum(k * k + channels for k in (*KERNELS, *(KERNELS[f] for f in EDGES.seconds))),
                tolerance=2e-3,  # of ReLU and maxima in float32, as of bench_search_step
            )

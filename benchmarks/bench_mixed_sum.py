"""``mixed_sum`` of a node, norms included, against ``BatchNorm2d(affine=False)`` on every branch and a weighted sum."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ddarts_ext import ops
from ddarts_ext.benchmark import SHAPES, Case, batches

NODES = (("D-DARTS", (7, 35)), ("NAS-Bench-201", (5, 15)), ("DARTOpti", (12, 84)))


class Upstream(torch.autograd.Function):
    """Its argument, with a given gradient flowing back: a gradient of ones would vanish in every batch norm."""

    @staticmethod
    def forward(ctx: Any, out: Tensor, gradient: Tensor) -> Tensor:
        ctx.save_for_backward(gradient)
        return out.view_as(out)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return ctx.saved_tensors[0], None


def eager(branches: list[Tensor], weights: Tensor, gradient: Tensor) -> Tensor:
    total = sum(w * F.batch_norm(x, None, None, training=True) for w, x in zip(weights, branches, strict=True))
    return Upstream.apply(total, gradient)


def fused(branches: list[Tensor], weights: Tensor, gradient: Tensor) -> Tensor:
    return Upstream.apply(ops.mixed_sum(branches, weights, normalize=[True] * len(branches)).out, gradient)


def inputs(shape: tuple[int, ...], count: int) -> list[Any]:
    generator = torch.Generator().manual_seed(0)
    branches = [torch.randn(shape, generator=generator).requires_grad_() for _ in range(count)]
    weights = torch.rand(count, generator=generator).requires_grad_()
    return [branches, weights, torch.randn(shape, generator=generator)]


def cases(device: str) -> Iterator[Case]:
    for batch in batches(device):
        for space, counts in NODES:
            for channels, size in SHAPES[space]:
                for count in counts:
                    shape = (batch, channels, size, size)
                    yield Case(
                        op="mixed_sum",
                        name=f"{space} K={count} {list(shape)}",
                        inputs=lambda shape=shape, count=count: inputs(shape, count),
                        reference=eager,
                        kernel=fused,
                        # moments K, output K + 1; products K + 1, gradients 2K + 1
                        bytes=(5 * count + 3) * batch * channels * size * size * 4,
                        backward=True,
                        tolerance=1e-4,
                        targets={"eager": 2.5, "eager channels-last": 2} if space == "D-DARTS" else {},
                    )

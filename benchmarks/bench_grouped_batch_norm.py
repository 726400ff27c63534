"""``grouped_batch_norm`` with batch statistics against ``F.batch_norm``, without affine and with affine and ReLU."""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from ddarts_ext import ops
from ddarts_ext.benchmark import SHAPES, Case, batches


def eager(*xs: Tensor) -> list[Tensor]:
    return [F.batch_norm(x, None, None, training=True) for x in xs]


def kernel(*xs: Tensor) -> list[Tensor]:
    return [ops.grouped_batch_norm(x).out for x in xs]


def eager_affine(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return F.batch_norm(x, None, None, weight, bias, training=True).relu()


def kernel_affine(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return ops.grouped_batch_norm(x, weight, bias, relu=True).out


def tensors(shapes: list[tuple[int, ...]]) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(shape, generator=generator).requires_grad_() for shape in shapes]


def moved(shape: tuple[int, ...]) -> int:
    """Forward: x twice, out. Backward: x and the gradient twice, dx."""
    n, c, h, w = shape
    return n * c * h * w * 8 * 4


def cases(device: str) -> Iterator[Case]:
    for batch in batches(device):
        acceptance = [(batch, 16, 32, 32), (batch, 32, 16, 16), (batch, 64, 8, 8)]
        yield Case(
            op="grouped_batch_norm",
            name=f"batch {batch}, three stages of D-DARTS",
            inputs=lambda shapes=acceptance: tensors(shapes),
            reference=eager,
            kernel=kernel,
            bytes=sum(map(moved, acceptance)),
            backward=True,
            targets={"eager": 1, "eager channels-last": 1, "eager / kernel": 1},
        )
        for channels, size in SHAPES["D-DARTS"]:
            shape = (batch, channels, size, size)
            yield Case(
                op="grouped_batch_norm",
                name=f"affine, relu {list(shape)}",
                inputs=lambda shape=shape, c=channels: tensors([shape, (c,), (c,)]),
                reference=eager_affine,
                kernel=kernel_affine,
                bytes=moved(shape),
                backward=True,
            )

"""``pool3x3``, both pools at once, against ``F.max_pool2d`` and ``F.avg_pool2d``."""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from ddarts_ext import ops
from ddarts_ext.benchmark import SHAPES, Case, batches


def eager(*xs: Tensor, stride: int = 1) -> list[Tensor]:
    pooled: list[Tensor] = []
    for x in xs:
        pooled += [F.max_pool2d(x, 3, stride, 1), F.avg_pool2d(x, 3, stride, 1, count_include_pad=False)]
    return pooled


def kernel(*xs: Tensor, stride: int = 1) -> list[Tensor]:
    return [pooled for x in xs for pooled in ops.pool3x3(x, stride=stride) if pooled is not None]


def tensors(shapes: list[tuple[int, ...]]) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(shape, generator=generator).requires_grad_() for shape in shapes]


def moved(shape: tuple[int, ...]) -> int:
    """Forward: x in; both outputs and a byte of argmax out. Backward: the same the other way round."""
    n, c, h, w = shape
    return 2 * n * c * h * w * (3 * 4 + 1)


def cases(device: str) -> Iterator[Case]:
    for batch in batches(device):
        acceptance = [(batch, 16, 32, 32), (batch, 32, 16, 16), (batch, 64, 8, 8)]
        yield Case(
            op="pool3x3",
            name=f"batch {batch}, three stages of D-DARTS",
            inputs=lambda shapes=acceptance: tensors(shapes),
            reference=eager,
            kernel=kernel,
            bytes=sum(map(moved, acceptance)),
            backward=True,
            targets={"eager": 4, "eager channels-last": 1.5},
        )
        for space in ("D-DARTS", "DARTOpti", "NAS-Bench-201"):
            for channels, size in SHAPES[space]:
                shape = (batch, channels, size, size)
                yield Case(
                    op="pool3x3",
                    name=f"{space} {list(shape)}",
                    inputs=lambda shape=shape: tensors([shape]),
                    reference=eager,
                    kernel=kernel,
                    bytes=moved(shape),
                    backward=True,
                )

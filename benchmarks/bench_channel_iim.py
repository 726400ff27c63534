"""``channel_iim`` against the published code's formula: the mean over C, H and W of 3(x - mu)^2 / s^6."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from ddarts_ext import ops
from ddarts_ext.benchmark import SHAPES, Case, batches


def published(maps: list[Tensor]) -> Tensor:
    """The formula as published, map by map, on maps that are normalised already."""
    rows = []
    for x in maps:
        mean, std = x.mean(1, keepdim=True), x.std(1, keepdim=True)
        rows.append((3 * (x - mean) ** 2 / std**6).mean((1, 2, 3)))
    return torch.stack(rows)


def normalized(maps: list[Tensor], mean: Tensor, rstd: Tensor) -> Tensor:
    """The same on raw maps: what one needs where the node sum keeps nothing normalised."""
    shape = (1, -1, 1, 1)
    return published([(x - mean[0, k].view(shape)) * rstd[0, k].view(shape) for k, x in enumerate(maps)])


def cases(device: str) -> Iterator[Case]:
    for batch in batches(device):
        for space, ops_per_edge in (("D-DARTS", 7), ("NAS-Bench-201", 5), ("DARTOpti", 12)):
            for channels, size in SHAPES[space]:
                shape, count = (batch, channels, size, size), ops_per_edge

                def maps(shape: tuple[int, ...] = shape, count: int = count) -> list[Tensor]:
                    generator = torch.Generator().manual_seed(0)
                    return [torch.randn(shape, generator=generator) for _ in range(count)]

                def with_statistics(
                    shape: tuple[int, ...] = shape, count: int = count
                ) -> tuple[list[Tensor], Tensor, Tensor]:
                    generator = torch.Generator().manual_seed(0)
                    raw = [3 + 2 * torch.randn(shape, generator=generator) for _ in range(count)]
                    mean = torch.stack([x.mean((0, 2, 3)) for x in raw])
                    rstd = torch.stack([x.var((0, 2, 3), unbiased=False).add(1e-5).rsqrt() for x in raw])
                    return raw, mean[None], rstd[None]

                read = count * batch * channels * size * size * 4
                name = f"{space} K={count} {list(shape)}"
                yield Case(
                    op="channel_iim",
                    name=f"{name} normalised",
                    inputs=lambda maps=maps: [maps()],
                    reference=published,
                    kernel=lambda maps: ops.channel_iim(maps),
                    bytes=read,
                    tolerance=1e-3,
                    targets={
                        "eager": 5,
                        "eager channels-last": 5,
                        "eager / kernel": 5,
                        "eager channels-last / kernel": 5,
                    },
                )
                if space == "D-DARTS":
                    yield Case(
                        op="channel_iim",
                        name=f"{name} raw",
                        inputs=with_statistics,
                        reference=normalized,
                        kernel=lambda maps, mean, rstd: ops.channel_iim(maps, mean=mean, rstd=rstd),
                        bytes=read,
                        tolerance=1e-3,
                    )

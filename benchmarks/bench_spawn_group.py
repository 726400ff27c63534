"""``spawn_group`` as the masked pass uses it: N = 8 cells, a group joins after cell 3 (four copies of its input)."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from ddarts_ext import ops
from ddarts_ext.benchmark import SHAPES, Case, batches

COPIES = 4
GROUPS = 4


def cases(device: str) -> Iterator[Case]:
    for batch in batches(device):
        for channels, size in SHAPES["D-DARTS"]:
            for stride in (1, 2):

                def inputs(
                    batch: int = batch, channels: int = channels, size: int = size, stride: int = stride
                ) -> tuple[Tensor, Tensor]:
                    generator = torch.Generator().manual_seed(0)
                    small = size // stride
                    groups = torch.randn(GROUPS * batch, COPIES * channels, small, small, generator=generator)
                    source = torch.randn(batch, channels, size, size, generator=generator)
                    return groups.requires_grad_(), source.requires_grad_()

                def eager(groups: Tensor, source: Tensor, stride: int = stride) -> Tensor:
                    return torch.cat([groups, source[:, :, ::stride, ::stride].repeat(1, COPIES, 1, 1)])

                def kernel(groups: Tensor, source: Tensor, stride: int = stride) -> Tensor:
                    return ops.spawn_group(groups, source, copies=COPIES, stride=stride)

                source, spawned = batch * channels * size * size, batch * channels * size * size * COPIES // stride**2
                read = 2 * GROUPS * spawned + source // stride**2 + spawned
                yield Case(
                    op="spawn_group",
                    name=f"{[batch, channels, size, size]} stride {stride}, {GROUPS} groups before",
                    inputs=inputs,
                    reference=eager,
                    kernel=kernel,
                    bytes=4 * (read + spawned + source),
                    backward=True,
                )

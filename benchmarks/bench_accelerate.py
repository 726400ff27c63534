"""``ddarts_ext.accelerate`` on other people's code: training steps of the DARTS supernet in plain PyTorch.

The supernet is ``eager_supernet.py`` (8 cells, C=16). Logits and gradients of both are compared first.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from ddarts_ext import accelerate
from ddarts_ext.acceleration.bench_module import Workload, rows_of
from ddarts_ext.benchmark import Row, batches, neighbour

TARGETS = {"": {"eager": 6.0}, " channels-last": {"eager channels-last": 2.5}}  # on a CPU


def inputs(size: int, device: str) -> tuple[Tensor, Tensor]:
    """Images and the weights [cells, edges, ops] of all ops."""
    generator = torch.Generator().manual_seed(1)
    images = torch.randn(size, 3, 32, 32, generator=generator)
    return images.to(device), torch.randn(8, 14, 7, generator=generator).sigmoid().to(device)


def measure(device: str, *, seconds: float = 1.0, **_: object) -> list[Row]:
    """Rows of both layouts, before and after."""
    torch.manual_seed(0)
    before: nn.Module = neighbour(__file__, "eager_supernet").EagerSupernet().to(device)
    after = copy.deepcopy(before)
    accelerate(after, strict=True)
    targets = TARGETS if device == "cpu" else {}
    rows = []
    for size in batches(device):
        workload = Workload("accelerate", f"DARTS 8 cells C=16 [{size},3,32,32]", before, after, inputs(size, device))
        rows += [row for row in rows_of(workload, device, seconds, targets) if row.case.endswith("training step")]
    return rows

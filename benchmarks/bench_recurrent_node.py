"""``recurrent_node`` as the recurrent search calls it: a node of 1, 4 and 8 predecessors, batch 256, hidden 300."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from ddarts_ext import ops
from ddarts_ext.benchmark import Case

BATCH, HIDDEN = 256, 300
FUNCTIONS = {"tanh": torch.tanh, "relu": torch.relu, "sigmoid": torch.sigmoid, "identity": lambda h: h}


def eager(states: list[Tensor], gates: list[Tensor], weights: Tensor) -> Tensor:
    """The published code's loop over activations, with all predecessors stacked."""
    stacked = torch.stack(states)
    carry, hidden = torch.stack(gates).chunk(2, -1)
    carry = carry.sigmoid()
    total = torch.zeros_like(states[0])
    for k, function in enumerate(FUNCTIONS.values()):
        total = total + (weights[:, k, None, None] * (stacked + carry * (function(hidden) - stacked))).sum(0)
    return total


def cases(device: str) -> Iterator[Case]:
    for count in (1, 4, 8):

        def inputs(count: int = count) -> tuple[list[Tensor], list[Tensor], Tensor]:
            generator = torch.Generator().manual_seed(0)
            states = [torch.randn(BATCH, HIDDEN, generator=generator).requires_grad_() for _ in range(count)]
            gates = [torch.randn(BATCH, 2 * HIDDEN, generator=generator).requires_grad_() for _ in range(count)]
            return states, gates, torch.rand(count, 4, generator=generator).requires_grad_()

        values = BATCH * HIDDEN
        yield Case(
            op="recurrent_node",
            name=f"{[BATCH, HIDDEN]}, {count} predecessors",
            inputs=inputs,
            reference=eager,
            kernel=ops.recurrent_node,
            bytes=4 * values * (3 * count + 1 + 3 * count + 1 + 3 * count),
            backward=True,
            targets={"eager": 3.0},
        )

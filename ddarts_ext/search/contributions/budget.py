"""How much memory the contributions of all cells may take: what was said, or what the device has."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ddarts_ext.nn.memory import StepMemory

_SHARE = 0.7
"""Of the free memory: the rest is for what is estimated wrongly, and for what others take meanwhile."""


@dataclass(frozen=True)
class Budget:
    """memory: of the ablated groups, in units of the activations of one plain step. keep: whether the graph of the
    whole network, one unit, is kept beside them. See :func:`.marginal.contributions`."""

    memory: float = 1.0
    keep: bool = False

    @property
    def units(self) -> float:
        """Plain steps that all of it takes as much as."""
        return self.memory + self.keep


def budget(
    said: float | None, need: StepMemory, batch: int, cells: int, device: torch.device, available: int
) -> Budget:
    """The budget for ``batch`` images, of ``available`` bytes on ``device``.

    said: ``memory``, which is taken as it is. need: of a plain step. Where nothing was said, a GPU takes what it has,
    up to all groups at once, since each chunk has launches of its own; a CPU, which they cost nothing, takes little.
    """
    if said is not None:
        return Budget(said)
    if device.type != "cuda":
        return Budget()
    units = (_SHARE * available - need.fixed) / (batch * need.per_image)
    # A group that lacks cell i holds the cells after it: together half of the cells that N networks have.
    groups = (cells - 1) / 2
    if units >= 2.0:
        return Budget(min(groups, units - 1), keep=True)
    return Budget(max(1.0, min(groups, units)))

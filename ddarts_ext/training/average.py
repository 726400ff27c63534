"""The exponential average of a network's weights over the steps of its training."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn


class Average:
    """A copy of ``network`` whose weights and statistics follow it: new = d old + (1 - d) current, after every step.

    d is the smaller of ``decay`` and (1 + t) / (10 + t) after t steps, so that the start, which is random, is soon
    forgotten. (torch.optim.swa_utils.AveragedModel asks the device for t in every step, which waits for a GPU.)
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        self.network: Any = copy.deepcopy(network).requires_grad_(False).eval()
        self.decay = decay

    @torch.no_grad()
    def follow(self, network: nn.Module, steps: int) -> None:
        """Take up ``network`` after its step number ``steps``, from 1."""
        weight = 1.0 - min(self.decay, (1 + steps) / (10 + steps))
        ours: list[Tensor] = []
        theirs: list[Tensor] = []
        for mine, current in zip(self.network.state_dict().values(), network.state_dict().values(), strict=True):
            if mine.is_floating_point():
                ours.append(mine)
                theirs.append(current)
            else:
                mine.copy_(current)
        torch._foreach_lerp_(ours, theirs, weight)

"""When one stage of a search ends and the next begins, and which ops stay (P-DARTS, 1904.12760)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ddarts_ext.search.parts.part import Part, Surroundings
from ddarts_ext.search.stages import StagedState
from ddarts_ext.search.state import SearchState


class StagesPart(Part):
    """At the end of every stage but the last, edges keep ``stage_ops`` ops, those of the largest weights, and the next
    stage begins. Records have ``stage`` and ``left`` [rows, E, O], the ops that the epoch began with."""

    def __init__(self, around: Surroundings) -> None:
        self.config = around.config

    def after_epoch(self, state: SearchState, epoch: int, record: dict[str, Any]) -> bool:
        assert isinstance(state, StagedState)
        method, mask = self.config.method, state.mask
        record["stage"], record["left"] = state.stage, mask.int().tolist()
        stage, number, epochs = method.stages.place(epoch, method.epochs)
        if number + 1 == epochs and stage + 1 < method.stages.count:
            weights = state.architecture.op_weights().double().cpu()
            state.enter(stage + 1, largest(weights, mask, method.stages.stage_ops[stage]))
        return False


def largest(weights: Tensor, mask: Tensor, count: int) -> Tensor:
    """The mask [rows, E, O] of the ``count`` ops of every edge that weigh most, of those in ``mask``; of equal ones the
    first."""
    order = weights.masked_fill(~mask, -1.0).argsort(dim=-1, descending=True, stable=True)[..., :count]
    return torch.zeros_like(mask).scatter(-1, order, True) & mask

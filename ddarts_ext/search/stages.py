"""A search in stages, in each of which the supernet is deeper and has fewer ops on an edge (P-DARTS, 1904.12760)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor

from ddarts_ext.data import Dataset
from ddarts_ext.search.settings import SearchSettings
from ddarts_ext.search.start import initial_state
from ddarts_ext.search.state import Kept, Optimizers, SearchState


@dataclass
class StagedState(SearchState):
    """The state of a search in stages. stage: from 0. build: the state in which a stage begins."""

    stage: int = 0
    build: Callable[[int], SearchState] | None = None

    def enter(self, stage: int, mask: Tensor) -> None:
        """Begin a stage with the ops in ``mask`` [rows, E, O]: another network, with alphas and optimisers of its own.
        The order of images and the draws go on."""
        assert self.build is not None
        fresh = self.build(stage)
        for name in ("net", "architecture", "weight_optimizer", "alpha_optimizer", "strengths"):
            setattr(self, name, getattr(fresh, name))
        self.stage = stage
        self.held.clear()
        self.shrink(mask)

    def checkpoint(self) -> dict[str, Any]:
        return {**super().checkpoint(), "stage": self.stage}

    def restore(self, checkpoint: dict[str, Any], history: list[dict[str, Any]]) -> None:
        """The network takes the depth it had before it takes the weights."""
        if checkpoint["stage"] != self.stage:
            self.enter(int(checkpoint["stage"]), checkpoint["mask"])
        super().restore(checkpoint, history)


def initial_staged_state(
    settings: SearchSettings,
    dataset: Dataset,
    device: torch.device,
    parts: tuple[Kept, ...] = (),
    own: Optimizers | None = None,
) -> StagedState:
    """The start of the first stage."""

    def build(stage: int) -> SearchState:
        return initial_state(settings.in_stage(stage), dataset, device, parts, own)

    first = build(0)
    return StagedState(**{item.name: getattr(first, item.name) for item in fields(SearchState)}, build=build)

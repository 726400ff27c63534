"""A search that shrinks its supernet (IS-DARTS, 2312.12648)."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from ddarts_ext.data.batches import in_rows
from ddarts_ext.genotype import discretize
from ddarts_ext.search.parts import Part, limit_of
from ddarts_ext.search.result import Reading, SearchResult
from ddarts_ext.search.shrinking.masks import initial_shrink_state
from ddarts_ext.search.shrinking.part import ShrinkingPart
from ddarts_ext.search.shrinking.steps import Shrinking, finished
from ddarts_ext.search.state import SearchState
from ddarts_ext.search.strategy import Strategy


class ShrinkingStrategy(Strategy):
    """All images train the weights, and ops are removed between epochs; there are no alphas, unless ``shrink_by`` asks
    for them."""

    # Steps of shrinking are spread over the epochs: with more of them those taken would have come elsewhere.
    more_epochs = False

    @property
    def how(self) -> Shrinking:
        assert self.config.method.shrinking is not None
        return self.config.method.shrinking

    @property
    def by_alphas(self) -> bool:
        return self.how.shrink_by == "alphas"

    def parts(self) -> Sequence[Part]:
        return (ShrinkingPart(self.how, self.config, self.task.dataset, self.task.order, self.autocast),)

    @functools.cached_property
    def divided(self) -> tuple[Tensor, Tensor]:
        """Without alphas all images train the weights, and none is left to judge on."""
        if self.by_alphas:
            return super().divided
        return self.task.order, torch.empty(0, dtype=torch.long)

    def initial(self, parts: tuple[Part, ...]) -> SearchState:
        return initial_shrink_state(self.config, self.task.dataset, self.task.device, parts, self.task.optimizers)

    def moves_alphas(self, epoch: int) -> bool:
        return self.by_alphas and super().moves_alphas(epoch)

    def rows(self, state: SearchState) -> list[Tensor]:
        if self.how.shuffle:
            return super().rows(state)
        if state.epoch == 0:
            self.task.say("search: shuffle=false shows the images in the order in which their source lists them")
        return in_rows(self.divided[0].sort().values, self.config.method.batch)

    def gap(self, state: SearchState, result: SearchResult) -> bool:
        """None: nothing is discretised, what is left of the supernet is the architecture."""
        return False

    def result(self, state: SearchState) -> SearchResult:
        """The ops that are left."""
        if not finished(state.mask, state.space):
            raise ValueError(f"search: epochs must run to the end of the shrinking, got {state.epoch} of them")
        architecture, every = state.architecture, state.space.selection == "every_edge"
        genotype = discretize(
            state.mask.double(),
            state.space,
            "darts" if every else "complete",
            seq=architecture.owner,
            reductions=state.net.reductions if self.config.reductions is not None else None,
        )
        if every:
            # All cells are one: the genotype of this space is that of a cell, whatever the depth of the network.
            genotype = replace(genotype, seq=(0,))
        limit = limit_of(state.parts)
        cost = None if limit is None else limit.judged(genotype)
        reading = Reading(genotype, "shrinking", "", {"shrinking": genotype}, cost)
        found = self.outcome(reading, state.history, architecture.by_cell(architecture.table.detach()).cpu())
        return replace(found, mask=state.mask[list(architecture.owner)])

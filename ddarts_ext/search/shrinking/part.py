"""Between the epochs of a search: take the measure of every op, and shrink the supernet when it is time (IS-DARTS)."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor

from ddarts_ext.data import Dataset
from ddarts_ext.nn.count import count_multiply_adds, count_parameters
from ddarts_ext.runs.device import synchronize
from ddarts_ext.runs.ranks import current
from ddarts_ext.search.parts.budget import limit_of
from ddarts_ext.search.parts.part import Part
from ddarts_ext.search.settings import SearchSettings
from ddarts_ext.search.shrinking.masks import MaskedArchitecture
from ddarts_ext.search.shrinking.measure import average, badness, growing, measured
from ddarts_ext.search.shrinking.steps import Shrinking, shrink, shrink_epochs
from ddarts_ext.search.state import SearchState


class ShrinkingPart(Part):
    """Adds to every record ``mask`` [rows, E, O], the ops that the epoch began with, the network's ``parameters`` and
    ``multiply_adds``; ``scores`` [rows, E, O] where they were taken (null where the op was gone; +inf for ``none``)
    with their ``measure_seconds``; and after a step ``removed``, what went, as [row, edge, op].

    Before the first step also ``growing``: the scores over ``samples`` of the first images.
    """

    def __init__(
        self,
        how: Shrinking,
        settings: SearchSettings,
        dataset: Dataset,
        order: Tensor,
        autocast: Callable[[], AbstractContextManager[object]],
    ) -> None:
        self.how, self.config, self.dataset, self.autocast = how, settings, dataset, autocast
        self.when = shrink_epochs(settings.method.epochs, how.shrink_steps, how.shrink_interval)
        # The images that are measured are the same all through a run, so that epochs can be compared.
        generator = torch.Generator().manual_seed(settings.seed + 2)
        self.order = order[torch.randperm(len(order), generator=generator)]
        self._size: tuple[int, int] | None = None

    def after_epoch(self, state: SearchState, epoch: int, record: dict[str, Any]) -> bool:
        if not isinstance(state.architecture, MaskedArchitecture):
            kind = type(state.architecture).__name__
            raise TypeError(f"ShrinkingPart: state must be of a search that shrinks, got one with {kind}")
        number, mask = epoch + 1, state.mask
        record["mask"] = mask.int().tolist()
        record["parameters"], record["multiply_adds"] = self._counted(state)
        shrinks = number in self.when
        bad: Tensor | None = None
        if self.how.shrink_by == "alphas":
            bad = self._alphas(state, record)
        else:
            for name in ("alphas", "alpha_lr"):
                record.pop(name, None)
            every = self.how.measure_every
            if shrinks or (every and number % every == 0):
                bad = self._measure(state, record)
            if number == self.when[0] and self.how.measure_curve:
                self._grow(state, record)
        if shrinks and bad is not None:
            left, limit = len(self.when) - self.when.index(number), limit_of(state.parts)
            costs = None if limit is None else limit.costs.table
            after = shrink(mask, bad, state.space, left, costs=costs, tolerance=self.config.budget_ties)
            record["removed"] = (mask & ~after).nonzero().tolist()
            state.shrink(after)
            self._size = None
        return False

    def _measure(self, state: SearchState, record: dict[str, Any]) -> Tensor:
        synchronize(state.architecture.table.device)
        began = time.perf_counter()
        # All ranks measure the same images, and must shrink by the same scores.
        (scores,) = current().average([average(self._tables(state, self.how.measure_samples)).cpu()])
        record["measure_seconds"] = round(time.perf_counter() - began, 4)
        record["scores"] = _masked(scores, state.mask)
        return badness(scores, self.how.measure_form)

    def _grow(self, state: SearchState, record: dict[str, Any]) -> None:
        began = time.perf_counter()
        sizes, scores = growing(self._tables(state, self.how.measure_curve))
        record["growing"] = {"samples": sizes, "scores": [_masked(s, state.mask) for s in scores.cpu()]}
        record["measure_seconds"] += round(time.perf_counter() - began, 4)

    def _alphas(self, state: SearchState, record: dict[str, Any]) -> Tensor:
        """Softmax of the alphas: the smallest go first, but ``none`` before all where no architecture may hold it."""
        weights = state.architecture.op_weights().double().cpu()
        record["scores"] = _masked(weights, state.mask)
        bad = -weights
        if state.space.selection != "every_edge" and "none" in state.space.ops:
            bad[..., state.space.op_index("none")] = torch.inf
        return bad

    def _tables(self, state: SearchState, samples: int) -> Iterator[Tensor]:
        return measured(
            state.net,
            state.architecture.weights().detach(),
            self._images(state, samples),
            state.architecture.owner,
            form=self.how.measure_form,
            autocast=self.autocast,
        )

    def _images(self, state: SearchState, samples: int) -> Iterator[Tensor]:
        """So many images, in batches of nearly equal size, as the norms in cells use the statistics of each batch."""
        chosen = self.order[: samples or None]
        for rows in chosen.chunk(-(-len(chosen) // self.config.method.batch)):
            for images, _ in self.dataset.train.batches(rows[None]):
                if samples:
                    yield self.dataset.normalise(images)
                else:
                    yield self.dataset.augment(images, self.config.augmentation, state.augmentation)

    def _counted(self, state: SearchState) -> tuple[int, int]:
        """Parameters and multiply-adds of what is left of the network."""
        if self._size is None:
            image = (self.dataset.channels, *self.dataset.size)
            adds = count_multiply_adds(state.net, image, state.architecture.weights().detach())
            self._size = count_parameters(state.net), adds.convolutions
        return self._size


def _masked(scores: Tensor, mask: Tensor) -> list[Any]:
    """Nested lists, None where the mask is false."""
    pairs = zip(scores.flatten(0, 1).tolist(), mask.flatten(0, 1).tolist(), strict=True)
    edges = [[value if left else None for value, left in zip(*pair, strict=True)] for pair in pairs]
    return [edges[i : i + mask.shape[1]] for i in range(0, len(edges), mask.shape[1])]

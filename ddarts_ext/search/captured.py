"""The iterations of an epoch as CUDA graphs: the architecture step is one, the weight step another."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import torch
from torch import Tensor
from torch.optim import Optimizer

from ddarts_ext.data import Dataset
from ddarts_ext.data.batches import skipping
from ddarts_ext.data.captured import CapturedSteps, why_no_batches
from ddarts_ext.data.static import Held
from ddarts_ext.runs.sums import Sums
from ddarts_ext.search.iterations import Iterations
from ddarts_ext.search.settings import SearchSettings
from ddarts_ext.search.step import Stepper


def why_not(config: SearchSettings, dataset: Dataset, device: torch.device, parts: Sequence[object]) -> str | None:
    """What keeps the steps of a search from being captured, None where nothing does. parts: those of the caller."""
    architect = config.method.architect
    reasons = {
        "parts that were given may change the network": bool(parts),
        "alphas move by the second order": architect.order != 1,
        "gradients stay between the steps (reference_accumulate)": architect.reference_accumulate,
        "alphas move by the images of the weights (alpha_images)": architect.alpha_images != "held_out",
        "alphas move in some of the steps (alpha_every)": architect.alpha_every != 1,
    }
    batches = why_no_batches(dataset, device, config.augmentation.autoaugment)
    return batches or next((reason for reason, holds in reasons.items() if holds), None)


class CapturedIterations(CapturedSteps, Iterations):
    """Iterations whose steps find their batches by themselves, in tables on the device, and are replayed.

    Results are those of :class:`Iterations`: the same images go through the same draws. A step is captured for every
    size of batch and for every form that it takes (with and without new contributions or the zero-one loss), and
    again once the network has other tensors.
    failed: is told why a step could not be captured; all then run as Python does.
    """

    def __init__(
        self, stepper: Stepper, dataset: Dataset, config: SearchSettings, failed: Callable[[Exception], None]
    ) -> None:
        Iterations.__init__(self, replace(stepper, chosen_alone=False), dataset, config)
        self._train: dict[int, Held] = {}
        self._judged: Sums | None = None
        CapturedSteps.__init__(self, dataset, stepper.state.architecture.table.device, failed)

    def generators(self) -> Sequence[torch.Generator]:
        return [self.stepper.state.augmentation]

    def optimizers(self) -> Sequence[Optimizer]:
        return self.stepper.state.weight_optimizer, self.stepper.state.alpha_optimizer

    def tensors(self) -> Sequence[Tensor]:
        state = self.stepper.state
        found = [*state.net.parameters(), *state.net.buffers(), *state.held.values()]
        found += [*state.architecture.parameters(), *state.architecture.buffers()]
        judged = () if self._judged is None else (self._judged,)
        for holder in (state.sums, *judged, *self._train.values()):
            found += holder.tensors()
        return found

    def drop_gradients(self) -> None:
        self.stepper.state.weight_optimizer.zero_grad(set_to_none=True)
        self.stepper.state.architecture.take_gradient(None)

    def epoch(
        self, rows: Sequence[Tensor], valid_rows: Tensor | None, *, number: int, decides: bool
    ) -> Iterator[Callable[[], None]]:
        state = self.stepper.state
        done = state.step
        self._start_all("train", rows, done)
        if valid_rows is not None:
            self._start("valid", valid_rows, done)
        self._forget_what_moved()
        valid = 0 if valid_rows is None else valid_rows.shape[1]
        for part in skipping(rows, done):
            for _ in range(len(part)):
                yield functools.partial(self._captured, part.shape[1], valid, number + state.step, decides)
        self._remember()

    def _captured(self, size: int, valid: int, number: int, decides: bool) -> None:
        if valid:
            self.architecture_step(size, valid, number, decides)
        self.weight_step(size, drawn=valid > 0)
        self._pace.step()

    def architecture_step(self, size: int, valid: int, number: int, decides: bool) -> None:
        """Draw ``size`` images for the weight step that follows, and move the alphas by the next ``valid`` images."""
        stepper = self.stepper
        form = size, valid, stepper.computes(number), decides and stepper.method.objectives.zero_one_weight > 0
        call = functools.partial(self._architecture, size, valid, number, decides)
        self._run(("architecture", *form), call, stepper.state.sums)

    def weight_step(self, size: int, *, drawn: bool) -> None:
        """Move the weights by ``size`` images: those of the architecture step before, or the next ones."""
        self._run(("weights", size, drawn), functools.partial(self._weights, size, drawn), self.stepper.state.sums)

    def _put(self, size: int) -> None:
        self._train.setdefault(size, Held()).put(*self.prepared(self._tables["train", size].take()))

    def _architecture(self, size: int, valid: int, number: int, decides: bool) -> None:
        # The images of the weight step first: that is the order in which their crops are drawn.
        self._put(size)
        batch = self.prepared(self._tables["valid", valid].take())
        self.stepper.architecture(number, self._train[size].get(), batch, self.stepper.state.sums, decides=decides)

    def _weights(self, size: int, drawn: bool) -> None:
        if not drawn:
            self._put(size)
        self.stepper.weights(self._train[size].get(), self.stepper.state.sums)
        # Left for later, they would hold memory of all graphs.
        self.stepper.state.weight_optimizer.zero_grad(set_to_none=True)

    @torch.no_grad()
    def judge(self, part: Tensor, sums: Sums, weights: Tensor | None = None) -> None:
        if weights is not None:
            super().judge(part, sums, weights)
            return
        self._judged = sums
        by_size: dict[int, list[Tensor]] = {}
        for row in self.judged(part):
            by_size.setdefault(row.shape[1], []).append(row)
        for size, found in by_size.items():
            self._start("judged", torch.cat(found), 0)
            for _ in found:
                self._run(("judged", size), functools.partial(self._judge_next, size, sums), sums)
                self._pace.step()
        self._remember()

    def _judge_next(self, size: int, sums: Sums) -> None:
        self._judge(self._tables["judged", size].take(), self.stepper.state.architecture.weights(), sums)

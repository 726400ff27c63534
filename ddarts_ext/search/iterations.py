"""The iterations of an epoch, one after the other, and judging: batches are made and steps taken as Python runs."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from ddarts_ext.data import Dataset
from ddarts_ext.data.batches import in_order, judged_together, skipping
from ddarts_ext.nn.forward_pass import Pass
from ddarts_ext.runs.sums import Sums
from ddarts_ext.search.settings import SearchSettings
from ddarts_ext.search.step import Batch, Stepper


class Iterations:
    """Feeds a stepper from a data set, which lies on the stepper's device."""

    def __init__(self, stepper: Stepper, dataset: Dataset, config: SearchSettings) -> None:
        self.stepper, self.dataset, self.config = stepper, dataset, config

    def epoch(
        self, rows: Sequence[Tensor], valid_rows: Tensor | None, *, number: int, decides: bool
    ) -> Iterator[Callable[[], None]]:
        """A call for each iteration of an epoch that the state has not finished.

        rows: the epoch's batches of images that move the weights, see :func:`.permuted`. valid_rows [S, B]: those that
        move the alphas, None where they rest. Of several ranks both are the part of this one. number: of the epoch's
        first step, from the start of the search. decides: whether the zero-one loss has joined in.
        """
        split, done = self.dataset.train, self.stepper.state.step
        same = valid_rows is not None and self.stepper.method.architect.alpha_images == "training"
        valid = None if valid_rows is None or same else split.batches(valid_rows[done:])
        numbers = itertools.count(number + done)
        for part in skipping(rows, done):
            for batch in split.batches(part):
                # Read before the step begins, in which nothing may go wrong: a file may be broken.
                judging = next(valid) if valid is not None else batch if same else None
                yield functools.partial(self._iteration, batch, judging, next(numbers), decides)

    def _iteration(self, batch: Batch, judging: Batch | None, number: int, decides: bool) -> None:
        with self.stepper.ranks.sharing():
            train, sums = self.prepared(batch), self.stepper.state.sums
            if judging is not None and number % self.stepper.method.architect.alpha_every == 0:
                valid = train if judging is batch else self.prepared(judging)
                self.stepper.architecture(number, train, valid, sums, decides=decides)
            self.stepper.weights(train, sums)

    def prepared(self, batch: Batch) -> Batch:
        """A batch as a step takes it: augmented."""
        images, labels = batch
        return self.dataset.augment(images, self.config.augmentation, self.stepper.state.augmentation), labels

    @torch.no_grad()
    def judge(self, part: Tensor, sums: Sums, weights: Tensor | None = None) -> None:
        """Loss and accuracy on the images ``part``, with op weights [cells, E, O], by default those of the alphas."""
        weights = self.stepper.state.architecture.weights() if weights is None else weights
        ranks = self.stepper.ranks
        for rows in self.judged(part):
            for batch in self.dataset.train.batches(ranks.judged(rows)):
                self._judge(batch, weights, sums)
        ranks.add_up(sums)

    def judged(self, part: Tensor) -> list[Tensor]:
        """Batches of nearly equal size: a last one of few images would have statistics of its own."""
        return in_order(part, judged_together(self.config.method.batch, self.dataset.size))

    def _judge(self, batch: Batch, weights: Tensor, sums: Sums) -> None:
        p = Pass(statistics=self.config.judge_statistics)  # type: ignore[arg-type]
        self.stepper.judge((self.dataset.normalise(batch[0]), batch[1]), weights, p, sums)

"""What an epoch of a search on text consists of: segments, one after the other, with the hidden state between them."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from ddarts_ext.data.segments import Segment, in_order
from ddarts_ext.data.text import columns
from ddarts_ext.nn.forward_pass import Pass
from ddarts_ext.runs.sums import Sums
from ddarts_ext.search.settings import SearchSettings
from ddarts_ext.search.step import Batch
from ddarts_ext.search.text.step import MOVED, TRAINED, TextStepper

JUDGED_COLUMNS = 10
"""Columns in which a text is judged, as in the published code; fewer for a text that is too short for them."""


class TextIterations:
    """Feeds a stepper from texts [rows, batch]: of the weights and of the alphas."""

    def __init__(self, stepper: TextStepper, config: SearchSettings, train: Tensor, valid: Tensor) -> None:
        self.stepper, self.config = stepper, config
        self.train, self.valid = train, valid

    def epoch(
        self, segments: Sequence[Segment], moves: bool, *, number: int, decides: bool
    ) -> Iterator[Callable[[], None]]:
        """A call for each segment of an epoch that the state has not finished. moves: whether alphas do. number: of the
        epoch's first step, from the start of the search."""
        state, text = self.stepper.state, self.stepper.method.text
        assert text is not None
        if not state.step:
            for name, words in ((TRAINED, self.train), (MOVED, self.valid)):
                state.hold(name, self.stepper.net.start(words.shape[1]))
        numbers = itertools.count(number + state.step)
        same = self.stepper.method.architect.alpha_images == "training"
        for segment in segments[state.step :]:
            train = segment.of(self.train)
            judging = None
            if moves:
                judging = train if same else self._judging(segment, text.bptt)
            yield functools.partial(self._iteration, train, judging, next(numbers), decides)

    def _judging(self, segment: Segment, bptt: int) -> Batch:
        """The segment of the validation text that goes with one of the training text; it begins again at its end."""
        rows = len(self.valid)
        start = segment.start % (rows - 1)
        return Segment(start, min(bptt, rows - 1 - start)).of(self.valid)

    def _iteration(self, train: Batch, judging: Batch | None, number: int, decides: bool) -> None:
        sums = self.stepper.state.sums
        if judging is not None and number % self.stepper.method.architect.alpha_every == 0:
            self.stepper.architecture(number, train, judging, sums, decides=decides)
        self.stepper.weights(train, sums)

    @torch.no_grad()
    def judge(self, text: Tensor, sums: Sums, weights: Tensor | None = None) -> None:
        """Loss of every word of a text, with op weights [1, E, O], by default those of the alphas."""
        stepper, how = self.stepper, self.stepper.method.text
        assert how is not None
        weights = stepper.state.architecture.weights() if weights is None else weights
        p = Pass(statistics=self.config.judge_statistics)  # type: ignore[arg-type]
        words = columns(text, min(JUDGED_COLUMNS, len(text) // 2))
        hidden = stepper.net.start(words.shape[1])
        for segment in in_order(len(words), how.bptt):
            given, targets = segment.of(words)
            with stepper.autocast():
                out = stepper.net(given, hidden, weights, p)
                loss, _ = out.loss(targets)
            hidden = out.hidden
            sums.add("valid_loss", loss * targets.numel(), targets.numel())

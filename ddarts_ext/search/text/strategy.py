"""A search on text: the weights move by the training text, the alphas by the validation text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ddarts_ext.data.segments import drawn
from ddarts_ext.data.text import Corpus, columns, load_text
from ddarts_ext.runs.objective import Objective
from ddarts_ext.runs.ranks import Ranks
from ddarts_ext.search.methods import Method
from ddarts_ext.search.parts import Part
from ddarts_ext.search.settings import SearchSettings
from ddarts_ext.search.state import SearchState
from ddarts_ext.search.strategy import Strategy
from ddarts_ext.search.text.iterations import TextIterations
from ddarts_ext.search.text.settings import resolve
from ddarts_ext.search.text.step import TextStepper


class TextStrategy(Strategy):
    """What segments of a text, the loss of a language model and its perplexity make different."""

    usual = "darts"
    of_images = False

    @staticmethod
    def check_own(given: Mapping[str, Any]) -> None:
        for name, value in given.items():
            if value is not None:
                raise ValueError(f"search: {name} must be left out on text, got {value!r}")

    @staticmethod
    def load(data: Any, settings: dict[str, Any], augment: Any, device: torch.device, ranks: Ranks) -> Any:
        if ranks.several:
            raise ValueError(f"search: data must be images with {ranks.world} ranks, got text: {str(data)[:60]!r}")
        return load_text(data)

    @staticmethod
    def judged_by(dataset: Any, loss: Any, metric: Any, settings: dict[str, Any], device: torch.device) -> Objective:
        """What the language model has a loss of its own for: the next word."""
        found = Objective(metric_name="perplexity", higher_is_better=False)
        settings |= {"loss": found.loss_name, "metric": found.metric_name}
        return found

    @staticmethod
    def resolve(dataset: Any, method: str | Method, device: str, given: Mapping[str, Any]) -> SearchSettings:
        return resolve(dataset, method, device, given)

    @staticmethod
    def ordered(dataset: Any, config: SearchSettings) -> Tensor:
        return torch.empty(0, dtype=torch.long)

    @property
    def corpus(self) -> Corpus:
        corpus: Corpus = self.task.dataset  # type: ignore[assignment]
        return corpus

    @property
    def divided(self) -> tuple[Tensor, Tensor]:
        """The words that move the weights, and those that move the alphas and judge."""
        return self.corpus.train, self.corpus.valid

    def about(self) -> dict[str, Any]:
        return {"text": self.corpus.identity()}

    def announce(self, state: SearchState) -> None:
        corpus = self.corpus
        weights = sum(parameter.numel() for parameter in state.net.parameters())
        if corpus.note:
            self.task.say(f"search: data is {corpus.note}")
        self.task.say(
            f"search: {len(corpus.train):,} {corpus.kind} to train on, {len(corpus.valid):,} to move alphas, a "
            f"vocabulary of {len(corpus.vocabulary):,}; the supernet has {weights:,} weights"
        )

    @property
    def bptt(self) -> int:
        assert self.config.method.text is not None
        return self.config.method.text.bptt

    def steps(self) -> int:
        return max(1, len(self.corpus.train) // self.config.method.batch // self.bptt)

    def batches(self, state: SearchState) -> tuple[Any, Any, int]:
        segments = drawn(len(self.corpus.train) // self.config.method.batch, self.bptt, state.order)
        return segments, True, len(segments)

    def stepper(self, state: SearchState, method: Method) -> TextStepper:
        plain = super().stepper(state, method)
        return TextStepper(plain.state, plain.method, plain.autocast, plain.budget, plain.objective)

    def why_eager(self, parts: Sequence[Part]) -> str | None:
        return "segments of text differ in length"

    def iterations(self, stepper: Any) -> TextIterations:
        batch = self.config.method.batch
        return TextIterations(stepper, self.config, *(columns(words, batch) for words in self.divided))

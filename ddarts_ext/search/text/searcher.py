"""The Searcher on text: the same loop, with what segments, their loss and their result are."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ddarts_ext.data.segments import drawn
from ddarts_ext.data.text import Corpus, columns, is_text, load_text
from ddarts_ext.runs.objective import Objective
from ddarts_ext.runs.sums import Sums
from ddarts_ext.search.decisions import one_hot
from ddarts_ext.search.figures import figures
from ddarts_ext.search.methods import Method
from ddarts_ext.search.result import SearchResult
from ddarts_ext.search.searcher import KINDS, Searcher
from ddarts_ext.search.settings import SearchSettings
from ddarts_ext.search.state import SearchState
from ddarts_ext.search.text.iterations import TextIterations
from ddarts_ext.search.text.settings import resolve
from ddarts_ext.search.text.step import TextStepper


class TextSearcher(Searcher):
    """``Searcher`` for ``data="text:PATH"``: weights move by the training text, alphas by the validation text."""

    dataset: Any  # a Corpus
    _of_images = False

    def _check_own(self, given: Mapping[str, Any]) -> None:
        for name, value in given.items():
            if value is not None:
                raise ValueError(f"search: {name} must be left out on text, got {value!r}")

    def _load(self, data: Any, settings: dict[str, Any], augment: Any) -> Any:
        if self.ranks.several:
            raise ValueError(f"search: data must be images with {self.ranks.world} ranks, got text: {str(data)[:60]!r}")
        return load_text(data)

    def _judged_by(self, dataset: Any, loss: Any, metric: Any, settings: dict[str, Any]) -> Objective:
        """What the language model has a loss of its own for: the next word."""
        found = Objective(metric_name="perplexity", higher_is_better=False)
        settings |= {"loss": found.loss_name, "metric": found.metric_name}
        return found

    def _resolve(self, dataset: Any, method: str | Method, settings: Mapping[str, Any]) -> SearchSettings:
        return resolve(dataset, method, self.device.type, settings)

    def _ordered(self, dataset: Any) -> Tensor:
        return torch.empty(0, dtype=torch.long)

    @property
    def _divided(self) -> tuple[Tensor, Tensor]:
        corpus: Corpus = self.dataset
        return corpus.train, corpus.valid

    def _about(self) -> dict[str, Any]:
        if self.folder is None:
            return {}
        return {**self.config.to_json(), "source": self.source, "text": self.dataset.identity()}

    def _announce(self, state: SearchState) -> None:
        corpus: Corpus = self.dataset
        weights = sum(parameter.numel() for parameter in state.net.parameters())
        if corpus.note:
            self.progress.say(f"search: data is {corpus.note}")
        self.progress.say(
            f"search: {len(corpus.train):,} {corpus.kind} to train on, {len(corpus.valid):,} to move alphas, a "
            f"vocabulary of {len(corpus.vocabulary):,}; the supernet has {weights:,} weights"
        )

    @property
    def _eager(self) -> str | None:
        return "segments of text differ in length"

    def _steps(self, part: Tensor) -> int:
        assert self.config.method.text is not None
        return max(1, len(part) // self.config.method.batch // self.config.method.text.bptt)

    def _stepper(self, state: SearchState, method: Method) -> TextStepper:
        plain = super()._stepper(state, method)
        return TextStepper(plain.state, plain.method, plain.autocast, plain.budget, plain.objective)

    def _iterations(self, stepper: Any) -> Any:
        corpus: Corpus = self.dataset
        batch = self.config.method.batch
        return TextIterations(
            stepper, self.config, columns(corpus.train, batch), columns(corpus.valid, batch), corpus.valid
        )

    def _batches(self, part: Tensor, alpha_part: Tensor, state: SearchState) -> tuple[Any, Any, int]:
        assert self.config.method.text is not None
        segments = drawn(len(part) // self.config.method.batch, self.config.method.text.bptt, state.order)
        return segments, True, len(segments)

    def _judge(self, iterations: Any, alpha_part: Tensor, sums: Sums) -> None:
        iterations.stepper.state.net.eval()
        iterations.judge(sums)

    def _warn(self, record: Mapping[str, Any]) -> None:
        return

    def _gap(self, state: SearchState, result: SearchResult) -> bool:
        """Add to the last record the perplexity of the supernet before and after discretisation, on the same text."""
        record = state.history[-1]
        if "discretisation" in record:
            return False
        iterations = self._iterations(self._stepper(state, self.config.method))
        if "valid" not in record:
            sums = Sums()
            self._judge(iterations, self._divided[1], sums)
            record["valid"] = figures(state, sums, self.objective.metric_name)["valid"]
        state.net.eval()
        sums = Sums()
        iterations.judge(sums, one_hot(result.genotype.cells, state.space).to(state.architecture.table))
        after = float(sums.means()["valid_loss"])  # type: ignore[arg-type]
        record["discretisation"] = {
            "rule": result.rule,
            "before": record["valid"]["perplexity"],
            "after": math.exp(min(after, 700.0)),
            "loss_after": after,
        }
        return True


KINDS.append((is_text, TextSearcher))

"""What a search consists of: who moves weights and who moves alphas, what judges, how steps run, how it is read.

The loop of the :class:`Searcher` is one for all and asks a :class:`Strategy`; this one is that of alphas that move by
gradients, on images. Others differ from it in what they say themselves.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ddarts_ext.data import Augmentation, Dataset, load
from ddarts_ext.data.batches import permuted, redrawn, steps_in
from ddarts_ext.data.identity import identity
from ddarts_ext.data.order import canonical_order, digest, divided
from ddarts_ext.data.own_augment import augmented_by
from ddarts_ext.nn.forward_pass import Pass
from ddarts_ext.nn.memory import StepMemory
from ddarts_ext.runs.device import autocast
from ddarts_ext.runs.objective import Objective, settled
from ddarts_ext.runs.ranks import Ranks
from ddarts_ext.runs.sums import Sums
from ddarts_ext.runs.workers import sharing
from ddarts_ext.search.captured import CapturedIterations, why_not
from ddarts_ext.search.contributions.budget import Budget, budget
from ddarts_ext.search.decisions import one_hot
from ddarts_ext.search.figures import figures
from ddarts_ext.search.iterations import Iterations
from ddarts_ext.search.methods import Method
from ddarts_ext.search.parts import Part, limit_of
from ddarts_ext.search.result import Reading, SearchResult, read_from
from ddarts_ext.search.settings import SearchSettings, resolve
from ddarts_ext.search.stages import initial_staged_state
from ddarts_ext.search.start import initial_state
from ddarts_ext.search.state import Optimizers, SearchState
from ddarts_ext.search.step import Stepper
from ddarts_ext.tables.nasbench201 import NASBench201Table
from ddarts_ext.training.demand import announce

EXACT_HESSIAN = 3.5
"""Memory of the exact second-order step in passes of the network, as measured."""


@dataclass(frozen=True)
class Task:
    """What a strategy works on, once all of it is known. order: the images that the search sees, in an order that does
    not depend on how their source lists them. own: the loss, the metric and the optimiser of the caller, by argument.
    say: shows a line."""

    config: SearchSettings
    dataset: Dataset
    order: Tensor
    device: torch.device
    ranks: Ranks
    objective: Objective
    optimizers: Optimizers
    say: Callable[[str], None]
    table: NASBench201Table | None = None
    folder: Path | None = None
    own: Mapping[str, Any] | None = None


class Strategy:
    """Alphas move by gradients of one part of the images, weights by those of the other (DARTS and its family)."""

    usual = "ddarts"
    """The method where none is named."""
    of_images = True
    more_epochs = True
    """Whether a finished search goes on with more epochs."""

    # Before there is a task.

    @staticmethod
    def check_own(given: Mapping[str, Any]) -> None:
        """Refuse parts of the caller that there is no place for."""

    @staticmethod
    def load(data: Any, settings: dict[str, Any], augment: Any, device: torch.device, ranks: Ranks) -> Dataset:
        """The data; what it says of the settings is put there."""
        dataset = load(data, image_size=settings.get("image_size"))
        if augment is not None:
            dataset = augmented_by("search", dataset, augment, device)
            settings.setdefault("augmentation", Augmentation())
        return dataset

    @staticmethod
    def judged_by(
        dataset: Dataset, loss: Any, metric: Any, settings: dict[str, Any], device: torch.device
    ) -> Objective:
        labels, classes = dataset.train.labels, len(dataset.classes)
        return settled("search", labels, classes, device, settings, loss=loss, metric=metric)

    @staticmethod
    def resolve(dataset: Dataset, method: str | Method, device: str, given: Mapping[str, Any]) -> SearchSettings:
        return resolve(dataset, method, device, given)

    @staticmethod
    def ordered(dataset: Dataset, config: SearchSettings) -> Tensor:
        """The images that the search sees."""
        order = canonical_order(dataset.train)
        if config.search_fraction < 1:
            order = divided(dataset.train.labels, order, config.search_fraction, config.seed)[0]
        return order

    # What there is.

    def __init__(self, task: Task) -> None:
        self.task, self.config = task, task.config
        self.autocast = autocast(task.device, task.config.precision)

    def parts(self) -> Sequence[Part]:
        """What the strategy itself has to do between epochs, before the parts of the method."""
        return ()

    @functools.cached_property
    def divided(self) -> tuple[Tensor, Tensor]:
        """Indices of the images that move the weights, and of those that move the alphas and judge."""
        return divided(self.task.dataset.train.labels, self.task.order, self.config.split, self.config.seed)

    def about(self) -> dict[str, Any]:
        """For config.json beside the settings: what the images are, and which of them move weights and which alphas."""
        dataset = self.task.dataset
        parts = dict(zip(("weights", "alphas"), self.divided, strict=True))
        division = {name: {"images": len(part), "digest": digest(dataset.train, part)} for name, part in parts.items()}
        return {"images": identity(dataset, self.task.order), "division": division}

    def initial(self, parts: tuple[Part, ...]) -> SearchState:
        begin = initial_staged_state if self.config.method.stages.count > 1 else initial_state
        return begin(self.config, self.task.dataset, self.task.device, parts, self.task.optimizers)

    def announce(self, state: SearchState) -> None:
        """Say what the run is and takes, or refuse it, before anything is computed or written."""
        task, method, weights = self.task, self.config.method, state.architecture.weights().detach()
        if self.config.search_fraction < 1:
            task.say(f"search: {len(task.order)} of {len(task.dataset.train)} images are searched on")
        if task.objective.said:
            task.say(f"search: {task.objective.said}")

        def forward(images: Tensor) -> Tensor:
            with self.autocast():
                logits: Tensor = state.net(images, weights, Pass(statistics="batch"))
                return logits

        announce(
            "search",
            task.say,
            task.dataset,
            state.net,
            forward,
            cells=method.cells,
            channels=method.channels,
            batch=method.batch,
            stem=self.config.stem,
            factor=functools.partial(self._memory_factor, state),
            ranks=task.ranks,
        )
        # Chunks of contributions are passes that all ranks make together.
        agreed = task.ranks.from_first(lambda: None if state.budget is None else [*vars(state.budget).values()])
        state.budget = None if agreed is None else Budget(*agreed)

    def _memory_factor(self, state: SearchState, need: StepMemory, available: int) -> float:
        """Memory of a step in passes of the network: ablated groups may take more than the pass itself."""
        method, task = self.config.method, self.task
        least = EXACT_HESSIAN if method.architect.order == 2 and method.architect.hessian == "exact" else 1.0
        if not method.objectives.ablation_weight:
            return least
        batch = min(method.batch, len(task.dataset.train)) // task.ranks.world
        said, before = method.objectives.ablation_memory, state.budget
        chosen = budget(said, need, batch, method.cells, task.device, available // sharing())
        if said is None and before is not None and need.times(before.units).of(batch) <= available:
            chosen = before
        elif before not in (None, chosen):
            task.say("search: contributions take other memory than before: results may differ by rounding")
        state.budget = chosen
        return max(least, chosen.units)

    # An epoch.

    def moves_alphas(self, epoch: int) -> bool:
        """Whether there are architecture steps; with edge weights there are, and alphas that rest have a rate of 0."""
        method = self.config.method
        _, at, _ = method.stages.place(epoch, method.epochs)
        return at >= method.architect.alpha_start or method.edges_move_first

    def steps(self) -> int:
        """Steps of an epoch."""
        return steps_in(len(self.divided[0]), self.config.method.batch, self.task.ranks.world)

    def rows(self, state: SearchState) -> list[Tensor]:
        """The batches of an epoch that move the weights, as :func:`permuted` groups them."""
        return permuted(self.divided[0], self.config.method.batch, state.order)

    def batches(self, state: SearchState) -> tuple[Any, Any, int]:
        """What moves weights and what moves alphas in an epoch, as :meth:`Iterations.epoch` takes it, and its steps."""
        ranks, rows = self.task.ranks, self.rows(state)
        steps = sum(map(len, rows))
        valid_rows = redrawn(self.divided[1], self.config.method.batch, steps, state.order)
        if ranks.several:
            rows = ranks.rows(rows)
            valid_rows = next(iter(ranks.rows([valid_rows[: sum(map(len, rows))]])), valid_rows)
        return rows, valid_rows, steps

    def stepper(self, state: SearchState, method: Method) -> Stepper:
        # On a CPU to read what was drawn waits for nothing; on a GPU it would stop every step.
        alone = method.mixing.draws_one and not method.mixing.compute_unchosen and self.task.device.type == "cpu"
        return Stepper(
            state,
            method,
            self.autocast,
            state.budget or Budget(),
            self.task.objective,
            ranks=self.task.ranks,
            chosen_alone=alone,
        )

    def why_eager(self, parts: Sequence[Part]) -> str | None:
        """What keeps steps from being captured as CUDA graphs, None where nothing does. parts: those of the caller."""
        return why_not(self.config, self.task.dataset, self.task.device, parts)

    def iterations(self, stepper: Stepper) -> Any:
        return Iterations(stepper, self.task.dataset, self.config)

    def captured(self, stepper: Stepper, failed: Callable[[Exception], None]) -> Any:
        return CapturedIterations(stepper, self.task.dataset, self.config, failed)

    def judge(self, iterations: Any, sums: Sums, weights: Tensor | None = None) -> None:
        """Loss and metric of the supernet on what judges, with op weights [cells, E, O], by default the alphas'."""
        if len(self.divided[1]):
            iterations.stepper.state.net.eval()
            iterations.judge(self.divided[1], sums, weights)

    def warning(self, record: Mapping[str, Any]) -> str | None:
        """Says where validation is worse than guessing: the two parts of the images then differ in kind."""
        count = len(self.divided[1])
        if "accuracy" not in record.get("valid", {}) or self.task.dataset.numbers or not count:
            return None
        chance, accuracy = 1 / len(self.task.dataset.classes), record["valid"]["accuracy"]
        if accuracy >= chance - 5 * math.sqrt(chance * (1 - chance) / count):
            return None
        return f"validation accuracy {accuracy:.2%} is far below chance ({chance:.2%}): do labels fit the images?"

    # The end.

    def gap(self, state: SearchState, result: SearchResult) -> bool:
        """Add to the last record the metric of the supernet before and after discretisation, by the same judge.

        After: the ops of the genotype weigh 1, all others 0. True if it was added.
        """
        record, metric = state.history[-1], self.task.objective.metric_name
        if not len(self.divided[1]) or "discretisation" in record:
            return False
        iterations = self.iterations(self.stepper(state, self.config.method))
        if "valid" not in record:
            # A part has ended the search after an epoch that was not judged.
            sums = Sums()
            self.judge(iterations, sums)
            record["valid"] = figures(state, sums, metric)["valid"]
        # A genotype of one cell stands for all of them (NAS-Bench-201).
        chosen = one_hot(result.genotype.cells, state.space).to(state.architecture.table)
        sums = Sums()
        self.judge(iterations, sums, chosen.expand(len(state.architecture.owner), -1, -1))
        after = figures(state, sums, metric)["valid"]
        record["discretisation"] = {
            "rule": result.rule,
            "before": record["valid"][metric],
            "after": after[metric],
            "loss_after": after["loss"],
        }
        return True

    def result(self, state: SearchState) -> SearchResult:
        architecture = state.architecture
        reading = read_from(state, self.config.method.discretisation, limit_of(state.parts))
        if reading.note:
            self.task.say(f"search: {reading.note}; so the genotype is by the rule {reading.rule!r}")
        return self.outcome(reading, state.history, architecture.by_cell(architecture.table.detach()).cpu())

    def outcome(self, reading: Reading, history: list[dict[str, Any]], alphas: Tensor) -> SearchResult:
        task = self.task
        return SearchResult(
            genotype=reading.genotype,
            rule=reading.rule,
            note=reading.note,
            genotypes=reading.all,
            history=history,
            alphas=alphas,
            classes=len(task.dataset.classes),
            in_channels=task.dataset.channels,
            stem=self.config.stem,
            metric=task.objective.metric_name,
            run=task.folder,
            figures=None if task.table is None else task.table[reading.genotype],
            cost=reading.cost,
        )

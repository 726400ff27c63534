"""The search loop: one for all methods."""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from ddarts_ext.data import Augmentation, Dataset, UnreadableImage, load
from ddarts_ext.data.batches import permuted, redrawn, steps_in
from ddarts_ext.data.identity import identity
from ddarts_ext.data.order import canonical_order, digest, divided
from ddarts_ext.data.own_augment import AugmentFunction, augmented_by
from ddarts_ext.genotype import Genotype
from ddarts_ext.genotype.random import random_genotype
from ddarts_ext.nn.forward_pass import Pass
from ddarts_ext.nn.memory import StepMemory
from ddarts_ext.nn.norm import synchronise_norms
from ddarts_ext.runs import interrupts
from ddarts_ext.runs.device import autocast, choose_device, own_state, peak_memory_mib, repeatable, synchronize
from ddarts_ext.runs.folder import RunFolder
from ddarts_ext.runs.graphs import own_stream
from ddarts_ext.runs.keeping import Keeping
from ddarts_ext.runs.loggers import Logger, check_loggers, figures_of
from ddarts_ext.runs.losses import LossFunction, MetricFunction, shown
from ddarts_ext.runs.notebook import default_progress
from ddarts_ext.runs.objective import Objective, settled
from ddarts_ext.runs.optimizers import OptimizerFactory, scale_rates, set_rate, tried
from ddarts_ext.runs.options import takes
from ddarts_ext.runs.own import check_again, named
from ddarts_ext.runs.progress import Progress
from ddarts_ext.runs.ranks import current
from ddarts_ext.runs.schedule import cosine
from ddarts_ext.runs.sums import Sums
from ddarts_ext.runs.workers import sharing
from ddarts_ext.search.architecture import owners
from ddarts_ext.search.baseline import ByTraining, Evaluation, Evaluator, FromTable, evaluated, top
from ddarts_ext.search.baseline import budget as baseline_budget
from ddarts_ext.search.captured import CapturedIterations, why_not
from ddarts_ext.search.contributions.budget import Budget, budget
from ddarts_ext.search.decisions import one_hot
from ddarts_ext.search.figures import figures, line, named_in
from ddarts_ext.search.iterations import Iterations
from ddarts_ext.search.methods import Method
from ddarts_ext.search.parts import PARTS, Part, Surroundings, limit_of
from ddarts_ext.search.result import Reading, SearchResult, read_from
from ddarts_ext.search.settings import MAY_CHANGE, OPTIONS, SearchSettings, resolve
from ddarts_ext.search.stages import initial_staged_state
from ddarts_ext.search.start import initial_state
from ddarts_ext.search.state import Optimizers, SearchState
from ddarts_ext.search.step import Stepper
from ddarts_ext.tables.nasbench201 import Figures, NASBench201Table
from ddarts_ext.training.demand import announce

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from ddarts_ext.search.arguments import MethodName, SearchArguments

EXACT_HESSIAN = 3.5
"""Memory of the exact second-order step in passes of the network, as measured."""


KINDS: list[tuple[Callable[[Any], bool], type[Searcher]]] = []
"""Kinds of Searcher for other data than images, each with what says whether it serves some."""


@takes(OPTIONS)
class Searcher:
    """Searches an architecture on images.

    data: a name or path for :func:`ddarts_ext.data.load`, or a :class:`Dataset`.
    method: ``darts``, ``fairdarts``, ``ddarts``, ``dartopti`` or a :class:`Method`.
    device: ``cpu``, ``cuda``; by default a GPU where there is one. Of several ranks, see :mod:`ddarts_ext.runs.ranks`,
    each takes a GPU of its own, and ``batch`` is that of all together.
    out: folder of the run; without one nothing is written. resume: continue the run in it, if there is one.
    parts: more to run between epochs, beside the method's. progress: what is shown meanwhile, by default a bar in a
    notebook and nothing elsewhere.
    loggers: where figures go after every epoch, see :class:`ddarts_ext.runs.loggers.Logger`.
    loss, metric: names or functions, see :func:`ddarts_ext.runs.objective.objective_of`.
    optimizer: makes the optimiser of the weights from their parameters; its rates fall as those of the method do, from
    what it was made with. ``alpha_optimizer`` may be such a function as well.
    augment: what training images go through instead of crop, flip and cutout, as far as these are not said, see
    :data:`ddarts_ext.data.own_augment.AugmentFunction`.
    arguments: any field of :class:`SearchSettings`; ``space``, ``epochs``, ``cells``, ``channels`` and ``batch`` of the
    search, by default the method's, or smaller ones for small images; any field of :class:`Objectives`,
    :class:`Architect`, :class:`Weights`, :class:`Discretisation` or :class:`Distance`, such as ``weight_lr=0.025``.
    ``help(Searcher)`` shows them all.

    Raises ValueError, TypeError or FileNotFoundError for wrong input, before anything is computed or written.
    """

    _shrinks = False
    _of_images = True

    def __new__(cls, data: Any = "digits", *arguments: Any, **settings: Any) -> Searcher:
        """Of the kind of Searcher that serves such data: on text :class:`.text.searcher.TextSearcher`."""
        if cls is Searcher:
            for serves, kind in KINDS:
                if serves(data):
                    return object.__new__(kind)
        return object.__new__(cls)

    def __init__(
        self,
        data: Any = "digits",
        method: MethodName | Method = "ddarts",
        *,
        device: str | torch.device | None = None,
        out: str | Path | None = None,
        resume: bool = False,
        parts: Sequence[Part] = (),
        progress: Progress | None = None,
        loggers: Sequence[Logger] = (),
        loss: str | LossFunction | None = None,
        metric: str | MetricFunction | None = None,
        optimizer: OptimizerFactory | None = None,
        augment: AugmentFunction | None = None,
        table: str | Path | None = None,
        **arguments: Unpack[SearchArguments],
    ) -> None:
        settings: dict[str, Any] = {**arguments, "table": None if table is None else str(table)}
        self.ranks = current()
        self.device = choose_device(device, "search")
        if resume and out is None:
            raise ValueError("search: out must be the folder of the run to resume, got None")
        alphas = settings.pop("alpha_optimizer") if callable(settings.get("alpha_optimizer")) else None
        handed = {"loss": loss, "metric": metric, "optimizer": optimizer, "augment": augment}
        own = named("search", {**handed, "alpha_optimizer": alphas})
        self.folder = None if out is None else RunFolder(out, "search")
        check_again("search", self.folder, own, resume=resume)
        self._check_method(method, resume)
        self._check_own(handed)
        dataset = self._load(data, settings, augment)
        self.objective = self._judged_by(dataset, loss, metric, settings)
        self.config: SearchSettings = replace(self._resolve(dataset, method, settings), own=own)
        self.ranks.check_batch("search", self.config.method.batch, self.config.method.batch)
        if self.ranks.several and self.config.method.random and self.config.method.baseline.evaluates:
            raise ValueError(
                f"search: method must be one of a supernet with {self.ranks.world} ranks, got "
                f"{self.config.method.name}, which evaluates one architecture after the other"
            )
        self._optimizers = Optimizers(optimizer, alphas)
        self._own = {name: handed[name] for name in ("loss", "metric", "optimizer")}
        self._check_optimizers(settings)
        if (self.config.method.shrinking is not None) != self._shrinks:
            other = "Searcher" if self._shrinks else "Shrinker"
            raise ValueError(f"search: method {self.config.method.name} must be searched by {other}")
        self.table = None if self.config.table is None else NASBench201Table.load(self.config.table)
        self.source = str(data) if isinstance(data, (str, Path)) else dataset.name
        self.order = self._ordered(dataset)
        if self.config.search_fraction < 1:
            labels = dataset.train.labels
            self.order = divided(labels, self.order, self.config.search_fraction, self.config.seed)[0]
        self.dataset = dataset.to(self.device)
        self.resume = resume
        self.progress = (progress or default_progress()) if self.ranks.first else Progress()
        self.loggers = check_loggers("search", loggers) if self.ranks.first else ()
        self.keeping = Keeping(
            "search",
            self.folder,
            self.progress.say,
            changeable=MAY_CHANGE,
            # Steps of shrinking are spread over the epochs: with more of them those taken would have come elsewhere.
            epochs=None if self._shrinks or self.config.method.removes else "method.epochs",
            ranks=self.ranks,
        )
        self._given = tuple(parts)
        runs = autocast(self.device, self.config.precision)
        around = Surroundings(self.config, self.dataset, lambda: self._divided[1], runs, self.objective)
        self._parts = tuple(PARTS[name](around) for name in self.config.method.parts) + self._given
        if self.config.graphs == "on" and self._eager is not None:
            raise ValueError(f"search: graphs must be auto or off, as {self._eager}, got 'on'")

    def _check_own(self, given: Mapping[str, Any]) -> None:
        """Refuse parts of the caller that there is no place for."""

    def _load(self, data: Any, settings: dict[str, Any], augment: AugmentFunction | None) -> Dataset:
        dataset = load(data, image_size=settings.get("image_size"))
        if augment is not None:
            dataset = augmented_by("search", dataset, augment, self.device)
            settings.setdefault("augmentation", Augmentation())
        return dataset

    def _judged_by(self, dataset: Dataset, loss: Any, metric: Any, settings: dict[str, Any]) -> Objective:
        return settled(
            "search", dataset.train.labels, len(dataset.classes), self.device, settings, loss=loss, metric=metric
        )

    def _resolve(self, dataset: Dataset, method: str | Method, settings: Mapping[str, Any]) -> SearchSettings:
        return resolve(dataset, method, self.device.type, settings)

    def _ordered(self, dataset: Dataset) -> torch.Tensor:
        return canonical_order(dataset.train)

    def _check_method(self, method: str | Method, resume: bool) -> None:
        """A run goes on by its method: said first, as most settings follow from it."""
        if self.folder is None or not resume or not self.folder.config_file.is_file():
            return
        config = self.folder.config()
        before = config["method"].get("name") if isinstance(config.get("method"), dict) else None
        now = method.name if isinstance(method, Method) else method
        if config.get("command") == "search" and before is not None and before != now:
            raise ValueError(f"search: method must be {before} to resume the run in {self.folder.path}, got {now}")

    def _check_optimizers(self, settings: Mapping[str, Any]) -> None:
        """Refuse what does not go together with optimisers of the caller."""
        self._kept_eager = tried("search", "optimizer", self._optimizers.weights, self.device) or tried(
            "search", "alpha_optimizer", self._optimizers.alphas, self.device
        )
        if self._optimizers.weights is None:
            return
        for name in ("weight_lr", "momentum", "nesterov", "weight_decay"):
            if settings.get(name) is not None:
                raise ValueError(f"search: {name} must be left out with optimizer, got {settings[name]!r}")
        if self.config.method.architect.order == 2:
            raise ValueError("search: order must be 1 with optimizer, as the step that is looked ahead is one of SGD")

    def search(self) -> SearchResult:
        """Run the search, or what is left of it, and read the result."""
        if self.config.method.random and self.config.method.baseline.evaluates:
            with self.keeping.session():
                return self._evaluated()
        with own_state("search", self.device), repeatable(self.config.deterministic), self.keeping.session():
            if self.config.method.random:
                return self._drawn()
            with own_stream(self.device):  # from the first pass on: gradients are summed on the stream of that one
                state = self._start()
                try:
                    self._epochs(state)
                finally:
                    self.progress.close()
                    for logger in self.loggers:
                        logger.close()
            result = self._result(state)
            if result.cost is not None and result.cost.note:
                self.progress.say(f"search: {result.cost.note}")
            if self._gap(state, result) and self.keeping.folder is not None:
                self.keeping.folder.write_history(state.history)
            self._write(result)
        return result

    def _write(self, result: SearchResult) -> None:
        folder = self.keeping.folder
        if folder is not None:
            result.genotype.save(folder.genotype_file)
            folder.write_json("genotypes.json", {rule: g.to_json() for rule, g in result.genotypes.items()})
            if result.cost is not None:
                folder.write_json("cost.json", vars(result.cost))

    def _drawn(self) -> SearchResult:
        """Nothing is searched: an architecture at random."""
        self.keeping.open(self._about(), resume=self.resume)
        self.keeping.begin(self._about())
        result = self._found(self._random(torch.Generator().manual_seed(self.config.seed)))
        self._write(result)
        return result

    def _random(self, generator: torch.Generator) -> Genotype:
        method, space = self.config.method, self.config.space()
        # All cells are one where a space keeps every edge (NAS-Bench-201).
        reductions = self.config.reductions or space.reductions(method.cells)
        owner = owners(method.sharing, method.cells, reductions, self.config.sequence)
        return random_genotype(
            space,
            (0,) if space.selection == "every_edge" else owner,
            method.discretisation.rules[0],  # type: ignore[arg-type]
            generator=generator,
            reductions=self.config.reductions,
            configuration=method.discretisation.configuration,
        )

    def _found(self, genotype: Genotype) -> SearchResult:
        """The result of a search without a supernet."""
        space, rule = self.config.space(), self.config.method.discretisation.rules[0]
        alphas = torch.zeros(self.config.method.cells, len(space.edges), len(space.ops))
        return self._outcome(Reading(genotype, rule, "", {rule: genotype}), [], alphas)

    def _evaluated(self) -> SearchResult:
        """Architectures are evaluated one by one, and the best is the result."""
        self.keeping.open(self._about(), resume=self.resume)
        self.keeping.begin(self._about())
        how, folder = self.config.method.baseline, self.folder
        kept = None if folder is None else folder.path / "evaluations"
        evaluate: Evaluator
        if self.table is not None:
            evaluate = FromTable(self.table, how.evaluation_table)
        else:
            evaluate = ByTraining(self.config, self.dataset, self._divided, kept, **self._own)
        better, name = self.objective.higher_is_better, self.objective.metric_name

        def say(one: Evaluation, best: Evaluation) -> None:
            if self.table is None or one is best:
                found = f"{shown(name, one.score, 2)}, the best {shown(name, best.score, 2)}"
                self.progress.say(f"search: architecture {one.number + 1} of {how.evaluations}: {found}")

        done = evaluated(
            how,
            self.config.space(),
            self._random,
            evaluate,
            self.config.seed,
            higher_is_better=better,
            folder=kept,
            say=say,
        )
        cost = {"evaluations": [one.to_json() for one in done], "budget": baseline_budget(done)}
        result = replace(self._found(top(done, better).genotype), **cost)  # type: ignore[arg-type]
        self._write(result)
        if folder is not None:
            folder.write_json("evaluations.json", cost)
        return result

    def _start(self) -> SearchState:
        for part in self._divided if self.ranks.several else ():
            self.ranks.check_batch("search", self.config.method.batch, len(part) or self.config.method.batch)
        self.ranks.check_same("search", self._about(), MAY_CHANGE)
        state = self._initial()
        if self.device.type == "cuda" and self.config.graphs == "auto" and self._eager is not None:
            self.progress.say(f"search: steps are launched one op at a time, not as CUDA graphs, as {self._eager}")
        self.keeping.start(state, self._about(), resume=self.resume, announce=lambda: self._announce(state))
        return state

    def _about(self) -> dict[str, Any]:
        """config.json: the settings, what the images are, and which of them move weights and which alphas."""
        if self.folder is None and not self.ranks.several:
            return {}
        parts = dict(zip(("weights", "alphas"), self._divided, strict=True))
        division = {
            name: {"images": len(part), "digest": digest(self.dataset.train, part)} for name, part in parts.items()
        }
        images = identity(self.dataset, self.order)
        return {**self.config.to_json(), "source": self.source, "images": images, "division": division}

    def _announce(self, state: SearchState) -> None:
        """Say what the run is and takes, or refuse it, before anything is computed or written."""
        method, weights = self.config.method, state.architecture.weights().detach()
        if self.config.search_fraction < 1:
            self.progress.say(f"search: {len(self.order)} of {len(self.dataset.train)} images are searched on")
        if self.objective.said:
            self.progress.say(f"search: {self.objective.said}")
        runs = autocast(self.device, self.config.precision)

        def forward(images: torch.Tensor) -> torch.Tensor:
            with runs():
                logits: torch.Tensor = state.net(images, weights, Pass(statistics="batch"))
                return logits

        def factor(need: StepMemory, available: int) -> float:
            """The ablated groups may take more than the pass they branch from."""
            least = EXACT_HESSIAN if method.architect.order == 2 and method.architect.hessian == "exact" else 1.0
            if not method.objectives.ablation_weight:
                return least
            batch = min(method.batch, len(self.dataset.train)) // self.ranks.world
            said, before = method.objectives.ablation_memory, state.budget
            chosen = budget(said, need, batch, method.cells, self.device, available // sharing())
            if said is None and before is not None and need.times(before.units).of(batch) <= available:
                chosen = before
            elif before not in (None, chosen):
                self.progress.say("search: contributions take other memory than before: results may differ by rounding")
            state.budget = chosen
            return max(least, chosen.units)

        announce(
            "search",
            self.progress.say,
            self.dataset,
            state.net,
            forward,
            cells=method.cells,
            channels=method.channels,
            batch=method.batch,
            stem=self.config.stem,
            factor=factor,
            ranks=self.ranks,
        )
        # Chunks of contributions are passes that all ranks make together.
        agreed = self.ranks.from_first(lambda: None if state.budget is None else [*vars(state.budget).values()])
        state.budget = None if agreed is None else Budget(*agreed)

    def _initial(self) -> SearchState:
        begin = initial_staged_state if self.config.method.stages.count > 1 else initial_state
        return begin(self.config, self.dataset, self.device, self._parts, self._optimizers)

    @functools.cached_property
    def _divided(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Indices of the images that move the weights, and of those that move the alphas and judge."""
        return divided(self.dataset.train.labels, self.order, self.config.split, self.config.seed)

    def _moves_alphas(self, epoch: int) -> bool:
        """Whether there are architecture steps; with edge weights there are, and alphas that rest have a rate of 0."""
        method = self.config.method
        _, at, _ = method.stages.place(epoch, method.epochs)
        return at >= method.architect.alpha_start or method.edges_move_first

    def _rows(self, part: torch.Tensor, state: SearchState) -> list[torch.Tensor]:
        """The training batches of an epoch, as :func:`permuted` groups them."""
        return permuted(part, self.config.method.batch, state.order)

    def _epochs(self, state: SearchState) -> None:
        method = self._effective(state)
        weight_part, alpha_part = self._divided
        steps = self._steps(weight_part)
        iterations = self._iterations(self._stepper(state, method))
        images = len(weight_part) if self._of_images else 0
        self.progress.start("search", self.config.epochs, steps, state.epoch, images)
        judged = Sums()
        while state.epoch < self.config.epochs and not state.stopped:
            # Every epoch, as a stage begins with another network.
            synchronise_norms(state.net, self.ranks if self.config.sync_norms and self.ranks.several else None)
            began = time.perf_counter()
            epoch = state.epoch
            rates = self._set_rates(state, epoch)
            for part in self._parts:
                part.before_epoch(state, epoch)
            judged.clear()
            with self.keeping.interruptible(state, UnreadableImage):
                self._train(iterations, weight_part, alpha_part, epoch)
                if (epoch + 1) % self.config.judge_every == 0 or epoch + 1 in (method.epochs, self.config.epochs):
                    self._judge(iterations, alpha_part, judged)
            with interrupts.held():
                self._finish_epoch(state, epoch, rates, judged, began)

    def _steps(self, part: torch.Tensor) -> int:
        """Steps of an epoch."""
        return steps_in(len(part), self.config.method.batch, self.ranks.world)

    def _stepper(self, state: SearchState, method: Method) -> Stepper:
        runs = autocast(self.device, self.config.precision)
        # On a CPU to read what was drawn waits for nothing; on a GPU it would stop every step.
        alone = method.mixing.draws_one and not method.mixing.compute_unchosen and self.device.type == "cpu"
        return Stepper(
            state, method, runs, state.budget or Budget(), self.objective, ranks=self.ranks, chosen_alone=alone
        )

    def _iterations(self, stepper: Stepper) -> Iterations:
        """How steps are run on this device: captured as CUDA graphs, if they can be."""
        if self._eager is not None or self.config.graphs == "off":
            return Iterations(stepper, self.dataset, self.config)
        return CapturedIterations(stepper, self.dataset, self.config, self._not_captured)

    @functools.cached_property
    def _eager(self) -> str | None:
        return why_not(self.config, self.dataset, self.device, self._given) or self._kept_eager

    def _not_captured(self, error: Exception) -> None:
        if self.config.graphs == "on":
            raise error
        reason = (str(error).splitlines() or [""])[0] or type(error).__name__
        self.progress.say(f"search: steps are launched one op at a time, as they could not be captured: {reason}")

    def _finish_epoch(
        self, state: SearchState, epoch: int, rates: Mapping[str, float], sums: Sums, began: float
    ) -> None:
        """Record what the epoch came to, let the parts have their say, and keep it all. sums: of judging."""
        self.keeping.check(state, state.net, state.sums, sums, name=functools.partial(named_in, state))
        synchronize(self.device)
        record = {"epoch": epoch, **rates, **figures(state, state.sums.joined(sums), self.objective.metric_name)}
        self.keeping.check_record(state, record)
        self._warn(record)
        stops = [part.after_epoch(state, epoch, record) for part in self._parts]
        self.ranks.check_alike("search", epoch, state.decided())
        self.keeping.check_record(state, record)
        record["seconds"] = round(time.perf_counter() - began, 3)
        record["memory_mib"] = round(peak_memory_mib(self.device), 1)
        state.history.append(record)
        state.sums.clear()
        state.epoch, state.step, state.stopped = epoch + 1, 0, any(stops)
        self.keeping.save(state)
        self.progress.epoch(line(record))
        for logger in self.loggers:
            logger.log(epoch, figures_of(record))

    def _effective(self, state: SearchState) -> Method:
        """The method without what is zero by construction: one row alone is as useful as the mean over all rows."""
        method = self.config.method
        if len(state.architecture.table) > 1 or not method.objectives.ablation_weight:
            return method
        if state.epoch == 0:
            self.progress.say("search: all cells share one architecture, so the ablation loss is 0 and is left out")
        return method.with_settings(ablation_weight=0.0)

    def _set_rates(self, state: SearchState, epoch: int) -> Mapping[str, float]:
        method = self.config.method
        architect, weights = method.architect, method.weights
        tuned = epoch - method.epochs
        stage, epoch, epochs = method.stages.place(epoch, method.epochs)
        weight_lr = cosine(weights.weight_lr, weights.weight_lr_min, epoch, epochs)
        if tuned >= 0:
            weight_lr = cosine(
                method.selection.selection_lr, weights.weight_lr_min, tuned, self.config.epochs - method.epochs
            )
            # What follows a schedule stays as it was at its end.
            epoch = epochs - 1
        alpha_lr = architect.alpha_lr
        if architect.alpha_lr_min is not None:
            # The alphas' cosine begins with their first step, the weights' with the pre-training.
            first = architect.alpha_start
            alpha_lr = cosine(alpha_lr, architect.alpha_lr_min, max(0, epoch - first), epochs - first)
        rates = {"weight_lr": weight_lr, "alpha_lr": alpha_lr}
        if method.edges_by is not None:
            resting = method.edges_move_first and epoch < architect.alpha_start
            rates |= {"alpha_lr": 0.0 if resting else alpha_lr, "edge_lr": alpha_lr}
        own = self._optimizers
        if own.weights is None:
            set_rate(state.weight_optimizer, weight_lr)
        else:
            rates["weight_lr"] = scale_rates(state.weight_optimizer, _part(weight_lr, weights.weight_lr))
        moving = [rates[name] for name in ("alpha_lr", "edge_lr") if name in rates]
        if own.alphas is None:
            set_rate(state.alpha_optimizer, *moving)
        else:
            parts = [_part(rate, architect.alpha_lr) for rate in moving]
            rates["alpha_lr"] = scale_rates(state.alpha_optimizer, *parts)
        strengths = method.objectives.strengths(epoch + 1, epochs, architect.alpha_start)
        scheduled = method.mixing.scheduled(epoch + 1, epochs)
        if any(method.stages.skip_dropout):
            scheduled["skip_dropout"] = method.stages.dropout(stage, epoch, epochs, architect.alpha_start)
        for name, value in (strengths | scheduled).items():
            state.strengths[name].fill_(value)
        return rates | {f"{name}_strength": value for name, value in strengths.items()} | scheduled

    def _train(self, iterations: Iterations, weight_part: torch.Tensor, alpha_part: torch.Tensor, epoch: int) -> None:
        """The steps of an epoch that are left; their figures are in ``state.sums``."""
        method, state = self.config.method, iterations.stepper.state
        state.net.train()
        state.drawn = state.order.get_state()
        rows, valid_rows, steps = self._batches(weight_part, alpha_part, state)
        first = method.architect.alpha_start
        _, at, epochs = method.stages.place(epoch, method.epochs)
        decides = at >= first + method.objectives.zero_one_start * (epochs - first)
        moving = valid_rows if self._moves_alphas(epoch) else None
        with self.ranks.in_step():
            for iteration in iterations.epoch(rows, moving, number=epoch * steps, decides=decides):
                with interrupts.held():
                    state.under_way = True
                    iteration()
                    state.step += 1
                    state.under_way = False
                self.progress.step()
                self.ranks.between_steps()
        self.ranks.average_statistics(state.net)

    def _batches(self, part: torch.Tensor, alpha_part: torch.Tensor, state: SearchState) -> tuple[Any, Any, int]:
        """What moves weights and what moves alphas in an epoch, as :meth:`Iterations.epoch` takes it, and its steps."""
        rows = self._rows(part, state)
        steps = sum(map(len, rows))
        valid_rows = redrawn(alpha_part, self.config.method.batch, steps, state.order)
        if self.ranks.several:
            rows = self.ranks.rows(rows)
            valid_rows = next(iter(self.ranks.rows([valid_rows[: sum(map(len, rows))]])), valid_rows)
        return rows, valid_rows, steps

    def _judge(self, iterations: Iterations, alpha_part: torch.Tensor, sums: Sums) -> None:
        iterations.stepper.state.net.eval()
        iterations.judge(alpha_part, sums)

    def _warn(self, record: Mapping[str, Any]) -> None:
        """Say so where validation is worse than guessing: the two parts of the images then differ in kind."""
        count = len(self._divided[1])
        if "valid" not in record or not count:
            return
        if "accuracy" not in record["valid"] or self.dataset.numbers:
            return
        chance = 1 / len(self.dataset.classes)
        if record["valid"]["accuracy"] < chance - 5 * math.sqrt(chance * (1 - chance) / count):
            self.progress.say(
                f"search: validation accuracy {record['valid']['accuracy']:.2%} is far below chance ({chance:.2%}): "
                "do labels fit the images?"
            )

    def _gap(self, state: SearchState, result: SearchResult) -> bool:
        """Add to the last record the metric of the supernet before and after discretisation, on the same images.

        After: the ops of the genotype weigh 1, all others 0. True if it was added.
        """
        part = self._divided[1]
        if not len(part) or "discretisation" in state.history[-1]:
            return False
        iterations = Iterations(self._stepper(state, self.config.method), self.dataset, self.config)
        record = state.history[-1]
        if "valid" not in record:
            # A part has ended the search after an epoch that was not judged.
            sums = Sums()
            self._judge(iterations, part, sums)
            record["valid"] = figures(state, sums, self.objective.metric_name)["valid"]
        state.net.eval()
        # A genotype of one cell stands for all of them (NAS-Bench-201).
        chosen = one_hot(result.genotype.cells, state.space).to(state.architecture.table)
        sums = Sums()
        iterations.judge(part, sums, chosen.expand(len(state.net.cells), -1, -1))
        after = sums.means()
        record["discretisation"] = {
            "rule": result.rule,
            "before": record["valid"][self.objective.metric_name],
            "after": after[f"valid_{self.objective.metric_name}"],
            "loss_after": after["valid_loss"],
        }
        return True

    def _result(self, state: SearchState) -> SearchResult:
        architecture = state.architecture
        reading = read_from(state, self.config.method.discretisation, limit_of(self._parts))
        if reading.note:
            self.progress.say(f"search: {reading.note}; so the genotype is by the rule {reading.rule!r}")
        alphas = architecture.by_cell(architecture.table.detach()).cpu()
        return self._outcome(reading, state.history, alphas)

    def _outcome(self, reading: Reading, history: list[dict[str, Any]], alphas: torch.Tensor) -> SearchResult:
        return SearchResult(
            genotype=reading.genotype,
            rule=reading.rule,
            note=reading.note,
            genotypes=reading.all,
            history=history,
            alphas=alphas,
            classes=len(self.dataset.classes),
            in_channels=self.dataset.channels,
            stem=self.config.stem,
            metric=self.objective.metric_name,
            run=None if self.folder is None else self.folder.path,
            figures=self._figures(reading.genotype),
            cost=reading.cost,
        )

    def _figures(self, genotype: Genotype) -> Figures | None:
        """What the table of NAS-Bench-201 says of an architecture, if there is one; also written."""
        figures = None if self.table is None else self.table[genotype]
        if figures is not None and self.keeping.folder is not None:
            self.keeping.folder.write_json("nasbench201.json", figures.to_json())
        return figures


def _part(rate: float, start: float) -> float:
    """What part of its start a rate is."""
    return rate / start if start else 1.0

"""The search loop: one for all methods."""

from __future__ import annotations

import functools
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from ddarts_ext.data import UnreadableImage
from ddarts_ext.data.own_augment import AugmentFunction
from ddarts_ext.nn.norm import synchronise_norms
from ddarts_ext.runs import interrupts
from ddarts_ext.runs.device import choose_device, own_state, peak_memory_mib, repeatable, synchronize
from ddarts_ext.runs.folder import RunFolder
from ddarts_ext.runs.graphs import check_graphs, fall_back, own_stream, say_graphs
from ddarts_ext.runs.keeping import Keeping
from ddarts_ext.runs.loggers import Logger, check_loggers, figures_of
from ddarts_ext.runs.losses import LossFunction, MetricFunction
from ddarts_ext.runs.notebook import default_progress
from ddarts_ext.runs.optimizers import OptimizerFactory, tried
from ddarts_ext.runs.options import takes
from ddarts_ext.runs.own import check_again, named
from ddarts_ext.runs.progress import Progress
from ddarts_ext.runs.ranks import current
from ddarts_ext.runs.sums import Sums
from ddarts_ext.search.drawn import DrawnStrategy
from ddarts_ext.search.figures import figures, line, named_in
from ddarts_ext.search.iterations import Iterations
from ddarts_ext.search.methods import Method
from ddarts_ext.search.parts import PARTS, Part, Surroundings
from ddarts_ext.search.parts.part import check_parts
from ddarts_ext.search.rates import set_rates
from ddarts_ext.search.result import SearchResult
from ddarts_ext.search.settings import MAY_CHANGE, OPTIONS, SearchSettings
from ddarts_ext.search.state import Optimizers, SearchState
from ddarts_ext.search.step import Stepper
from ddarts_ext.search.strategies import strategy_of
from ddarts_ext.search.strategy import Task
from ddarts_ext.tables.nasbench201 import NASBench201Table

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from ddarts_ext.search.arguments import MethodName, SearchArguments


@takes(OPTIONS)
class Searcher:
    """Searches an architecture on images, or a recurrent cell on text.

    data: a name or path for :func:`ddarts_ext.data.load`, a :class:`Dataset`, or ``text:PATH``.
    method: a name, see ``ddarts search --list``, by default ``ddarts``, on text ``darts``; or a :class:`Method`.
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
    table: accuracies of NAS-Bench-201, a path or a :class:`NASBench201Table`, looked up for the result.
    arguments: any field of :class:`SearchSettings`; ``space``, ``epochs``, ``cells``, ``channels`` and ``batch`` of the
    search, by default the method's, or smaller ones for small images; any field of :class:`Objectives`,
    :class:`Architect`, :class:`Weights`, :class:`Discretisation`, :class:`Distance` or :class:`Shrinking`, such as
    ``weight_lr=0.025``. ``help(Searcher)`` shows them all.

    Raises ValueError, TypeError or FileNotFoundError for wrong input, before anything is computed or written.
    """

    usual: str | None = None
    """The method where none is named, None for that of the data."""

    def __init__(
        self,
        data: Any = "digits",
        method: MethodName | Method | None = None,
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
        table: str | Path | NASBench201Table | None = None,
        **arguments: Unpack[SearchArguments],
    ) -> None:
        settings: dict[str, Any] = dict(arguments)
        settings["table"] = str(table) if isinstance(table, (str, Path)) else None
        self.ranks = current()
        self.device = choose_device(device, "search")
        if resume and out is None:
            raise ValueError("search: out must be the folder of the run to resume, got None")
        alphas = settings.pop("alpha_optimizer") if callable(settings.get("alpha_optimizer")) else None
        handed = {"loss": loss, "metric": metric, "optimizer": optimizer, "augment": augment}
        own = named("search", {**handed, "alpha_optimizer": alphas})
        self.folder = None if out is None else RunFolder(out, "search")
        check_again("search", self.folder, own, resume=resume)
        kind = strategy_of(data, method or self.usual)
        chosen: str | Method = method or self.usual or kind.usual
        self._check_method(chosen, resume)
        kind.check_own(handed)
        dataset = kind.load(data, settings, augment, self.device, self.ranks)
        self.objective = kind.judged_by(dataset, loss, metric, settings, self.device)
        self.config: SearchSettings = replace(kind.resolve(dataset, chosen, self.device.type, settings), own=own)
        self._check_kind()
        self._check_ranks()
        self._optimizers = Optimizers(optimizer, alphas)
        self._check_optimizers(settings)
        self.table = self._table(table)
        self.source = str(data) if isinstance(data, (str, Path)) else dataset.name
        self.order = kind.ordered(dataset, self.config)
        self.dataset = dataset.to(self.device)
        self.resume = resume
        self.progress = (progress or default_progress()) if self.ranks.first else Progress()
        self.loggers = check_loggers("search", loggers) if self.ranks.first else ()
        self.strategy = kind(
            Task(
                self.config,
                self.dataset,
                self.order,
                self.device,
                self.ranks,
                self.objective,
                self._optimizers,
                self.progress.say,
                self.table,
                None if self.folder is None else self.folder.path,
                {name: handed[name] for name in ("loss", "metric", "optimizer")},
            )
        )
        self.keeping = Keeping(
            "search",
            self.folder,
            self.progress.say,
            changeable=MAY_CHANGE,
            epochs=None if not kind.more_epochs or self.config.method.removes else "method.epochs",
            ranks=self.ranks,
        )
        self._given = check_parts(parts)
        strategy = self.strategy
        around = Surroundings(self.config, self.dataset, lambda: strategy.divided[1], strategy.autocast, self.objective)
        of_method = (PARTS[name](around) for name in self.config.method.parts)
        self._parts = (*strategy.parts(), *of_method, *self._given)
        check_graphs("search", self.config.graphs, self._eager)

    def _check_kind(self) -> None:
        """Refuse a method that is not of the kind that the name promises."""

    def _check_ranks(self) -> None:
        self.ranks.check_batch("search", self.config.method.batch, self.config.method.batch)
        if self.ranks.several and self.config.method.random and self.config.method.baseline.evaluates:
            raise ValueError(
                f"search: method must be one of a supernet with {self.ranks.world} ranks, got "
                f"{self.config.method.name}, which evaluates one architecture after the other"
            )

    def _table(self, given: str | Path | NASBench201Table | None) -> NASBench201Table | None:
        if not isinstance(given, NASBench201Table):
            return None if self.config.table is None else NASBench201Table.load(self.config.table)
        if self.config.method.space != "nasbench201":
            raise ValueError(
                f"search: table must not be given for space {self.config.method.space}: it is one of nasbench201"
            )
        return given

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
        if isinstance(self.strategy, DrawnStrategy):
            with self.keeping.session():
                about = self._about()
                self.keeping.open(about, resume=self.resume)
                self.keeping.begin(about)
                result = self.strategy.found()
                self._write(result)
            return result
        with own_state("search", self.device), repeatable(self.config.deterministic), self.keeping.session():
            with own_stream(self.device):  # from the first pass on: gradients are summed on the stream of that one
                state = self._start()
                try:
                    self._epochs(state)
                finally:
                    self.progress.close()
                    for logger in self.loggers:
                        logger.close()
            result = self.strategy.result(state)
            if result.cost is not None and result.cost.note:
                self.progress.say(f"search: {result.cost.note}")
            if self.strategy.gap(state, result) and self.keeping.folder is not None:
                self.keeping.folder.write_history(state.history)
            self._write(result)
        return result

    def _write(self, result: SearchResult) -> None:
        folder = self.keeping.folder
        if folder is None:
            return
        result.genotype.save(folder.genotype_file)
        folder.write_json("genotypes.json", {rule: g.to_json() for rule, g in result.genotypes.items()})
        if result.cost is not None:
            folder.write_json("cost.json", vars(result.cost))
        if result.figures is not None:
            folder.write_json("nasbench201.json", result.figures.to_json())
        if result.evaluations:
            folder.write_json("evaluations.json", {"evaluations": result.evaluations, "budget": result.budget})

    def _start(self) -> SearchState:
        for part in self.strategy.divided if self.ranks.several else ():
            self.ranks.check_batch("search", self.config.method.batch, len(part) or self.config.method.batch)
        about = self._about()
        self.ranks.check_same("search", about, MAY_CHANGE)
        state = self._initial()
        say_graphs("search", self.config.graphs, self._eager, self.device, self.progress.say)
        self.keeping.start(state, about, resume=self.resume, announce=lambda: self._announce(state))
        return state

    def _initial(self) -> SearchState:
        return self.strategy.initial(self._parts)

    def _announce(self, state: SearchState) -> None:
        self.strategy.announce(state)

    def _about(self) -> dict[str, Any]:
        """config.json: the settings, and what the data are."""
        if self.folder is None and not self.ranks.several:
            return {}
        return {**self.config.to_json(), "source": self.source, **self.strategy.about()}

    def _epochs(self, state: SearchState) -> None:
        strategy, method = self.strategy, self._effective(state)
        iterations = self._iterations(strategy.stepper(state, method))
        images = len(strategy.divided[0]) if strategy.of_images else 0
        self.progress.start("search", self.config.epochs, strategy.steps(), state.epoch, images)
        judged = Sums()
        while state.epoch < self.config.epochs and not state.stopped:
            # Every epoch, as a stage begins with another network.
            synchronise_norms(state.net, self.ranks if self.config.sync_norms and self.ranks.several else None)
            began = time.perf_counter()
            epoch = state.epoch
            rates = set_rates(state, self.config, self._optimizers)
            for part in self._parts:
                part.before_epoch(state, epoch)
            judged.clear()
            with self.keeping.interruptible(state, UnreadableImage):
                self._train(iterations, epoch)
                if (epoch + 1) % self.config.judge_every == 0 or epoch + 1 in (method.epochs, self.config.epochs):
                    strategy.judge(iterations, judged)
            with interrupts.held():
                self._finish_epoch(state, epoch, rates, judged, began)

    def _iterations(self, stepper: Stepper) -> Any:
        """How steps are run on this device: captured as CUDA graphs, if they can be."""
        if self._eager is not None or self.config.graphs == "off":
            return self.strategy.iterations(stepper)
        failed = functools.partial(fall_back, "search", self.config.graphs, self.progress.say)
        return self.strategy.captured(stepper, failed)

    @functools.cached_property
    def _eager(self) -> str | None:
        return self.strategy.why_eager(self._given) or self._kept_eager

    def _train(self, iterations: Iterations, epoch: int) -> None:
        """The steps of an epoch that are left; their figures are in ``state.sums``."""
        method, state = self.config.method, iterations.stepper.state
        state.net.train()
        state.drawn = state.order.get_state()
        rows, valid_rows, steps = self.strategy.batches(state)
        first = method.architect.alpha_start
        _, at, epochs = method.stages.place(epoch, method.epochs)
        decides = at >= first + method.objectives.zero_one_start * (epochs - first)
        moving = valid_rows if self.strategy.moves_alphas(epoch) else None
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

    def _finish_epoch(
        self, state: SearchState, epoch: int, rates: Mapping[str, float], sums: Sums, began: float
    ) -> None:
        """Record what the epoch came to, let the parts have their say, and keep it all. sums: of judging."""
        self.keeping.check(state, state.net, state.sums, sums, name=functools.partial(named_in, state))
        synchronize(self.device)
        record = {"epoch": epoch, **rates, **figures(state, state.sums.joined(sums), self.objective.metric_name)}
        self.keeping.check_record(state, record)
        warning = self.strategy.warning(record)
        if warning is not None:
            self.progress.say(f"search: {warning}")
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

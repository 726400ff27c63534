"""Training the network of a genotype, and judging it on held-out images."""

from __future__ import annotations

import functools
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ddarts_ext.data import Augmentation, Dataset, Split, UnreadableImage, load
from ddarts_ext.data.augment import OPTIONS as AUGMENTATION_OPTIONS
from ddarts_ext.data.batches import permuted, steps_in
from ddarts_ext.data.identity import identity
from ddarts_ext.data.order import canonical_order
from ddarts_ext.data.own_augment import AugmentFunction, augmented_by
from ddarts_ext.data.text import is_text
from ddarts_ext.data.transforms import Transforms
from ddarts_ext.genotype import Genotype
from ddarts_ext.genotype.derivation import derive
from ddarts_ext.nn.dead import dead_note
from ddarts_ext.nn.forward_pass import Pass
from ddarts_ext.nn.joined import JoinedSGD
from ddarts_ext.nn.layout import lay_out
from ddarts_ext.nn.network import build_network
from ddarts_ext.nn.norm import synchronise_norms
from ddarts_ext.runs import interrupts
from ddarts_ext.runs.device import autocast, choose_device, own_state, peak_memory_mib, repeatable, synchronize
from ddarts_ext.runs.draws import DrawsFrom
from ddarts_ext.runs.folder import RunFolder
from ddarts_ext.runs.graphs import check_graphs, fall_back, own_stream, say_graphs
from ddarts_ext.runs.keeping import Keeping
from ddarts_ext.runs.loggers import Logger, check_loggers, figures_of
from ddarts_ext.runs.losses import LossFunction, MetricFunction, shown
from ddarts_ext.runs.notebook import default_progress
from ddarts_ext.runs.objective import settled
from ddarts_ext.runs.optimizers import OptimizerFactory, own_optimizer, rate_of, scale_rates, set_rate, tried
from ddarts_ext.runs.options import takes
from ddarts_ext.runs.own import check_again, named, refuse_functions
from ddarts_ext.runs.progress import Progress
from ddarts_ext.runs.ranks import current
from ddarts_ext.runs.sums import Sums
from ddarts_ext.training.average import Average
from ddarts_ext.training.best import Best, hold_back
from ddarts_ext.training.config import MAY_CHANGE, OPTIONS, TrainConfig, resolve
from ddarts_ext.training.demand import announce
from ddarts_ext.training.iterations import CapturedIterations, Iterations, why_not
from ddarts_ext.training.judging import judge_split
from ddarts_ext.training.rates import rate
from ddarts_ext.training.recipes import deepened, recipe_for, said_of
from ddarts_ext.training.result import TrainResult, write
from ddarts_ext.training.state import Run
from ddarts_ext.training.step import Step, on_a_gpu

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from ddarts_ext.training.arguments import TrainArguments


@takes(OPTIONS)
class Trainer:
    """Trains the network of ``genotype`` on the training images of ``data``.

    genotype: a :class:`Genotype`, or what :meth:`Genotype.load` reads. data: what :func:`ddarts_ext.data.load` takes.
    out: folder of the run; resume: continue the run in it, if there is one. cells: depth of the network that is derived
    from the genotype first; without it the result of a search (its folder) is brought to the depth that the recipe was
    published with, which is said. loggers: where figures go after every epoch, see
    :class:`ddarts_ext.runs.loggers.Logger`. loss, metric: names or functions, see
    :func:`ddarts_ext.runs.objective.objective_of`. optimizer: makes the optimiser from the parameters; its rate falls
    as that of the recipe does, from what it was made with. augment: what training images go through instead of what the
    recipe or the data say, as far as that is not said again, see :data:`ddarts_ext.data.own_augment.AugmentFunction`.
    arguments: fields of :class:`TrainConfig`.

    Raises ValueError, TypeError or FileNotFoundError for wrong input, before anything is computed or written.
    """

    def __new__(cls, genotype: Any = None, data: Any = "digits", **settings: Any) -> Any:
        """On text a :class:`.text.TextTrainer` trains, which has the same methods."""
        if is_text(data) and current().several:
            raise ValueError(f"train: data must be images with {current().world} ranks, got text: {str(data)[:60]!r}")
        if cls is Trainer and is_text(data):
            from ddarts_ext.training.text import TextTrainer

            return TextTrainer(genotype, data, **settings)
        return object.__new__(cls)

    def __init__(
        self,
        genotype: Genotype | str | Path,
        data: Any = "digits",
        *,
        out: str | Path | None = None,
        resume: bool = False,
        device: str | torch.device | None = None,
        progress: Progress | None = None,
        cells: int | None = None,
        loggers: Sequence[Logger] = (),
        loss: str | LossFunction | None = None,
        metric: str | MetricFunction | None = None,
        optimizer: OptimizerFactory | None = None,
        augment: AugmentFunction | None = None,
        **arguments: Unpack[TrainArguments],
    ) -> None:
        settings: dict[str, Any] = {**arguments}
        self.ranks = current()
        self.device = choose_device(device, "train")
        if resume and out is None:
            raise ValueError("train: out must be the folder of the run to resume, got None")
        own = named("train", {"loss": loss, "metric": metric, "optimizer": optimizer, "augment": augment})
        self.folder = None if out is None else RunFolder(out, "train")
        check_again("train", self.folder, own, resume=resume)
        found = genotype if isinstance(genotype, Genotype) else Genotype.load(genotype)
        if found.recurrent:
            raise ValueError(f"train: data must be text (text:PATH) for a recurrent cell, got {str(data)[:60]!r}")
        dataset = load(data, image_size=settings.get("image_size"))
        if settings.get("recipe") is None:
            settings["recipe"] = recipe_for(genotype, found)
        if augment is not None:
            dataset = augmented_by("train", dataset, augment, self.device)
            settings = {"augmentation": Augmentation(), "transforms": Transforms(), **settings}
        self.objective = settled(
            "train", dataset.train.labels, len(dataset.classes), self.device, settings, loss=loss, metric=metric
        )
        self.config: TrainConfig = replace(resolve(dataset, {**settings, "device": self.device.type}), own=own)
        self.optimizer = optimizer
        self.ranks.check_batch("train", self.config.batch, self.config.batch)
        if self.config.accumulate > max(1, self.config.batch // self.ranks.world // 2):
            raise ValueError(
                f"train: accumulate must be at most {self.config.batch // self.ranks.world // 2} for the "
                f"{self.config.batch // self.ranks.world} images of a rank, got {self.config.accumulate}"
            )
        self._check_optimizer(settings)
        self.genotype, depth = self._deep(genotype, found, cells, dataset, resume)
        self.lines = [*said_of(self.config.recipe, dataset, self._values()), *filter(None, [depth])]
        held_back: Split | None = None
        if self.config.keep == "best":
            dataset, held_back = hold_back(dataset, self.config.held_back, self.config.seed)
        self.source = str(data) if isinstance(data, (str, Path)) else dataset.name
        self.order = canonical_order(dataset.train)
        self.dataset = dataset.to(self.device)
        self.held_back = None if held_back is None else held_back.to(self.device)
        self.resume = resume
        self.progress = (progress or default_progress()) if self.ranks.first else Progress()
        self.loggers = check_loggers("train", loggers) if self.ranks.first else ()
        self.keeping = Keeping(
            "train", self.folder, self.progress.say, changeable=MAY_CHANGE, epochs="epochs", ranks=self.ranks
        )
        self.autocast = autocast(self.device, self.config.precision)
        self._eager = why_not(self.config, self.dataset, self.device, self._kept_eager)
        check_graphs("train", self.config.graphs, self._eager)

    def _check_optimizer(self, settings: Mapping[str, Any]) -> None:
        """Refuse what does not go together with an optimiser of the caller."""
        self._kept_eager = tried("train", "optimizer", self.optimizer, self.device)
        for name in ("lr", "momentum", "nesterov", "weight_decay"):
            if self.optimizer is not None and settings.get(name) is not None:
                raise ValueError(f"train: {name} must be left out with optimizer, got {settings[name]!r}")

    def _deep(
        self, source: object, genotype: Genotype, cells: int | None, dataset: Dataset, resume: bool
    ) -> tuple[Genotype, str]:
        """The genotype of the network that is trained, and what is to be said of its depth."""
        if cells is not None:
            return derive(genotype, cells), ""
        deeper, line = deepened(source, genotype, self.config.recipe, dataset)
        if deeper is genotype or not resume or self.folder is None or not self.folder.config_file.is_file():
            return deeper, line
        # A run that has begun goes on at its depth.
        layers = self.folder.arguments(lambda config: Genotype.from_json(config["genotype"]).layers)
        return derive(genotype, layers), ""

    def _values(self) -> dict[str, Any]:
        """All settings that count, by name."""
        config = self.config
        return {**vars(config), **vars(config.augmentation), **vars(config.transforms)}

    def train(self) -> TrainResult:
        """Run the training, or what is left of it."""
        with own_state("train", self.device), repeatable(self.config.deterministic), self.keeping.session():
            run = self._start()
            try:
                with own_stream(self.device):
                    self._epochs(run)
            finally:
                self.progress.close()
                for logger in self.loggers:
                    logger.close()
            if hasattr(run.network, "generator"):
                run.network.generator = None  # of the training: a network is copied and pickled without it
            network = run.judged.requires_grad_(True)
            synchronise_norms(network, None)
            if hasattr(network, "drop_path"):
                network.drop_path = float(network.drop_path)
            accuracy = float(run.history[-1]["test"][self.objective.metric_name])
            where = None if self.folder is None else self.folder.path
            result = TrainResult(network, accuracy, run.history, where, run.best, self.objective.metric_name)
            if self.keeping.folder is not None:
                self.genotype.save(self.keeping.folder.genotype_file)
                about = self.dataset, self.source, self.config, self.objective.task
                write(self.keeping.folder.path, result, self.genotype, *about)
        return result

    def _start(self) -> Run:
        config = self.config
        self.ranks.check_batch("train", config.batch, len(self.order))
        known = {**config.to_json(), "source": self.source, "genotype": self.genotype.to_json()}
        if self.folder is not None or self.ranks.several:
            known["images"] = identity(self.dataset, self.order)
        self.ranks.check_same("train", known, MAY_CHANGE)
        with DrawsFrom(torch.Generator().manual_seed(config.seed)):
            network = build_network(
                self.genotype,
                config.channels,
                len(self.dataset.classes),
                self.dataset.channels,
                config.auxiliary(self.genotype),
                config.stem,
            ).to(self.device)
        if self.device.type != "cpu" and not self.ranks.several and not config.compile:
            lay_out(network)
        run = Run(
            network,
            self._optimizer_of(network),
            torch.Generator().manual_seed(config.seed),
            torch.Generator(self.device).manual_seed(config.seed + 1),
            average=Average(network, config.ema) if config.ema else None,
        )
        if hasattr(network, "generator") and not config.compile:
            network.generator = run.random
        self.keeping.start(run, known, resume=self.resume, announce=lambda: self._announce(network))
        return run

    def _optimizer_of(self, network: Any) -> torch.optim.Optimizer:
        config = self.config
        if self.optimizer is not None:
            return own_optimizer("train", "optimizer", self.optimizer, list(network.parameters()))
        return JoinedSGD(
            network.parameters(),
            lr=config.lr,
            momentum=config.momentum,
            weight_decay=config.weight_decay,
            nesterov=config.nesterov,
            fused=on_a_gpu(self.device),  # which reads its rate from a tensor
        )

    def _announce(self, network: Any) -> None:
        """Say what the run is and takes, or refuse it, before anything is computed or written."""

        def forward(images: Tensor) -> Any:
            with self.autocast():
                both = getattr(network, "auxiliary", None) is not None
                return (network.forward_auxiliary if both else network)(images, Pass(statistics="batch"))

        config = self.config
        for line in self.lines:
            self.progress.say(line)
        say_graphs("train", config.graphs, self._eager, self.device, self.progress.say)
        if self.objective.said:
            self.progress.say(f"train: {self.objective.said}")
        if self.optimizer is not None:
            self.progress.say(
                f"train: the optimiser is that of {self.config.own['optimizer']}, and not lr, momentum, nesterov and "
                "weight_decay of the recipe"
            )
        announce(
            "train",
            self.progress.say,
            self.dataset,
            network,
            forward,
            cells=len(network.cells),
            channels=config.channels,
            batch=config.batch,
            stem=config.stem,
            parts=config.accumulate,
            ranks=self.ranks,
        )

    def _epochs(self, run: Run) -> None:
        config = self.config
        steps = steps_in(len(self.order), config.batch, self.ranks.world)
        self.progress.start("train", config.epochs, steps, run.epoch, len(self.order))
        if note := dead_note(run.network):
            self.progress.say(f"train: the genotype has {note}")
        synchronise_norms(run.network, self.ranks if config.sync_norms and self.ranks.several else None)
        step = Step(config, run.network, self.autocast, self.objective, self.ranks)
        iterations = self._iterations(run, step)
        while run.epoch < config.epochs:
            began = time.perf_counter()
            step.drop_path(config.drop_path * run.epoch / config.epochs)
            judged = Sums()
            with self.keeping.interruptible(run, UnreadableImage):
                self._train(run, iterations)
                self._judge(run, self.dataset.test, "test", judged)
                if self.held_back is not None:
                    self._judge(run, self.held_back, "held_back", judged)
            with interrupts.held():
                self._finish_epoch(run, judged, began)

    def _iterations(self, run: Run, step: Step) -> Iterations:
        """How steps are run on this device: captured as CUDA graphs, if they can be."""
        if self._eager is not None or self.config.graphs == "off":
            return Iterations(run, step, self.dataset, self.config)
        failed = functools.partial(fall_back, "train", self.config.graphs, self.progress.say)
        return CapturedIterations(run, step, self.dataset, self.config, failed)

    def _finish_epoch(self, run: Run, judged: Sums, began: float) -> None:
        """Record what the epoch came to, and keep it."""
        self.keeping.check(run, run.network, run.sums, judged)
        figures: dict[str, Any] = run.sums.joined(judged).means()
        metric = self.objective.metric_name
        synchronize(self.device)
        record = {
            "epoch": run.epoch,
            "lr": rate_of(run.optimizer),
            "train": {"loss": figures["train_loss"], metric: figures[f"train_{metric}"]},
            "test": {
                "loss": figures["test_loss"],
                metric: figures[f"test_{metric}"],
                **({"top5": figures["test_top5"]} if "test_top5" in figures else {}),
            },
            **self._best_of(run, figures),
            "seconds": round(time.perf_counter() - began, 3),
            "memory_mib": round(peak_memory_mib(self.device), 1),
        }
        run.history.append(record)
        run.sums.clear()
        run.epoch, run.step = run.epoch + 1, 0
        self.keeping.save(run)
        top5 = f" top-5 {figures['test_top5']:.2%}" if "test_top5" in figures else ""
        self.progress.epoch(
            f"train loss {figures['train_loss']:.3f} {shown(metric, figures[f'train_{metric}'])}  "
            f"held-out {shown(metric, figures[f'test_{metric}'], 2)}{top5}"
        )
        for logger in self.loggers:
            logger.log(record["epoch"], figures_of(record))

    def _best_of(self, run: Run, figures: Mapping[str, Any]) -> dict[str, Any]:
        """Keep the weights if they are the best ones; what the record says of the images that they are chosen by."""
        if self.held_back is None:
            return {}
        metric = self.objective.metric_name
        run.best = Best.better(run.best, run.epoch + 1, figures, run.judged, self.objective)
        return {"held_back": {"loss": figures["held_back_loss"], metric: figures[f"held_back_{metric}"]}}

    def _train(self, run: Run, iterations: Iterations) -> None:
        """The steps of an epoch that are left; their figures are in ``run.sums``."""
        config = self.config
        steps = steps_in(len(self.order), config.batch, self.ranks.world)
        run.network.train()
        run.drawn = run.order.get_state()
        # Of the step before: a run that was stopped after the last one of an epoch has none left, and records it.
        self._set_rate(run, rate(config, run.epoch, max(0, run.step - 1) / steps))
        with self.ranks.in_step():
            for call in iterations.epoch(self.ranks.rows(permuted(self.order, config.batch, run.order))):
                with interrupts.held(), self.ranks.sharing():
                    run.under_way = True
                    self._set_rate(run, rate(config, run.epoch, run.step / steps))
                    call()
                    run.step += 1
                    if run.average is not None:
                        run.average.follow(run.network, run.epoch * steps + run.step)
                    run.under_way = False
                self.progress.step()
                self.ranks.between_steps()
        self.ranks.average_statistics(run.network, *(() if run.average is None else (run.average.network,)))

    def _set_rate(self, run: Run, value: float) -> None:
        if self.optimizer is None:
            set_rate(run.optimizer, value)
        else:
            scale_rates(run.optimizer, value / self.config.lr if self.config.lr else 1.0)

    def _judge(self, run: Run, split: Split, name: str, sums: Sums) -> None:
        top = 5 if name == "test" and len(self.dataset.classes) > 5 and not self.dataset.numbers else 0
        how = self.autocast, self.config.batch, top, self.objective, self.ranks
        judge_split(run.judged, self.dataset, split, name, sums, *how)


def arguments_of(config: dict[str, Any]) -> dict[str, Any]:
    """The arguments of :class:`Trainer` that a config.json was written with. Raises ValueError for those that were
    functions."""
    refuse_functions("train", config)
    known = {name: option.value_in(config) for name, option in OPTIONS.items()}
    known = {name: value for name, value in known.items() if name not in (*AUGMENTATION_OPTIONS, "transforms")}
    known["augmentation"] = Augmentation(**config["augmentation"])
    return {"genotype": Genotype.from_json(config["genotype"]), "data": config["source"], **known}

"""Training the language model of a recurrent genotype, and its perplexity on held-out text."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ddarts_ext.data.segments import drawn, in_order
from ddarts_ext.data.text import columns, load_text
from ddarts_ext.genotype import Genotype
from ddarts_ext.nn.recurrent import LanguageModel, of_genotype
from ddarts_ext.runs import interrupts
from ddarts_ext.runs.device import autocast, choose_device, own_state, peak_memory_mib, repeatable, synchronize
from ddarts_ext.runs.draws import DrawsFrom
from ddarts_ext.runs.folder import RunFolder
from ddarts_ext.runs.keeping import Keeping
from ddarts_ext.runs.loggers import Logger, check_loggers, figures_of
from ddarts_ext.runs.optimizers import set_rate
from ddarts_ext.runs.progress import Progress
from ddarts_ext.runs.sums import Sums
from ddarts_ext.training.text import weights
from ddarts_ext.training.text.config import MAY_CHANGE, OPTIONS, TextTrainConfig, resolve
from ddarts_ext.training.text.state import TextRun, copied, loaded

SPREAD, BEYOND = 5.0, 20
"""Of the lengths of segments: their standard deviation, and how far above ``bptt`` they may be."""
JUDGED_COLUMNS = 10


@dataclass(frozen=True)
class TextTrainResult:
    """network: with the weights of the lowest validation loss. perplexity: theirs on the test text. history: one record
    per epoch. run: the folder, if there is one."""

    network: LanguageModel = field(repr=False)
    perplexity: float
    history: list[dict[str, Any]] = field(repr=False)
    run: Path | None = None


class TextTrainer:
    """Trains the language model of ``genotype`` on the training text of ``data``.

    What ``Trainer`` is for images; data: what :func:`ddarts_ext.data.text.load_text` takes; settings: fields of
    :class:`TextTrainConfig`. Raises ValueError, TypeError or OSError for wrong input, before anything is written.
    """

    def __init__(
        self,
        genotype: Genotype | str | Path,
        data: Any = "text",
        *,
        out: str | Path | None = None,
        resume: bool = False,
        device: str | torch.device | None = None,
        progress: Progress | None = None,
        cells: int | None = None,
        loggers: Sequence[Logger] = (),
        **settings: Any,
    ) -> None:
        self.device = choose_device(device, "train")
        if resume and out is None:
            raise ValueError("train: out must be the folder of the run to resume, got None")
        if cells not in (None, 1):
            raise ValueError(f"train: cells must be left out for a recurrent cell, got {cells}")
        self.genotype = genotype if isinstance(genotype, Genotype) else Genotype.load(genotype)
        if not self.genotype.recurrent:
            raise ValueError("train: genotype must be that of a recurrent cell on text, got one for images")
        corpus = load_text(data)
        self.config: TextTrainConfig = resolve(corpus, {**settings, "device": self.device.type})
        self.source = data if isinstance(data, str) else corpus.name
        self.corpus = corpus.to(self.device)
        self.resume = resume
        self.folder = None if out is None else RunFolder(out, "train")
        self.progress = progress if progress is not None else Progress()
        self.loggers = check_loggers("train", loggers)
        self.keeping = Keeping("train", self.folder, self.progress.say, changeable=MAY_CHANGE, epochs=None)
        self.autocast = autocast(self.device, self.config.precision)
        self.words = columns(self.corpus.train, self.config.batch)

    def train(self) -> TextTrainResult:
        """Run the training, or what is left of it."""
        with own_state("train", self.device), repeatable(self.config.deterministic), self.keeping.session():
            run = self._start()
            try:
                self._epochs(run)
            finally:
                self.progress.close()
                for logger in self.loggers:
                    logger.close()
            network = run.network.eval()
            if run.best is not None:
                loaded(network, run.best)
            sums = Sums()
            self._judge(network, self.corpus.test, "test", sums)
            perplexity = _perplexity(sums, "test")
            where = None if self.folder is None else self.folder.path
            result = TextTrainResult(network, perplexity, run.history, where)
            if self.folder is not None:
                self.genotype.save(self.folder.genotype_file)
                weights.write(
                    self.folder.path, network, self.genotype, self.corpus, self.config, self.source, perplexity
                )
        return result

    def _start(self) -> TextRun:
        config = self.config
        with DrawsFrom(torch.Generator().manual_seed(config.seed)):
            network = of_genotype(self.genotype, len(self.corpus.vocabulary), config.channels, config.dropout)
        network = network.to(self.device)
        run = TextRun(
            network,
            torch.optim.SGD(network.parameters(), lr=config.lr, weight_decay=config.weight_decay),
            torch.Generator().manual_seed(config.seed),
            torch.Generator(self.device).manual_seed(config.seed + 1),
            network.start(config.batch),
        )
        known = {**config.to_json(), "source": self.source, "genotype": self.genotype.to_json()}
        if self.folder is not None:
            known["text"] = self.corpus.identity()
        self.keeping.start(run, known, resume=self.resume, announce=lambda: self._announce(network))
        return run

    def _announce(self, network: LanguageModel) -> None:
        corpus = self.corpus
        if corpus.note:
            self.progress.say(f"train: data is {corpus.note}")
        count = sum(parameter.numel() for parameter in network.parameters())
        self.progress.say(
            f"train: {len(corpus.train):,} {corpus.kind}, a vocabulary of {len(corpus.vocabulary):,}, {count:,} weights"
        )

    def _epochs(self, run: TextRun) -> None:
        config = self.config
        steps = max(1, len(self.words) // config.bptt)
        self.progress.start("train", config.epochs, steps, run.epoch)
        while run.epoch < config.epochs:
            began = time.perf_counter()
            sums = Sums()
            with self.keeping.interruptible(run):
                self._train(run)
                with run.judged() as network:
                    network.eval()
                    self._judge(network, self.corpus.valid, "valid", sums)
            with interrupts.held():
                self._finish_epoch(run, sums, began)

    def _train(self, run: TextRun) -> None:
        """The segments of an epoch that are left, with the hidden state between them."""
        config = self.config
        run.network.train()
        run.drawn = run.order.get_state()
        longest = config.bptt + BEYOND
        segments = drawn(len(self.words), config.bptt, run.order, spread=SPREAD, longest=longest)
        if not run.step:
            run.hidden = run.network.start(config.batch)
        for segment in segments[run.step :]:
            with interrupts.held():
                run.under_way = True
                self._step(run, *segment.of(self.words))
                run.follow()
                run.step += 1
                run.under_way = False
            self.progress.step()

    def _step(self, run: TextRun, words: Tensor, targets: Tensor) -> None:
        config = self.config
        masks = run.network.masks(config.batch, run.random)
        with self.autocast():
            out = run.network(words, run.hidden, masks=masks)
            loss, plain = out.loss(targets, config.activation_penalty, config.slowness_penalty)
        run.optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        if config.clip:
            run.sums.add("gradient", nn.utils.clip_grad_norm_(run.network.parameters(), config.clip))
        set_rate(run.optimizer, config.lr * len(words) / config.bptt)
        run.optimizer.step()
        run.hidden = out.hidden.detach()
        run.sums.add("train_loss", plain * targets.numel(), targets.numel())

    @torch.no_grad()
    def _judge(self, network: LanguageModel, text: Tensor, name: str, sums: Sums) -> None:
        words = columns(text, max(1, min(JUDGED_COLUMNS, len(text) // 2)))
        hidden = network.start(words.shape[1])
        for segment in in_order(len(words), self.config.bptt):
            given, targets = segment.of(words)
            with self.autocast():
                out = network(given, hidden)
                loss, _ = out.loss(targets)
            hidden = out.hidden
            sums.add(f"{name}_loss", loss * targets.numel(), targets.numel())

    def _finish_epoch(self, run: TextRun, judged: Sums, began: float) -> None:
        """Record what the epoch came to, keep the best weights, switch to ASGD where it is time, and save it all."""
        self.keeping.check(run, run.network, run.sums, judged)
        figures = run.sums.joined(judged).means()
        synchronize(self.device)
        valid = float(figures["valid_loss"])  # type: ignore[arg-type]
        parts = {name: figures[f"{name}_loss"] for name in ("train", "valid")}
        record: dict[str, Any] = {
            "epoch": run.epoch,
            "lr": self.config.lr,
            **{name: {"loss": loss, "perplexity": _exp(float(loss))} for name, loss in parts.items()},  # type: ignore[arg-type]
            "averaged": run.averaged > 0,
            "seconds": round(time.perf_counter() - began, 3),
            "memory_mib": round(peak_memory_mib(self.device), 1),
        }
        if valid < run.best_loss:
            with run.judged() as network:
                run.best, run.best_loss = copied(network), valid
        self._switch(run, valid)
        run.history.append(record)
        run.epoch, run.step, run.sums = run.epoch + 1, 0, Sums()
        self.keeping.save(run)
        self.progress.epoch(
            f"train perplexity {record['train']['perplexity']:.2f}  validation perplexity {_exp(valid):.2f}"
        )
        for logger in self.loggers:
            logger.log(record["epoch"], figures_of(record))

    def _switch(self, run: TextRun, valid: float) -> None:
        """Begin to average once the validation loss is worse than the best of all but the last epochs."""
        after, losses = self.config.asgd_after, [record["valid"]["loss"] for record in run.history]
        if run.average is None and after and len(losses) > after and valid > min(losses[:-after]):
            self.progress.say(f"train: weights are averaged from epoch {run.epoch + 2} on")
            run.average = copied(run.network)


def _exp(loss: float) -> float:
    return math.exp(min(loss, 700.0))


def _perplexity(sums: Sums, name: str) -> float:
    return _exp(float(sums.means()[f"{name}_loss"]))  # type: ignore[arg-type]


def arguments_of(config: dict[str, Any]) -> dict[str, Any]:
    """The arguments of :class:`TextTrainer` that a config.json was written with."""
    known = {name: option.value_in(config) for name, option in OPTIONS.items()}
    return {"genotype": Genotype.from_json(config["genotype"]), "data": config["source"], **known}

"""The search loop: one for all methods."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

from ddarts_ext.data import Dataset, load
from ddarts_ext.data.batches import in_order, permuted, redrawn
from ddarts_ext.data.order import canonical_order, digest, divided
from ddarts_ext.nn.forward_pass import Pass
from ddarts_ext.runs.device import autocast, choose_device, peak_memory_mib, repeatable, synchronize
from ddarts_ext.runs.folder import RunFolder
from ddarts_ext.runs.options import takes
from ddarts_ext.runs.progress import Progress
from ddarts_ext.runs.schedule import cosine
from ddarts_ext.runs.sums import Sums, judge
from ddarts_ext.search.methods import Method
from ddarts_ext.search.parts import PARTS, Part
from ddarts_ext.search.result import SearchResult, read
from ddarts_ext.search.settings import MAY_CHANGE, OPTIONS, SearchSettings, resolve
from ddarts_ext.search.state import SearchState, initial_state
from ddarts_ext.search.step import Stepper


@takes(OPTIONS)
class Searcher:
    """Searches an architecture on images.

    data: a name or path for :func:`ddarts_ext.data.load`, or a :class:`Dataset`.
    method: ``darts``, ``fairdarts``, ``ddarts``, ``dartopti`` or a :class:`Method`.
    device: ``cpu``, ``cuda``; by default a GPU where there is one.
    out: folder of the run; without one nothing is written. resume: continue the run in it, if there is one.
    parts: more to run between epochs, beside the method's. progress: what is shown meanwhile, nothing by default.
    settings: any field of :class:`SearchSettings`; ``space``, ``epochs``, ``cells``, ``channels`` and ``batch`` of the
    search, by default the method's, or smaller ones for small images; any field of :class:`Objectives`,
    :class:`Architect`, :class:`Weights`, :class:`Discretisation` or :class:`Distance`, such as ``weight_lr=0.025``.
    ``help(Searcher)`` shows them all.

    Raises ValueError, TypeError or FileNotFoundError for wrong input, before anything is computed or written.
    """

    _shrinks = False

    def __init__(
        self,
        data: str | Path | Dataset = "digits",
        method: str | Method = "ddarts",
        *,
        device: str | torch.device | None = None,
        out: str | Path | None = None,
        resume: bool = False,
        parts: Sequence[Part] = (),
        progress: Progress | None = None,
        **settings: Any,
    ) -> None:
        self.device = choose_device(device, "search")
        if resume and out is None:
            raise ValueError("search: out must be the folder of the run to resume, got None")
        dataset = load(data)
        self.config: SearchSettings = resolve(dataset, method, self.device.type, settings)
        if (self.config.method.shrinking is not None) != self._shrinks:
            other = "Searcher" if self._shrinks else "Shrinker"
            raise ValueError(f"search: method {self.config.method.name} must be searched by {other}")
        self.source = str(data) if isinstance(data, (str, Path)) else dataset.name
        self.order = canonical_order(dataset.train)
        self.dataset = dataset.to(self.device)
        self.resume = resume
        self.folder = None if out is None else RunFolder(out, "search")
        self.progress = progress if progress is not None else Progress()
        self._parts = tuple(PARTS[name](self.config.method) for name in self.config.method.parts) + tuple(parts)

    def search(self) -> SearchResult:
        """Run the search, or what is left of it, and read the result."""
        with repeatable(self.config.deterministic):
            state = self._start()
            try:
                self._epochs(state)
            finally:
                self.progress.close()
        result = self._result(state)
        if self.folder is not None:
            result.genotype.save(self.folder.genotype_file)
            self.folder.write_json("genotypes.json", {rule: g.to_json() for rule, g in result.genotypes.items()})
        return result

    def _start(self) -> SearchState:
        state = self._initial()
        if self.folder is not None:
            config = {**self.config.to_json(), "source": self.source, "division": self._division()}
            checkpoint = self.folder.open(config, resume=self.resume, changeable=MAY_CHANGE)
            if checkpoint is not None:
                state.restore(checkpoint, self.folder.history())
        return state

    def _initial(self) -> SearchState:
        return initial_state(self.config, self.dataset, self.device, self._parts)

    def _divided(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Indices of the images that move the weights, and of those that move the alphas and judge."""
        return divided(self.dataset.train.labels, self.order, self.config.split, self.config.seed)

    def _division(self) -> dict[str, Any]:
        """Which images move weights and which alphas, for config.json."""
        parts = dict(zip(("weights", "alphas"), self._divided(), strict=True))
        return {name: {"images": len(part), "digest": digest(self.dataset.train, part)} for name, part in parts.items()}

    def _moves_alphas(self, epoch: int) -> bool:
        return epoch >= self.config.method.architect.alpha_start

    def _rows(self, part: torch.Tensor, state: SearchState) -> torch.Tensor:
        """The training batches of an epoch, indices [S, B]."""
        return permuted(part, self.config.method.batch, state.order)

    def _epochs(self, state: SearchState) -> None:
        method = self._effective(state)
        weight_part, alpha_part = self._divided()
        steps = max(1, len(weight_part) // method.batch)
        stepper = Stepper(state, method, autocast(self.device, self.config.precision))
        self.progress.start("search", method.epochs, steps, state.epoch)
        while state.epoch < method.epochs and not state.stopped:
            began = time.perf_counter()
            epoch = state.epoch
            rates = self._set_rates(state, epoch)
            for part in self._parts:
                part.before_epoch(state, epoch)
            sums = Sums()
            self._train(stepper, weight_part, alpha_part, epoch, sums)
            self._judge(stepper, alpha_part, sums)
            synchronize(self.device)
            record = {"epoch": epoch, **rates, **_figures(state, sums)}
            stops = [part.after_epoch(state, epoch, record) for part in self._parts]
            record["seconds"] = round(time.perf_counter() - began, 3)
            record["memory_mib"] = round(peak_memory_mib(self.device), 1)
            state.history.append(record)
            state.epoch, state.stopped = epoch + 1, any(stops)
            if self.folder is not None:
                self.folder.save(state.checkpoint(), state.history)
            self.progress.epoch(_line(record))

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
        weight_lr = cosine(weights.weight_lr, weights.weight_lr_min, epoch, method.epochs)
        alpha_lr = architect.alpha_lr
        if architect.alpha_lr_min is not None:
            # The alphas' cosine begins with their first step, the weights' with the pre-training.
            first = architect.alpha_start
            alpha_lr = cosine(alpha_lr, architect.alpha_lr_min, max(0, epoch - first), method.epochs - first)
        for optimizer, rate in ((state.weight_optimizer, weight_lr), (state.alpha_optimizer, alpha_lr)):
            for group in optimizer.param_groups:
                group["lr"] = rate
        return {"weight_lr": weight_lr, "alpha_lr": alpha_lr}

    def _train(
        self, stepper: Stepper, weight_part: torch.Tensor, alpha_part: torch.Tensor, epoch: int, sums: Sums
    ) -> None:
        method, state = self.config.method, stepper.state
        searching = self._moves_alphas(epoch)
        state.net.train()
        train_rows = self._rows(weight_part, state)
        valid_rows = redrawn(alpha_part, method.batch, len(train_rows), state.order)
        valid = self.dataset.train.batches(valid_rows) if searching else None
        for step, train_batch in enumerate(self.dataset.train.batches(train_rows)):
            batch = self._prepared(train_batch, state)
            if valid is not None:
                number = epoch * len(train_rows) + step
                stepper.architecture(number, batch, self._prepared(next(valid), state), sums)
            stepper.weights(batch, sums)
            self.progress.step()

    def _prepared(
        self, batch: tuple[torch.Tensor, torch.Tensor], state: SearchState
    ) -> tuple[torch.Tensor, torch.Tensor]:
        images, labels = batch
        return self.dataset.augment(images, self.config.augmentation, state.augmentation), labels

    @torch.no_grad()
    def _judge(self, stepper: Stepper, alpha_part: torch.Tensor, sums: Sums) -> None:
        state = stepper.state
        state.net.eval()
        weights = state.architecture.weights()
        for rows in in_order(alpha_part, max(self.config.method.batch, 256)):
            for images, labels in self.dataset.train.batches(rows):
                with stepper.autocast():
                    logits = state.net(self.dataset.normalise(images), weights, Pass(statistics="running"))
                    loss = F.cross_entropy(logits, labels)
                judge(sums, "valid", logits, labels, loss)

    def _result(self, state: SearchState) -> SearchResult:
        architecture = state.architecture
        weights = architecture.relax(architecture.table.detach()).double().cpu()
        reading = read(
            weights, state.space, self.config.method.discretisation, architecture.owner, state.net.reductions
        )
        if reading.note:
            self.progress.say(f"search: {reading.note}, so the genotype is by the rule {reading.rule!r}")
        return SearchResult(
            genotype=reading.genotype,
            rule=reading.rule,
            note=reading.note,
            genotypes=reading.all,
            history=state.history,
            alphas=architecture.by_cell(architecture.table.detach()).cpu(),
            classes=len(self.dataset.classes),
            in_channels=self.dataset.channels,
            stem=self.config.stem,
            run=None if self.folder is None else self.folder.path,
        )


def _figures(state: SearchState, sums: Sums) -> dict[str, Any]:
    """What the history holds of an epoch: means, and the alphas of every cell."""
    figures = sums.means()
    record: dict[str, Any] = {}
    for name in ("train", "architecture", "valid"):
        part = {key: figures[f"{name}_{key}"] for key in ("loss", "accuracy") if f"{name}_{key}" in figures}
        if part:
            record[name] = part
    for name in ("zero_one", "ablation", "contributions"):
        if name in figures:
            record[name] = figures[name]
    record["owner"] = list(state.architecture.owner)
    record["alphas"] = state.architecture.by_cell(state.architecture.table.detach()).tolist()
    return record


def _line(record: Mapping[str, Any]) -> str:
    """Losses and accuracies; a search that judges on no images has those of training alone."""
    names = {"train": "train", "valid": "validation"}
    figures = [
        f"{label} loss {record[part]['loss']:.3f} accuracy {record[part]['accuracy']:.1%}"
        for part, label in names.items()
        if part in record
    ]
    if "distance" in record:
        figures.append(f"distance {record['distance']['start']:.4f}")
    return "  ".join(figures)

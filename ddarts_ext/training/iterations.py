"""The steps of an epoch of a training: as Python runs them, or captured as CUDA graphs and replayed."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor
from torch.optim import Optimizer

from ddarts_ext.data import Dataset
from ddarts_ext.data.batches import skipping
from ddarts_ext.data.captured import CapturedSteps, why_no_batches
from ddarts_ext.data.transform_crops import erased
from ddarts_ext.data.transforms import transformed
from ddarts_ext.training.config import TrainConfig
from ddarts_ext.training.state import Run
from ddarts_ext.training.step import Step


class Iterations:
    """Feeds the steps of a run from a data set, which lies on its device."""

    def __init__(self, run: Run, step: Step, dataset: Dataset, config: TrainConfig) -> None:
        self.run, self.step, self.dataset, self.config = run, step, dataset, config

    def epoch(self, rows: Sequence[Tensor]) -> Iterator[Callable[[], None]]:
        """A call for each step of an epoch that the run has not finished; rows: the epoch's batches, see
        :func:`.permuted`, of several ranks the part of this one."""
        for part in skipping(rows, self.run.step):
            for images, labels in self.dataset.train.batches(part):
                yield functools.partial(self._one, images, labels)

    def _one(self, images: Tensor, labels: Tensor) -> None:
        self.step(self.run, self._augmented(images), labels)

    def _augmented(self, images: Tensor) -> Tensor:
        config, random = self.config, self.run.random
        inputs = transformed(images, config.transforms, random)
        inputs = self.dataset.augment(inputs, config.augmentation, random)
        if config.transforms.erasing:
            inputs = erased(inputs, config.transforms.erasing, random)
        return inputs.contiguous() if config.layout == "contiguous" else inputs


def why_not(config: TrainConfig, dataset: Dataset, device: torch.device, optimizer: str | None) -> str | None:
    """What keeps the steps of a training from being captured, None where nothing does. optimizer: what keeps those of
    the caller's optimiser."""
    reasons = {
        "mixup and cutmix are drawn on the host": bool(config.mixup or config.cutmix),
        "jitter and RandAugment choose on the host": bool(config.transforms.jitter or config.transforms.randaugment),
        "the network is compiled": config.compile,
    }
    batches = why_no_batches(dataset, device, config.augmentation.autoaugment)
    return batches or next((reason for reason, holds in reasons.items() if holds), optimizer)


class CapturedIterations(CapturedSteps, Iterations):
    """Steps that are replayed, one graph for each size of batch; results are those of :class:`Iterations`.

    failed: is told why a step could not be captured; all then run as Python does.
    """

    def __init__(
        self, run: Run, step: Step, dataset: Dataset, config: TrainConfig, failed: Callable[[Exception], None]
    ) -> None:
        Iterations.__init__(self, run, step, dataset, config)
        CapturedSteps.__init__(self, dataset, run.random.device, failed)

    def generators(self) -> Sequence[torch.Generator]:
        return [self.run.random]

    def optimizers(self) -> Sequence[Optimizer]:
        return [self.run.optimizer]

    def tensors(self) -> Sequence[Tensor]:
        network = self.run.network
        drop = [] if self.step.drop is None else [self.step.drop]
        return [*network.parameters(), *network.buffers(), *drop, *self.run.sums.tensors()]

    def drop_gradients(self) -> None:
        self.run.optimizer.zero_grad(set_to_none=True)

    def epoch(self, rows: Sequence[Tensor]) -> Iterator[Callable[[], None]]:
        self._start_all("train", rows, self.run.step)
        self._forget_what_moved()
        for part in skipping(rows, self.run.step):
            for _ in range(len(part)):
                yield functools.partial(self._captured, part.shape[1])
        self._remember()

    def _captured(self, size: int) -> None:
        self._run(size, functools.partial(self._next, size), self.run.sums)
        self._pace.step()

    def _next(self, size: int) -> None:
        self._one(*self._tables["train", size].take())
        # Left for later, they would hold memory of all graphs.
        self.run.optimizer.zero_grad(set_to_none=True)

"""Everything a training changes, and its checkpoint."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ddarts_ext.runs.device import restore_generator
from ddarts_ext.runs.optimizers import state_of, take_up
from ddarts_ext.runs.sums import Sums
from ddarts_ext.training.average import Average
from ddarts_ext.training.best import Best


@dataclass
class Run:
    """The network, its optimiser, the sources of randomness, and what was reached.

    order: CPU generator of the order of images. random: generator on the device, of crops and drop path. epoch:
    finished epochs. step: finished steps of the epoch after them, with ``sums``, their figures, and ``drawn``, the
    state of ``order`` before that epoch was drawn. under_way: a step has begun and has not ended. best: the best epoch,
    where one is kept. average: of the weights, where one is.
    """

    network: Any
    optimizer: torch.optim.Optimizer
    order: torch.Generator
    random: torch.Generator
    epoch: int = 0
    step: int = 0
    under_way: bool = False
    sums: Sums = field(default_factory=Sums)
    drawn: Tensor | None = None
    history: list[dict[str, Any]] = field(default_factory=list)
    best: Best | None = None
    average: Average | None = None

    @property
    def judged(self) -> Any:
        """The network that is judged and kept."""
        return self.network if self.average is None else self.average.network

    def checkpoint(self) -> dict[str, Any]:
        """All of it but the history, of things that ``torch.load(weights_only=True)`` reads."""
        return {
            "epoch": self.epoch,
            "step": self.step,
            "sums": self.sums.state_dict() if self.step else None,
            "network": self.network.state_dict(),
            "optimizer": state_of(self.optimizer),
            # An epoch that is under way is drawn again, and its finished steps are skipped.
            "order": self.drawn if self.step and self.drawn is not None else self.order.get_state(),
            "random": self.random.get_state(),
            **({} if self.best is None else {"best": self.best.to_checkpoint()}),
            **({} if self.average is None else {"average": self.average.network.state_dict()}),
        }

    def restore(self, checkpoint: dict[str, Any], history: list[dict[str, Any]]) -> None:
        """Continue from :meth:`checkpoint`; ``history`` are the records of the epochs that it has finished."""
        self.network.load_state_dict(checkpoint["network"])
        take_up(self.optimizer, checkpoint["optimizer"])
        self.order.set_state(checkpoint["order"])
        restore_generator(self.random, checkpoint["random"])
        self.epoch, self.step = int(checkpoint["epoch"]), int(checkpoint["step"])
        if self.step:
            self.sums.load_state_dict(checkpoint["sums"], self.random.device)
        self.history = history
        if self.average is not None:
            self.average.network.load_state_dict(checkpoint["average"])
        if "best" in checkpoint:
            device = next(self.network.parameters()).device
            kept = checkpoint["best"]
            weights = {name: tensor.to(device) for name, tensor in kept["weights"].items()}
            self.best = Best(int(kept["epoch"]), float(kept["accuracy"]), float(kept["loss"]), weights)

"""Everything a training on text changes, and its checkpoint."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ddarts_ext.nn.recurrent import LanguageModel
from ddarts_ext.runs.device import restore_generator
from ddarts_ext.runs.optimizers import state_of, take_up
from ddarts_ext.runs.sums import Sums

Weights = dict[str, Tensor]


@dataclass
class TextRun:
    """The network, its optimiser, the sources of randomness, and what was reached.

    order: CPU generator of the lengths of segments. random: generator on the device, of dropout. hidden: the state that
    the next segment goes on from. drawn: ``order`` before the epoch that is under way was drawn. average: mean of the
    weights over the ``averaged`` steps since the switch to ASGD, None before. best: the weights with the lowest
    validation loss, ``best_loss``.
    """

    network: LanguageModel
    optimizer: torch.optim.SGD
    order: torch.Generator
    random: torch.Generator
    hidden: Tensor
    epoch: int = 0
    step: int = 0
    under_way: bool = False
    sums: Sums = field(default_factory=Sums)
    drawn: Tensor | None = None
    history: list[dict[str, Any]] = field(default_factory=list)
    average: Weights | None = None
    averaged: int = 0
    best: Weights | None = None
    best_loss: float = float("inf")

    @torch.no_grad()
    def follow(self) -> None:
        """Let the average follow the weights after a step, if there is one."""
        if self.average is None:
            return
        self.averaged += 1
        for name, parameter in self.network.named_parameters():
            self.average[name].lerp_(parameter.detach(), 1 / self.averaged)

    @contextmanager
    def judged(self) -> Iterator[LanguageModel]:
        """The network with the weights that are judged: the average where there is one."""
        if self.average is None or not self.averaged:
            yield self.network
            return
        own = copied(self.network)
        loaded(self.network, self.average)
        try:
            yield self.network
        finally:
            loaded(self.network, own)

    def checkpoint(self) -> dict[str, Any]:
        """All of it but the history, of things that ``torch.load(weights_only=True)`` reads."""
        return {
            "epoch": self.epoch,
            "step": self.step,
            "sums": self.sums.state_dict() if self.step else None,
            "network": self.network.state_dict(),
            "optimizer": state_of(self.optimizer),
            "order": self.drawn if self.step and self.drawn is not None else self.order.get_state(),
            "random": self.random.get_state(),
            "hidden": self.hidden,
            "average": self.average,
            "averaged": self.averaged,
            "best": self.best,
            "best_loss": self.best_loss,
        }

    def restore(self, checkpoint: dict[str, Any], history: list[dict[str, Any]]) -> None:
        """Continue from :meth:`checkpoint`; ``history`` are the records of the epochs that it has finished."""
        device = self.hidden.device
        self.network.load_state_dict(checkpoint["network"])
        take_up(self.optimizer, checkpoint["optimizer"])
        self.order.set_state(checkpoint["order"])
        restore_generator(self.random, checkpoint["random"])
        self.hidden = checkpoint["hidden"].to(device)
        self.epoch, self.step = int(checkpoint["epoch"]), int(checkpoint["step"])
        if self.step:
            self.sums.load_state_dict(checkpoint["sums"], device)
        self.averaged, self.best_loss = int(checkpoint["averaged"]), float(checkpoint["best_loss"])
        for name in ("average", "best"):
            kept = checkpoint[name]
            setattr(self, name, None if kept is None else {key: value.to(device) for key, value in kept.items()})
        self.history = history


def copied(network: LanguageModel) -> Weights:
    """A copy of the weights, by name."""
    return {name: parameter.detach().clone() for name, parameter in network.named_parameters()}


@torch.no_grad()
def loaded(network: LanguageModel, weights: Weights) -> None:
    """Give the network these weights."""
    for name, parameter in network.named_parameters():
        parameter.copy_(weights[name])

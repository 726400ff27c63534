"""Everything a search changes, and its checkpoint."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Protocol, cast

import torch
from torch import Tensor, nn

from ddarts_ext.nn.graph import SearchGraph
from ddarts_ext.nn.layout import lay_out
from ddarts_ext.nn.supernet import Supernet
from ddarts_ext.runs.device import restore_generator
from ddarts_ext.runs.optimizers import OptimizerFactory, state_of, take_up
from ddarts_ext.runs.sums import Sums
from ddarts_ext.search.architecture import ArchitectureParameters
from ddarts_ext.search.contributions.budget import Budget
from ddarts_ext.search.cost import ExpectedCost
from ddarts_ext.search.op_stop import OpStop
from ddarts_ext.spaces import Space

SCHEDULED = ("op_entropy", "edge_entropy", "beta_decay", "anchor", "radius", "skip_dropout", "cost")
"""What follows a schedule, beside what the alphas hold themselves."""


class Kept(Protocol):
    """What has a state of its own that the checkpoint keeps: a part of the search."""

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any]) -> None: ...


@dataclass
class SearchState:
    """The supernet, the alphas, their optimisers, the sources of randomness, and what was reached.

    order: CPU generator of the order of images. augmentation: generator on the device, of crops and random weights.
    epoch: finished epochs. step: finished steps of the epoch after them, with ``sums``, their figures, and ``drawn``,
    the state of ``order`` before that epoch was drawn. under_way: a step has begun and has not ended. stopped: a part
    has ended the search. held: the last ablation loss, reused between computations, [rows] value and contributions and
    [rows, E, O] gradient. budget: memory of contributions, as it was chosen; another one gives other roundings.
    strengths: what follows a schedule, as it is in this epoch, [] each: factors of terms by the names of their sums,
    and what :meth:`.Mixing.scheduled` names. op_stop: which ops have stopped training, where single ones may.
    cost: that of the architecture, where there is a budget.
    """

    space: Space
    net: Supernet
    architecture: ArchitectureParameters
    weight_optimizer: torch.optim.Optimizer
    alpha_optimizer: torch.optim.Optimizer
    order: torch.Generator
    augmentation: torch.Generator
    parts: tuple[Kept, ...] = ()
    epoch: int = 0
    step: int = 0
    under_way: bool = False
    sums: Sums = field(default_factory=Sums)
    drawn: Tensor | None = None
    stopped: bool = False
    held: dict[str, Tensor] = field(default_factory=dict)
    budget: Budget | None = None
    strengths: dict[str, Tensor] = field(default_factory=dict)
    op_stop: OpStop | None = None
    cost: ExpectedCost | None = None
    history: list[dict[str, Any]] = field(default_factory=list)

    def hold(self, name: str, value: Tensor) -> None:
        """Keep ``value`` in :attr:`held`, in the memory that the one before has."""
        if name in self.held:
            self.held[name].copy_(value.detach())
        else:
            self.held[name] = value.detach().clone()

    @property
    def mask(self) -> Tensor:
        """Bool [rows, E, O], on the CPU: the ops that are left, of a search that removes some."""
        if self.architecture.mask is None:
            raise TypeError("search: state must be of a search that removes ops, got one that does not")
        return self.architecture.mask.cpu()

    def decided(self) -> dict[str, Tensor]:
        """What the search has decided so far, by name."""
        betas, mask = self.architecture.edge_table, self.architecture.mask
        found: dict[str, Tensor] = {"alphas": self.architecture.table, **({} if betas is None else {"betas": betas})}
        return found if mask is None else {**found, "masks": mask}

    def shrink(self, mask: Tensor) -> None:
        """Keep the ops in ``mask`` [rows, E, O] alone: others have no weights and no momentum, and are not computed."""
        assert self.architecture.mask is not None
        self.architecture.mask.copy_(mask)
        for cell, row in zip(self.net.cells, self.architecture.owner, strict=True):
            cast(SearchGraph, cell).prune(mask[row])
        if self.architecture.table.device.type != "cpu":
            lay_out(self.net)
        forget(self.weight_optimizer, self.net.parameters())

    def checkpoint(self) -> dict[str, Any]:
        """All of it but the history, of things that ``torch.load(weights_only=True)`` reads."""
        return {
            "epoch": self.epoch,
            "step": self.step,
            "sums": self.sums.state_dict() if self.step else None,
            "stopped": self.stopped,
            "net": self.net.state_dict(),
            "alphas": self.architecture.table.detach(),
            "betas": None if self.architecture.edge_table is None else self.architecture.edge_table.detach(),
            "weight_optimizer": state_of(self.weight_optimizer),
            "alpha_optimizer": state_of(self.alpha_optimizer),
            # An epoch that is under way is drawn again, and its finished steps are skipped.
            "order": self.drawn if self.step and self.drawn is not None else self.order.get_state(),
            "augmentation": self.augmentation.get_state(),
            "held": self.held,
            "budget": None if self.budget is None else [self.budget.memory, self.budget.keep],
            "parts": [part.state_dict() for part in self.parts],
            **({} if self.architecture.mask is None else {"mask": self.mask}),
            **({} if self.op_stop is None else {"op_stop": self.op_stop.state_dict()}),
        }

    def restore(self, checkpoint: dict[str, Any], history: list[dict[str, Any]]) -> None:
        """Continue from :meth:`checkpoint`; the history is cut back to the epochs that it has finished."""
        if len(checkpoint["parts"]) != len(self.parts):
            raise ValueError(
                f"search: parts must be the {len(checkpoint['parts'])} of the run to resume, got {len(self.parts)}"
            )
        device = self.architecture.table.device
        if self.architecture.mask is not None:
            if "mask" not in checkpoint:
                raise ValueError("search: checkpoint must be of a search that removes ops, got one without masks")
            # The network takes the shape it had before it takes the weights; so may parts change it.
            self.shrink(checkpoint["mask"])
        for part, state in zip(self.parts, checkpoint["parts"], strict=True):
            part.load_state_dict(state)
        self.net.load_state_dict(checkpoint["net"])
        with torch.no_grad():
            self.architecture.table.copy_(checkpoint["alphas"])
            if self.architecture.edge_table is not None:
                self.architecture.edge_table.copy_(checkpoint["betas"])
        if self.op_stop is not None:
            self.op_stop.load_state_dict(checkpoint["op_stop"])
        take_up(self.weight_optimizer, checkpoint["weight_optimizer"])
        take_up(self.alpha_optimizer, checkpoint["alpha_optimizer"])
        self.order.set_state(checkpoint["order"])
        restore_generator(self.augmentation, checkpoint["augmentation"])
        self.held = {name: tensor.to(device) for name, tensor in checkpoint["held"].items()}
        chosen = checkpoint.get("budget")
        self.budget = None if chosen is None else Budget(float(chosen[0]), bool(chosen[1]))
        self.epoch, self.step = int(checkpoint["epoch"]), int(checkpoint["step"])
        if self.step:
            self.sums.load_state_dict(checkpoint["sums"], device)
        self.stopped = bool(checkpoint["stopped"])
        self.history = history[: self.epoch]


@dataclass(frozen=True)
class Optimizers:
    """Functions of the caller that make the optimisers of the weights and of the alphas, where there are such."""

    weights: OptimizerFactory | None = None
    alphas: OptimizerFactory | None = None


def forget(optimizer: torch.optim.Optimizer, parameters: Iterable[nn.Parameter]) -> None:
    """Let an optimiser keep the state of ``parameters`` alone, in the order they had."""
    left = {id(parameter) for parameter in parameters}
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            if id(parameter) not in left:
                optimizer.state.pop(parameter, None)
        group["params"] = [parameter for parameter in group["params"] if id(parameter) in left]

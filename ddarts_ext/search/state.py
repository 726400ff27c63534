"""Everything a search changes, and its checkpoint."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar, cast

import torch
from torch import Tensor

from ddarts_ext.data import Dataset
from ddarts_ext.nn import recurrent
from ddarts_ext.nn.layout import lay_out
from ddarts_ext.nn.nasbench201 import NASBench201Supernet
from ddarts_ext.nn.supernet import Supernet
from ddarts_ext.runs.device import restore_generator
from ddarts_ext.runs.draws import DrawsFrom
from ddarts_ext.runs.optimizers import OptimizerFactory, capturable, own_optimizer, rates_as_tensors, state_of, take_up
from ddarts_ext.runs.sums import Sums
from ddarts_ext.search.architecture import ArchitectureParameters, owners
from ddarts_ext.search.contributions.budget import Budget
from ddarts_ext.search.edge_weights import EdgeWeights
from ddarts_ext.search.methods import Architect, Weights
from ddarts_ext.search.settings import SearchSettings
from ddarts_ext.spaces import Space

SCHEDULED = ("op_entropy", "edge_entropy", "beta_decay", "anchor", "radius")
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
    and what :meth:`.Mixing.scheduled` names.
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
    history: list[dict[str, Any]] = field(default_factory=list)

    def hold(self, name: str, value: Tensor) -> None:
        """Keep ``value`` in :attr:`held`, in the memory that the one before has."""
        if name in self.held:
            self.held[name].copy_(value.detach())
        else:
            self.held[name] = value.detach().clone()

    def decided(self) -> dict[str, Tensor]:
        """What the search has decided so far, by name."""
        betas = self.architecture.edge_table
        return {"alphas": self.architecture.table, **({} if betas is None else {"betas": betas})}

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
        }

    def restore(self, checkpoint: dict[str, Any], history: list[dict[str, Any]]) -> None:
        """Continue from :meth:`checkpoint`; the history is cut back to the epochs that it has finished."""
        if len(checkpoint["parts"]) != len(self.parts):
            raise ValueError(
                f"search: parts must be the {len(checkpoint['parts'])} of the run to resume, got {len(self.parts)}"
            )
        device = self.architecture.table.device
        # Parts first: they may have changed the network (shrinking), which must have that shape to take the weights.
        for part, state in zip(self.parts, checkpoint["parts"], strict=True):
            part.load_state_dict(state)
        self.net.load_state_dict(checkpoint["net"])
        with torch.no_grad():
            self.architecture.table.copy_(checkpoint["alphas"])
            if self.architecture.edge_table is not None:
                self.architecture.edge_table.copy_(checkpoint["betas"])
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


State = TypeVar("State", bound=SearchState)


def build_supernet(settings: SearchSettings, dataset: Dataset) -> Supernet:
    """The whole supernet of the space of a search; ``cells`` counts all cells."""
    method, classes = settings.method, len(dataset.classes)
    if method.text is not None:
        text = method.text
        rates = (text.dropout_output, text.dropout_hidden, text.dropout_inputs)
        dropout = recurrent.Dropout(*rates, text.dropout_embedding, text.dropout_words)
        return cast(Supernet, recurrent.supernet(settings.space(), classes, method.channels, dropout))
    if settings.space().selection == "every_edge":
        net = NASBench201Supernet(method.channels, method.cells // 3, classes, in_channels=dataset.channels)
        # The loop asks nothing of a supernet but its parameters, its reductions and its forward, which both kinds have.
        return cast(Supernet, net)
    return Supernet(
        settings.space(),
        method.cells,
        method.channels,
        classes,
        in_channels=dataset.channels,
        stem=settings.stem,
        reductions=settings.reductions,
    )


def initial_state(
    settings: SearchSettings,
    dataset: Dataset,
    device: torch.device,
    parts: tuple[Kept, ...] = (),
    own: Optimizers | None = None,
) -> SearchState:
    """The start of a search: all random numbers come from the seed, and the global generators are left as they were."""
    method, space = settings.method, settings.space()
    with DrawsFrom(torch.Generator().manual_seed(settings.seed)):
        net = build_supernet(settings, dataset)
        edge_weights = None
        if method.edge_relaxation is not None:
            edge_weights = EdgeWeights(space, method.discretisation.configuration, method.edge_relaxation)
        architecture = ArchitectureParameters(
            len(space.edges),
            len(space.ops),
            owners(method.sharing, method.cells, net.reductions, settings.sequence),
            method.relaxation,
            initial_scale=method.architect.alpha_init,
            edge_weights=edge_weights,
            sampler=method.mixing.sampler,
            skip=space.op_index("skip_connect") if method.mixing.auxiliary_skip else None,
        )
    if settings.start is not None:
        with torch.no_grad():
            architecture.table.copy_(settings.start.table(space, architecture.owner))
    return assembled(SearchState, settings, net, architecture, device, parts, own or Optimizers())


def assembled(
    kind: type[State],
    settings: SearchSettings,
    net: Supernet,
    architecture: ArchitectureParameters,
    device: torch.device,
    parts: tuple[Kept, ...],
    own: Optimizers,
) -> State:
    """A supernet and its alphas on their device, with their optimisers and the sources of randomness."""
    method = settings.method
    net, architecture = net.to(device), architecture.to(device)
    if device.type != "cpu":
        lay_out(net)
    state = kind(
        space=settings.space(),
        net=net,
        architecture=architecture,
        weight_optimizer=_weight_optimizer(method.weights, net, own.weights),
        alpha_optimizer=_alpha_optimizer(method.architect, architecture, device, own.alphas),
        order=torch.Generator().manual_seed(settings.seed),
        # Meta tensors, by which a step is counted, have no generator and draw nothing.
        augmentation=torch.Generator("cpu" if device.type == "meta" else device).manual_seed(settings.seed + 1),
        parts=parts,
        strengths={
            **{name: torch.zeros((), device=device) for name in SCHEDULED},
            "temperature": architecture.temperature,
            "auxiliary_skip": architecture.auxiliary,
        },
    )
    if device.type == "cuda":
        for optimizer in (state.weight_optimizer, state.alpha_optimizer):
            if capturable(optimizer):
                rates_as_tensors(optimizer)
    return state


def _weight_optimizer(how: Weights, net: Supernet, make: OptimizerFactory | None) -> torch.optim.Optimizer:
    if make is not None:
        return own_optimizer("search", "optimizer", make, list(net.parameters()))
    return torch.optim.SGD(
        net.parameters(),
        lr=how.weight_lr,
        momentum=how.momentum,
        weight_decay=how.weight_decay,
        nesterov=how.nesterov,
        fused=True,
    )


def _alpha_optimizer(
    how: Architect, architecture: ArchitectureParameters, device: torch.device, make: OptimizerFactory | None
) -> torch.optim.Optimizer:
    """One optimiser over the table is one per row: every step is elementwise, and all rows have the same rate. Betas
    are a group of their own, since they move before the alphas do."""
    groups = [{"params": [parameter]} for parameter in architecture.parameters()]
    if make is not None:
        return own_optimizer("search", "alpha_optimizer", make, groups)
    if how.alpha_optimizer == "sgd":
        return torch.optim.SGD(
            groups, lr=how.alpha_lr, momentum=how.alpha_momentum, weight_decay=how.alpha_weight_decay, fused=True
        )
    return torch.optim.Adam(
        groups,
        lr=how.alpha_lr,
        betas=how.alpha_betas,
        weight_decay=how.alpha_weight_decay,
        # Otherwise its count of steps lies on the CPU, and every step reads it.
        fused=device.type != "cpu",
        capturable=device.type == "cuda",
    )

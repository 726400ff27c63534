"""The start of a search: its supernet, its alphas and their optimisers, all from its seed."""

from __future__ import annotations

from typing import cast

import torch

from ddarts_ext.data import Dataset
from ddarts_ext.nn import recurrent
from ddarts_ext.nn.joined import JoinedSGD
from ddarts_ext.nn.layout import lay_out
from ddarts_ext.nn.nasbench201 import NASBench201Supernet
from ddarts_ext.nn.supernet import Supernet
from ddarts_ext.runs.draws import DrawsFrom
from ddarts_ext.runs.optimizers import OptimizerFactory, capturable, own_optimizer, rates_as_tensors
from ddarts_ext.search.architecture import ArchitectureParameters, owners
from ddarts_ext.search.edge_weights import EdgeWeights
from ddarts_ext.search.methods import Architect, Weights
from ddarts_ext.search.op_stop import OpStop
from ddarts_ext.search.settings import SearchSettings
from ddarts_ext.search.state import SCHEDULED, Kept, Optimizers, SearchState


def build_supernet(settings: SearchSettings, dataset: Dataset) -> Supernet:
    """The whole supernet of the space of a search; ``cells`` counts all cells."""
    method, classes = settings.method, len(dataset.classes)
    partial, drops = method.mixing.partial_channels, any(method.stages.skip_dropout)
    if method.text is not None:
        text = method.text
        rates = (text.dropout_output, text.dropout_hidden, text.dropout_inputs)
        dropout = recurrent.Dropout(*rates, text.dropout_embedding, text.dropout_words)
        return cast(Supernet, recurrent.supernet(settings.space(), classes, method.channels, dropout))
    if settings.space().selection == "every_edge":
        net = NASBench201Supernet(
            method.channels,
            method.cells // 3,
            classes,
            in_channels=dataset.channels,
            partial=partial,
            drop_skips=drops,
        )
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
        partial=partial,
        drop_skips=drops,
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
        if method.edges_by is not None:
            edge_weights = EdgeWeights(space, method.discretisation.configuration, method.edges_by)
        architecture = ArchitectureParameters(
            len(space.edges),
            len(space.ops),
            owners(method.sharing, method.cells, net.reductions, settings.sequence),
            method.relaxation,
            initial_scale=method.architect.alpha_init,
            edge_weights=edge_weights,
            sampler=method.mixing.sampler,
            masked=method.removes,
            skip=space.op_index("skip_connect") if method.mixing.auxiliary_skip else None,
        )
    if settings.start is not None:
        with torch.no_grad():
            architecture.table.copy_(settings.start.table(space, architecture.owner))
    return assembled(settings, net, architecture, device, parts, own or Optimizers())


def assembled(
    settings: SearchSettings,
    net: Supernet,
    architecture: ArchitectureParameters,
    device: torch.device,
    parts: tuple[Kept, ...],
    own: Optimizers,
) -> SearchState:
    """A supernet and its alphas on their device, with their optimisers and the sources of randomness."""
    method, stops = settings.method, settings.method.stopping
    net, architecture = net.to(device), architecture.to(device)
    if device.type != "cpu":
        lay_out(net)
    state = SearchState(
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
        op_stop=None if not stops.op_stop else OpStop(net.cells, stops.op_stop_similarity, stops.op_stop_window),
    )
    if device.type == "cuda":
        for optimizer in (state.weight_optimizer, state.alpha_optimizer):
            if capturable(optimizer):
                rates_as_tensors(optimizer)
    return state


def _weight_optimizer(how: Weights, net: Supernet, make: OptimizerFactory | None) -> torch.optim.Optimizer:
    if make is not None:
        return own_optimizer("search", "optimizer", make, list(net.parameters()))
    return JoinedSGD(
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

"""Marginal contributions by definition, one whole network per removed cell: the oracle of the one-pass version."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor

from ddarts_ext.nn.forward_pass import Pass
from ddarts_ext.runs.objective import Objective
from ddarts_ext.search.contributions.marginal import AblationGradient, Contributions, Inactive, Removal, removed_cells

if TYPE_CHECKING:
    from ddarts_ext.nn.cell import Cell
    from ddarts_ext.nn.supernet import Supernet


def contributions_naive(
    net: Supernet,
    table: Tensor,
    to_weights: Callable[[Tensor], Tensor],
    images: Tensor,
    labels: Tensor,
    *,
    owner: Sequence[int] | None = None,
    inactive: Inactive = "bypass",
    gradient: AblationGradient = "exact",
    removal: Removal = "all",
    generator: torch.Generator | None = None,
    objective: Objective | None = None,
) -> Contributions:
    """The same as :func:`.marginal.contributions`, by N + 1 forwards and as many backwards."""
    leaf, minimised = table.detach().requires_grad_(True), objective or Objective()
    groups = removed_cells(range(len(net.cells)) if owner is None else owner, removal)
    drawn = drawn_weights(to_weights(table.detach()), inactive, generator)
    whole = Pass() if net.training else Pass(statistics="running")
    logits = logits_without(net, to_weights(leaf), images, (), drawn, whole)
    loss = minimised.loss(logits, labels)
    full = torch.autograd.grad(loss, leaf)[0]
    without: dict[int, Tensor] = {}
    summed, own = torch.zeros_like(full), torch.zeros_like(full)
    p = Pass(statistics="batch" if net.training else "running")
    for group in groups:
        with torch.set_grad_enabled(gradient == "exact"):
            removed = minimised.loss(logits_without(net, to_weights(leaf), images, group.cells, drawn, p), labels)
        without[group.row] = removed.detach()
        if removed.requires_grad:
            found = torch.autograd.grad(removed, leaf, allow_unused=True)[0]
            if found is not None:
                summed += found
                own[group.row] = found[group.row]
    return Contributions(
        loss.detach(),
        torch.stack([without[row] for row in sorted(without)]),
        logits.detach(),
        full,
        summed if gradient == "exact" else None,
        own if gradient == "exact" and any(group.sharing for group in groups) else None,
    )


def logits_without(
    net: Supernet, weights: Tensor, images: Tensor, removed: Collection[int], drawn: Tensor | None, p: Pass
) -> Tensor:
    """Logits of the network without the cells ``removed``, differentiable in ``weights`` [cells, E, O].

    drawn: the op weights with which a removed cell is evaluated; None for the bypass.
    """
    s0, s1 = net.stem_states(images, p)
    for index, cell in enumerate(cast("list[Cell]", list(net.cells))):
        if index not in removed:
            out = cell(s0, s1, weights[index], p)
        elif drawn is None:
            out = cell.removed(s1, p)
        else:
            out = cell(s0, s1, drawn[index], p)
        s0, s1 = s1, out
    return net.head(s1, p)


def drawn_weights(weights: Tensor, inactive: Inactive, generator: torch.Generator | None) -> Tensor | None:
    """The op weights of a removed cell: zeros, halves or random numbers; None for the bypass."""
    if inactive == "random":
        return torch.rand(weights.shape, generator=generator, device=weights.device, dtype=weights.dtype)
    return None if inactive == "bypass" else torch.full_like(weights, 0.5 if inactive == "half" else 0.0)

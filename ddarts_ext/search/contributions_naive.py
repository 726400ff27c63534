"""Marginal contributions as they are defined: one whole forward per removed cell. The oracle of the one-pass version."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ddarts_ext.nn.forward_pass import Pass
from ddarts_ext.search.contributions import (
    AblationGradient,
    Contributions,
    Inactive,
    Removal,
    removed_cells,
)


def contributions_naive(
    net: Any,
    table: Tensor,
    to_weights: Callable[[Tensor], Tensor],
    images: Tensor,
    labels: Tensor,
    *,
    owner: Sequence[int] | None = None,
    inactive: Inactive = "bypass",
    gradient: AblationGradient = "exact",
    removal: Removal = "all",
    memory: float = 1.0,
    generator: torch.Generator | None = None,
) -> Contributions:
    """The same as :func:`ddarts_ext.search.contributions.contributions`, by N + 1 forwards and N + 1 backwards.

    ``memory`` is not used: one network is held at a time.
    """
    leaf = table.detach().requires_grad_(True)
    groups = removed_cells(range(len(net.cells)) if owner is None else owner, removal)
    exact = gradient == "exact"
    drawn = None
    if inactive == "random":
        shape = to_weights(table.detach()).shape
        drawn = torch.rand(shape, generator=generator, device=table.device, dtype=table.dtype)
    logits = _forward(net, images, to_weights(leaf), Pass() if net.training else Pass(statistics="running"))
    loss = F.cross_entropy(logits, labels)
    full = torch.autograd.grad(loss, leaf)[0]
    without: dict[int, Tensor] = {}
    summed = torch.zeros_like(full)
    own = torch.zeros_like(full)
    p = Pass(statistics="batch" if net.training else "running")
    for group in groups:
        with torch.set_grad_enabled(exact):
            weights = to_weights(leaf)
            removed = F.cross_entropy(
                _forward(net, images, weights, p, removed=group.cells, inactive=inactive, drawn=drawn), labels
            )
        without[group.row] = removed.detach()
        if exact and removed.requires_grad:
            found = torch.autograd.grad(removed, leaf, allow_unused=True)[0]
            if found is not None:
                summed += found
                own[group.row] = found[group.row]
    return Contributions(
        loss.detach(),
        torch.stack([without[row] for row in sorted(without)]),
        logits.detach(),
        full,
        summed if exact else None,
        own if exact and removal == "owners" else None,
    )


def _forward(
    net: Any,
    images: Tensor,
    weights: Tensor,
    p: Pass,
    *,
    removed: Sequence[int] = (),
    inactive: str = "bypass",
    drawn: Tensor | None = None,
) -> Tensor:
    s0, s1 = net.stem_states(images, p)
    for index, cell in enumerate(net.cells):
        if index not in removed:
            out = cell(s0, s1, weights[index], p)
        elif inactive == "bypass":
            out = cell.removed(s1, p)
        elif drawn is not None:
            out = cell(s0, s1, drawn[index], p)
        else:
            out = cell(s0, s1, torch.full_like(weights[index], 0.5 if inactive == "half" else 0.0), p)
        s0, s1 = s1, out
    logits: Tensor = net.head(s1, p)
    return logits

"""The oracle of the contributions: N + 1 networks one after the other, autograd through the whole formula."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from ddarts_ext.nn.forward_pass import Pass
from ddarts_ext.nn.supernet import Supernet


def loss_without(
    net: Supernet,
    weights: Tensor,
    images: Tensor,
    labels: Tensor,
    removed: Collection[int],
    inactive: str,
    inactive_weights: Tensor | None,
    p: Pass,
) -> Tensor:
    """Cross-entropy of the network without the cells ``removed``."""
    s0, s1 = net.stem_states(images, p)
    for index, cell in enumerate(net.cells):
        if index not in removed:
            out = cell(s0, s1, weights[index], p)
        elif inactive == "bypass":
            out = cell.removed(s1, p)
        elif inactive == "zero":
            out = cell(s0, s1, torch.zeros_like(weights[index]), p)
        else:
            assert inactive_weights is not None
            out = cell(s0, s1, inactive_weights[index], p)
        s0, s1 = s1, out
    return F.cross_entropy(net.head(s1, p), labels)


def naive_losses(
    net: Supernet,
    weights: Tensor,
    images: Tensor,
    labels: Tensor,
    removals: Sequence[Collection[int]],
    inactive: str,
    inactive_weights: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """(loss, losses without each of ``removals``), differentiable in ``weights``; no running statistic is touched."""
    p = Pass(statistics="batch" if net.training else "running")
    arguments = (net, weights, images, labels)
    loss = loss_without(*arguments, (), inactive, inactive_weights, p)
    without = [loss_without(*arguments, removed, inactive, inactive_weights, p) for removed in removals]
    return loss, torch.stack(without)


def formula_gradient(
    table: Tensor, losses: Callable[[Tensor], tuple[Tensor, Tensor]], form: Callable[[Tensor, Tensor], Tensor]
) -> tuple[Tensor, Tensor]:
    """Row i of the second tensor: the gradient, by autograd, of the i-th ablation loss with respect to row i of the table.

    losses: table -> (loss, without); form: (contributions, their mean) -> the ablation losses [N].
    """
    leaf = table.detach().requires_grad_(True)
    loss, without = losses(leaf)
    contributions = loss - without
    values = form(contributions, contributions.mean())
    rows = [torch.autograd.grad(value, leaf, retain_graph=True)[0][i] for i, value in enumerate(values)]
    return values.detach(), torch.stack(rows)

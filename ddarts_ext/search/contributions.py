"""What every cell adds to the network, in one pass and with exact gradients (D-DARTS, Eqs. 7-10).

The marginal contribution of cell i is M_i = L - L_i, with L the loss of the whole network and L_i the loss without
cell i, both on one validation batch. Run one after the other, that is N + 1 networks. Here the whole network (the
trunk) runs once; right after cell i a group joins a growing batch whose cell i was removed, so that everything before
cell i is shared: N(N+1)/2 cell evaluations instead of N(N+1).

Only two gradients are needed for the loss of every cell, whatever N is: G = dL/dweights, and S = d(sum_j L_j)/dweights.
S reaches the weights on two ways, directly in the ablated groups and through the trunk states from which they branched
off; the second way is one more backward through the trunk, fed with what the groups left at its states.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ddarts_ext.nn.forward_pass import Pass, Statistics
from ddarts_ext.search.ablated_pass import AblatedGroup, ablated_losses, plan_chunks

if TYPE_CHECKING:
    from ddarts_ext.nn.supernet import Supernet

Inactive = Literal["bypass", "zero", "half", "random"]
AblationGradient = Literal["exact", "stopgrad_mean", "none"]
Removal = Literal["all", "owners"]


@dataclass(frozen=True)
class Contributions:
    """Losses with and without every cell and the gradients from which every cell's own loss is built.

    loss: [] loss of the whole network. without: [N] loss with cell (or group of sharing cells) i removed.
    logits: [B, classes] of the whole network. full_gradient: G = dL/dtable, shaped as the table [rows, E, O].
    ablated_gradient: S = d(sum_j L_j)/dtable, or None where the gradient asked for does not need it.
    own_gradient: dL_i/dtable of row i alone; None where it is zero by construction (no cell that stays reads row i).
    """

    loss: Tensor
    without: Tensor
    logits: Tensor
    full_gradient: Tensor
    ablated_gradient: Tensor | None = None
    own_gradient: Tensor | None = None


def removed_cells(owner: Sequence[int], removal: Removal = "all") -> tuple[AblatedGroup, ...]:
    """The ablated groups of a network whose cell c reads row ``owner[c]``, in the order in which they branch off.

    ``all`` removes every cell of a row together; ``owners`` removes the first cell of each row alone.
    """
    rows: dict[int, list[int]] = {}
    for cell, row in enumerate(owner):
        rows.setdefault(row, []).append(cell)
    return tuple(
        AblatedGroup(row, tuple(cells)) if removal == "all" else AblatedGroup(row, (cells[0],), tuple(cells[1:]))
        for row, cells in rows.items()
    )


def contributions(
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
    memory: float = 1.0,
    generator: torch.Generator | None = None,
) -> Contributions:
    """Marginal contributions of all cells on one batch.

    table: [rows, E, O] architecture parameters; ``to_weights`` maps them to op weights [cells, E, O].
    owner: the row of every cell; by default cell i reads row i.
    inactive: what stands in for a removed cell. ``bypass``: copies of its second preprocessed input, subsampled in a
    reduction; ``zero``: zeros; ``half``: all op weights 1/2; ``random``: op weights drawn from U(0, 1), once per call.
    gradient: ``exact`` also returns S; ``stopgrad_mean`` and ``none`` need the values alone, which then cost no graph.
    memory: budget for the ablated groups, in units of the activations of one plain step; groups that do not fit
    together are run one chunk after the other. The result depends on it by rounding only.

    Running statistics are updated once, by the whole network. The gradients of the network's weights are not computed
    and their ``.grad`` is left alone. Nothing here waits for the device.
    """
    cells = len(net.cells)
    groups = removed_cells(owner if owner is not None else range(cells), removal)
    leaf = table.detach().requires_grad_(True)
    with torch.enable_grad():
        relaxed = to_weights(leaf)
    weights = relaxed.detach()
    inactive_weights = _inactive_weights(weights, inactive, generator)
    statistics: Statistics = "update" if net.training else "running"

    def chain(gradient_of_weights: Tensor) -> Tensor:
        return torch.autograd.grad(relaxed, leaf, gradient_of_weights, retain_graph=True)[0]

    # Where cells stay that read a removed cell's row, even the gradient with a constant mean needs the ablated graphs.
    needs_graph = gradient == "exact" or (gradient == "stopgrad_mean" and any(group.sharing for group in groups))
    with frozen(net):
        if not needs_graph:
            states, logits, loss, full = _trunk_with_gradient(net, weights, images, labels, statistics, None)
            with torch.no_grad():
                without = [
                    ablated_losses(
                        net,
                        states,
                        weights.expand(len(chunk), *weights.shape),
                        chunk,
                        labels,
                        inactive,
                        inactive_weights,
                    )
                    for chunk in plan_chunks(groups, states, memory, keeps_graph=False)
                ]
            return Contributions(loss, _in_row_order(groups, without), logits, chain(full[0]))
        ablated = _AblatedBackward(net, weights, images, labels, groups, inactive, inactive_weights, memory)
        _, logits, loss, (full_weights, through_trunk) = _trunk_with_gradient(
            net, weights, images, labels, statistics, ablated.state_gradients
        )
    own = chain(ablated.own) if any(group.sharing for group in groups) else None
    return Contributions(
        loss,
        _in_row_order(groups, ablated.losses),
        logits,
        chain(full_weights),
        chain(ablated.direct + through_trunk),
        own,
    )


class _AblatedBackward:
    """Forward and backward of all ablated groups, chunk by chunk, from trunk states that hold no graph.

    losses: per chunk [g]. direct: [cells, E, O] part of S that does not pass the trunk. own: [cells, E, O] the part of
    ``direct`` in which every cell sees the group of its own row alone. state_gradients: per trunk state, or None.
    """

    def __init__(
        self,
        net: Supernet,
        weights: Tensor,
        images: Tensor,
        labels: Tensor,
        groups: Sequence[AblatedGroup],
        inactive: Inactive,
        inactive_weights: Tensor | None,
        memory: float,
    ) -> None:
        # The trunk is run again with its graph afterwards: eight cells more in exchange for never holding two graphs.
        with torch.no_grad():
            states, _ = _trunk(
                net,
                images,
                weights,
                Pass(statistics="batch" if net.training else "running"),
            )
        self.losses: list[Tensor] = []
        self.direct = torch.zeros_like(weights)
        self.own = torch.zeros_like(weights)
        self.state_gradients: list[Tensor | None] = [None] * len(states)
        for chunk in plan_chunks(groups, states, memory, keeps_graph=True):
            leaves = [state.detach().requires_grad_(True) for state in states]
            grouped = weights.expand(len(chunk), *weights.shape).clone().requires_grad_(True)
            with torch.enable_grad():
                losses = ablated_losses(net, leaves, grouped, chunk, labels, inactive, inactive_weights)
                direct, *found = torch.autograd.grad(losses.sum(), [grouped, *leaves], allow_unused=True)
            self.losses.append(losses.detach())
            if direct is not None:  # A chunk of the last cell alone reads no weights any more.
                self.direct += direct.sum(0)
                for position, group in enumerate(chunk):
                    for cell in group.sharing:
                        self.own[cell] += direct[position, cell]
            for i, gradient in enumerate(found):
                if gradient is not None:
                    held = self.state_gradients[i]
                    self.state_gradients[i] = gradient if held is None else held + gradient


def _trunk(net: Supernet, images: Tensor, weights: Tensor, p: Pass) -> tuple[list[Tensor], Tensor]:
    """States of the whole network (two stem states, then the output of every cell) and its logits."""
    states = list(net.stem_states(images, p))
    for cell, cell_weights in zip(net.cells, weights.unbind(0), strict=True):
        states.append(cell(states[-2], states[-1], cell_weights, p))
    return states, net.head(states[-1], p)


def _trunk_with_gradient(
    net: Supernet,
    weights: Tensor,
    images: Tensor,
    labels: Tensor,
    statistics: Statistics,
    state_gradients: Sequence[Tensor | None] | None,
) -> tuple[list[Tensor], Tensor, Tensor, tuple[Tensor, Tensor]]:
    """The whole network with its graph: detached states, logits, loss, and the gradients of the weights from the loss
    and from the given gradients at the states (zeros without them)."""
    weights = weights.detach().requires_grad_(True)
    with torch.enable_grad():
        states, logits = _trunk(net, images, weights, Pass(statistics=statistics))
        loss = F.cross_entropy(logits, labels)
        fed = [
            (state, grad)
            for state, grad in zip(states, state_gradients or [], strict=False)
            if grad is not None and state.requires_grad
        ]
        (full,) = torch.autograd.grad(loss, weights, retain_graph=bool(fed))
        through = torch.zeros_like(full)
        if fed:
            (through,) = torch.autograd.grad([s for s, _ in fed], weights, [g for _, g in fed])
    return (
        [state.detach() for state in states],
        logits.detach(),
        loss.detach(),
        (full, through),
    )


def _inactive_weights(weights: Tensor, inactive: Inactive, generator: torch.Generator | None) -> Tensor | None:
    if inactive == "half":
        return torch.full_like(weights, 0.5)
    if inactive == "random":
        return torch.rand(
            weights.shape,
            generator=generator,
            device=weights.device,
            dtype=weights.dtype,
        )
    return None


def _in_row_order(groups: Sequence[AblatedGroup], losses: Sequence[Tensor]) -> Tensor:
    """Losses of the groups in branching order, as [N] by row."""
    order = sorted(range(len(groups)), key=lambda position: groups[position].row)
    joined = torch.cat(list(losses))
    if order == list(range(len(groups))):
        return joined
    return torch.stack([joined[position] for position in order])


@contextmanager
def frozen(net: nn.Module) -> Iterator[None]:
    """Within it no gradient of a weight is computed: the architecture step needs none of them."""
    held = [parameter for parameter in net.parameters() if parameter.requires_grad]
    for parameter in held:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in held:
            parameter.requires_grad_(True)

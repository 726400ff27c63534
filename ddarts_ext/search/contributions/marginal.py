"""What every cell adds to the network, in one pass and with exact gradients (D-DARTS, Eqs. 7-10).

The marginal contribution of cell i is M_i = L - L_i, with L the loss of the whole network and L_i the loss without
cell i, both on one validation batch. Run one after the other, that is N + 1 networks. Here the whole network (the
trunk) runs once; right after cell i a group joins a growing batch whose cell i was removed, so that everything before
cell i is shared: N(N+1)/2 cell evaluations instead of N(N+1).

Only two gradients are needed for the loss of every cell, whatever N is: G = dL/dweights, and S = d(sum_j L_j)/dweights.
S reaches the weights on two ways, directly in the ablated groups and through the trunk states from which they branched
off; the second way is one more backward through the trunk, fed with what the groups left at its states. Both gradients
go through the trunk cell by cell, after the groups, so that the graphs of trunk and groups are never held together.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor, nn

from ddarts_ext.runs.objective import Objective
from ddarts_ext.search.contributions.ablated_pass import AblatedGroup, ablated_losses, plan_chunks
from ddarts_ext.search.contributions.trunk import Gradient, as_leaves, cell_backward, trunk_pass

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
    keep: bool = False,
    generator: torch.Generator | None = None,
    objective: Objective | None = None,
) -> Contributions:
    """Marginal contributions of all cells on one batch.

    table: [rows, E, O] architecture parameters; ``to_weights`` maps them to op weights [cells, E, O].
    owner: the row of every cell; by default cell i reads row i.
    inactive: what stands in for a removed cell. ``bypass``: copies of its second preprocessed input, subsampled in a
    reduction; ``zero``: zeros; ``half``: all op weights 1/2; ``random``: op weights drawn from U(0, 1), once per call.
    gradient: ``exact`` also returns S; ``stopgrad_mean`` and ``none`` need the values alone, which then cost no graph.
    memory: budget for the ablated groups, in units of the activations of one plain step; groups that do not fit
    together are run one chunk after the other, and a group that does not fit runs alone. The result depends on it by
    rounding only.
    keep: the graph of the whole network lies beside those of the groups, which takes the activations of one more plain
    step and runs no cell of it again.
    objective: what the loss is, by default the cross-entropy.

    Running statistics are updated once, by the whole network. The gradients of the network's weights are not computed
    and their ``.grad`` is left alone. Nothing here waits for the device.
    """
    cells, minimised = len(net.cells), objective or Objective()
    groups = removed_cells(owner if owner is not None else range(cells), removal)
    leaf = table.detach().requires_grad_(True)
    with torch.enable_grad():
        relaxed = to_weights(leaf)
    weights = relaxed.detach()
    inactive_weights = _inactive_weights(weights, inactive, generator)

    def chain(gradient_of_weights: Tensor) -> Tensor:
        return torch.autograd.grad(relaxed, leaf, gradient_of_weights, retain_graph=True)[0]

    # Where cells stay that read a removed cell's row, even the gradient with a constant mean needs the ablated graphs.
    sharing = any(group.sharing for group in groups)
    needs_graph = gradient == "exact" or (gradient == "stopgrad_mean" and sharing)
    # Beside graphs of groups the trunk has none, unless there is room. Without these it has its own, as in any step.
    recomputed = cells if needs_graph and not keep else 0
    whole, ablated, own = Gradient(weights), Gradient(weights), torch.zeros_like(weights)
    without = []

    def losses_without(chunk: Sequence[AblatedGroup], states: Sequence[Tensor], weights: Tensor) -> Tensor:
        return ablated_losses(net, states, weights, chunk, labels, inactive, inactive_weights, minimised)

    with frozen(net):
        states, logits, loss, kept = trunk_pass(
            net, weights, images, labels, recomputed, whole, keep=keep and needs_graph, objective=minimised
        )
        for chunk in plan_chunks(groups, states, memory, keeps_graph=needs_graph):
            grouped = weights.expand(len(chunk), *weights.shape)
            if needs_graph:
                without.append(_ablated_backward(losses_without, chunk, states, grouped, ablated, own))
            else:
                with torch.no_grad():
                    without.append(losses_without(chunk, states, grouped))
        if kept is not None:
            kept.pull(ablated)
        for index in reversed(range(recomputed)):
            del states[index + 2 :]  # No cell that is left reads them.
            cell_backward(net, index, weights, states, (whole, ablated))
    return Contributions(
        loss,
        _in_row_order(groups, without),
        logits,
        chain(whole.of_weights),
        chain(ablated.of_weights) if needs_graph else None,
        chain(own) if needs_graph and sharing else None,
    )


def _ablated_backward(
    losses_without: Callable[[Sequence[AblatedGroup], Sequence[Tensor], Tensor], Tensor],
    chunk: Sequence[AblatedGroup],
    states: Sequence[Tensor],
    weights: Tensor,
    ablated: Gradient,
    own: Tensor,
) -> Tensor:
    """Losses [g] of one chunk of groups; their backward, as far as the states of the trunk, goes to ``ablated``.

    weights: [g, cells, E, O]. What is the gradient of a group with respect to its own row is also added to ``own``.
    """
    leaves = as_leaves(states)
    grouped = weights.clone().requires_grad_(True)
    with torch.enable_grad():
        losses = losses_without(chunk, leaves, grouped)
        direct = ablated.pull(losses.sum(), None, grouped, leaves)
    ablated.of_weights += direct.sum(0)
    for position, group in enumerate(chunk):
        for cell in group.sharing:
            own[cell] += direct[position, cell]
    return losses.detach()


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
def frozen(net: nn.Module, but: Sequence[nn.Parameter] = ()) -> Iterator[None]:
    """Within it no gradient of a weight is computed, ``but`` of those: the architecture step needs none of them."""
    apart = {id(parameter) for parameter in but}
    held = [parameter for parameter in net.parameters() if parameter.requires_grad and id(parameter) not in apart]
    for parameter in held:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in held:
            parameter.requires_grad_(True)

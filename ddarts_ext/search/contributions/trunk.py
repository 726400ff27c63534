"""The whole network of a contributions pass (the trunk), with a backward that goes through one cell after the other.

Two gradients pass the trunk, and ablated groups branch off its states in between. Were its graph kept for all that, it
would lie beside the graphs of the groups. So the states alone are kept, and a cell runs again when gradients reach it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ddarts_ext.nn.forward_pass import Pass
from ddarts_ext.runs.objective import Objective

if TYPE_CHECKING:
    from ddarts_ext.nn.supernet import Supernet


class Gradient:
    """A gradient on its way back through the trunk.

    of_weights: [cells, E, O] what has reached the op weights. at_states: what has reached a state (two of the stem, one
    per cell) and has still to pass the cell that wrote it; None where there is nothing.
    """

    def __init__(self, weights: Tensor) -> None:
        self.of_weights = torch.zeros_like(weights)
        self.at_states: list[Tensor | None] = [None] * (len(weights) + 2)

    def pull(
        self,
        output: Tensor,
        at_output: Tensor | None,
        weights: Tensor,
        states: Sequence[Tensor],
        *,
        first: int = 0,
        retain_graph: bool = False,
    ) -> Tensor:
        """Take it from ``output`` to the leaves ``states``, of which the first has index ``first``, and to the leaf
        ``weights``, whose gradient is returned (zeros where it is not reached)."""
        targets = [(i, state) for i, state in enumerate(states, first) if state.requires_grad]
        direct: Tensor | None = None
        if output.requires_grad:
            leaves = [weights, *(state for _, state in targets)]
            direct, *found = torch.autograd.grad(
                output, leaves, at_output, retain_graph=retain_graph, allow_unused=True
            )
            for (i, _), gradient in zip(targets, found, strict=True):
                if gradient is not None:
                    held = self.at_states[i]
                    self.at_states[i] = gradient if held is None else held + gradient
        return torch.zeros_like(weights) if direct is None else direct


def as_leaves(states: Sequence[Tensor], first: int = 0) -> list[Tensor]:
    """The states as inputs of a graph. The stem reads no op weights, so its two states need no gradient."""
    return [state.detach().requires_grad_(i >= 2) for i, state in enumerate(states, first)]


@dataclass(frozen=True)
class KeptGraph:
    """The graph of the whole trunk. weights: its leaf [cells, E, O]; states: two of the stem and one per cell."""

    weights: Tensor
    states: Sequence[Tensor]

    def pull(self, gradient: Gradient) -> None:
        """Take a gradient from the states it has reached to the op weights, through all cells at once."""
        found = [(i, at) for i, at in enumerate(gradient.at_states) if at is not None]
        if found:
            outputs, at_outputs = [self.states[i] for i, _ in found], [at for _, at in found]
            (direct,) = torch.autograd.grad(outputs, self.weights, at_outputs)
            gradient.of_weights += direct
            gradient.at_states = [None] * len(gradient.at_states)


def trunk_pass(
    net: Supernet,
    weights: Tensor,
    images: Tensor,
    labels: Tensor,
    recomputed: int,
    whole: Gradient,
    *,
    keep: bool,
    objective: Objective,
) -> tuple[list[Tensor], Tensor, Tensor, KeptGraph | None]:
    """Forward of the trunk, updating statistics, and backward of its loss, to ``whole``, as far as the cells come that
    have a graph: the first ``recomputed`` have none. Returns states, logits and loss, all detached, and with ``keep``
    the graph.
    """
    p = Pass(statistics="update" if net.training else "running")
    leaf = weights.detach().requires_grad_(True)
    with torch.no_grad():
        states = list(net.stem_states(images, p))
        for index in range(recomputed):
            states.append(net.cells[index](states[-2], states[-1], weights[index], p))
    leaves = as_leaves(states)
    with torch.enable_grad():
        states = [*leaves]
        for index in range(recomputed, len(net.cells)):
            states.append(net.cells[index](states[-2], states[-1], leaf[index], p))
        logits = net.head(states[-1], p)
        loss = objective.loss(logits, labels)
        whole.of_weights += whole.pull(loss, None, leaf, leaves, retain_graph=keep)
    kept = KeptGraph(leaf, states) if keep else None
    return [state.detach() for state in states], logits.detach(), loss.detach(), kept


def cell_backward(
    net: Supernet, index: int, weights: Tensor, states: Sequence[Tensor], gradients: Sequence[Gradient]
) -> None:
    """Take gradients from the output of one cell of the trunk to its op weights and to the states it reads.

    The cell runs again for its graph, which ends with this function, and updates no statistics.
    """
    leaf = weights[index].detach().requires_grad_(True)
    inputs = as_leaves(states[index : index + 2], index)
    with torch.enable_grad():
        output = net.cells[index](*inputs, leaf, Pass(statistics="batch" if net.training else "running"))
    for gradient in gradients:
        at_output = gradient.at_states[index + 2]
        if at_output is not None:
            gradient.at_states[index + 2] = None
            gradient.of_weights[index] += gradient.pull(output, at_output, leaf, inputs, first=index, retain_graph=True)

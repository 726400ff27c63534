"""The growing batch of ablated groups: every group is the network with one cell (or all cells of one row) removed."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

from torch import Tensor

from ddarts_ext.nn.forward_pass import Pass, Statistics
from ddarts_ext.ops.spawn_group import spawn_group
from ddarts_ext.runs.objective import Objective

if TYPE_CHECKING:
    from ddarts_ext.nn.cell import Cell
    from ddarts_ext.nn.supernet import Supernet


@dataclass(frozen=True)
class AblatedGroup:
    """One ablated network. row: of the table; cells: those removed, ascending; sharing: the row's cells that stay."""

    row: int
    cells: tuple[int, ...]
    sharing: tuple[int, ...] = ()

    @property
    def branches_off(self) -> int:
        """The first removed cell: up to it the group shares the whole network's states."""
        return self.cells[0]


def plan_chunks(
    groups: Sequence[AblatedGroup],
    states: Sequence[Tensor],
    memory: float,
    *,
    keeps_graph: bool,
) -> list[tuple[AblatedGroup, ...]]:
    """Split the groups, in branching order, into chunks whose activations fit ``memory`` (1: the whole network's).

    A cell's activations are taken as proportional to its input and output states. With a graph a group holds those of
    all cells after its branching; without one, the groups alive hold one cell's at a time.
    """
    cost = [float(before.numel() + after.numel()) for before, after in itertools.pairwise(states[1:])]
    budget = memory * sum(cost)
    chunks: list[list[AblatedGroup]] = []
    for group in groups:
        candidate = [*chunks[-1], group] if chunks else [group]
        if chunks and _held(candidate, cost, keeps_graph) <= budget:
            chunks[-1] = candidate
        else:
            chunks.append([group])
    return [tuple(chunk) for chunk in chunks]


def _held(groups: Sequence[AblatedGroup], cost: Sequence[float], keeps_graph: bool) -> float:
    if keeps_graph:
        return sum(sum(cost[group.branches_off + 1 :]) for group in groups)
    return max(cost[cell] * sum(group.branches_off < cell for group in groups) for cell in range(len(cost)))


def ablated_losses(
    net: Supernet,
    states: Sequence[Tensor],
    weights: Tensor,
    groups: Sequence[AblatedGroup],
    labels: Tensor,
    inactive: str,
    inactive_weights: Tensor | None,
    objective: Objective,
) -> Tensor:
    """Loss [g] of every group. states: of the whole network, two of the stem and one per cell;
    weights: [g, cells, E, O]; groups: in branching order. Batch statistics per group; no running statistic is touched
    (in eval mode the running statistics are read)."""
    stand_in = StandIn(inactive, inactive_weights, "batch" if net.training else "running")
    before: Tensor | None = None
    current: Tensor | None = None
    alive = 0
    for index, cell in enumerate(cast("list[Cell]", list(net.cells))):
        if index < groups[0].branches_off:
            continue
        if before is not None and current is not None:
            removed = [index in group.cells for group in groups[:alive]]
            output = _cell_of_groups(cell, index, before, current, weights[:alive, index], removed, stand_in)
            before, current = current, output
        if alive < len(groups) and groups[alive].branches_off == index:
            before = spawn_group(before, states[index + 1])
            current = stand_in.spawn(current, cell, index, states[index], states[index + 1])
            alive += 1
    if current is None:
        raise ValueError("contributions: groups must name cells of the network")
    logits = net.head(current, Pass(groups=alive, statistics=stand_in.statistics))
    return objective.of_groups(logits, labels, alive)


@dataclass(frozen=True)
class StandIn:
    """What takes the place of a removed cell's output."""

    inactive: str
    weights: Tensor | None
    statistics: Statistics

    def spawn(self, groups: Tensor | None, cell: Cell, index: int, s0: Tensor, s1: Tensor) -> Tensor:
        """Append the group that removed ``cell`` to the batch; s0, s1: the cell's inputs in the whole network."""
        p = Pass(statistics=self.statistics)
        if self.weights is not None:
            return spawn_group(groups, cell(s0, s1, self.weights[index], p))
        source = cell.preprocess1(s1, p)
        return spawn_group(
            groups,
            source,
            copies=cell.space.multiplier,
            stride=2 if cell.reduction else 1,
            zero=self.inactive == "zero",
        )


def _cell_of_groups(
    cell: Cell,
    index: int,
    s0: Tensor,
    s1: Tensor,
    weights: Tensor,
    removed: Sequence[bool],
    stand_in: StandIn,
) -> Tensor:
    """Output of one cell for all groups alive; in some of them the cell may be removed as well (shared alphas)."""
    count = len(removed)
    if not any(removed):
        whole: Tensor = cell(s0, s1, weights, Pass(groups=count, statistics=stand_in.statistics))
        return whole
    inputs = list(zip(s0.chunk(count), s1.chunk(count), strict=True))
    output: Tensor | None = None
    for (before, current), gone, group_weights in zip(inputs, removed, weights.unbind(0), strict=True):
        if gone:
            output = stand_in.spawn(output, cell, index, before, current)
        else:
            p = Pass(statistics=stand_in.statistics)
            output = spawn_group(output, cell(before, current, group_weights, p))
    if output is None:
        raise ValueError("contributions: groups must not be empty")
    return output

"""Selection by perturbation: what stays is what the supernet misses most (DARTS-PT, 2108.04392)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch

from ddarts_ext.runs.ranks import current
from ddarts_ext.runs.sums import Sums
from ddarts_ext.search.iterations import Iterations
from ddarts_ext.search.parts.part import Part, Surroundings
from ddarts_ext.search.state import SearchState
from ddarts_ext.search.step import Stepper

Judged = tuple[float, float]
"""(metric, so that more is better; loss) of the supernet."""


class SelectionPart(Part):
    """After the last epoch of the search itself, and every ``selection_every`` epochs from then on, one edge of every
    row keeps one op; when all edges have one, one node of every row keeps two edges. Records have ``selection``: a list
    of decisions, with ``row``, ``edge`` and ``op``, or ``node`` and ``edges``, and ``without``, the metric without each
    of those that there were; and ``left`` [rows, E, O], the ops that the epoch began with.
    """

    def __init__(self, around: Surroundings) -> None:
        self.around, self.how = around, around.config.method.selection
        self.taken = 0
        """Decisions of each row so far."""

    def after_epoch(self, state: SearchState, epoch: int, record: dict[str, Any]) -> bool:
        method, every = self.around.config.method, self.how.selection_every
        record["left"] = state.mask.int().tolist()
        after = epoch + 1 - method.epochs
        if after < 0 or (every and after % every):
            return False
        if after == 0:
            # The weights are tuned by an optimiser that remembers nothing of the search.
            state.weight_optimizer.state.clear()
        left = self.how.decisions(state.space) - self.taken
        record["selection"] = []
        for _ in range(min(1, left) if every else left):
            for row in range(len(state.architecture.table)):
                record["selection"].append(self._decide(state, row))
            self.taken += 1
        return False

    def _decide(self, state: SearchState, row: int) -> dict[str, Any]:
        edges = self._order(state, row, len(state.space.edges))
        if self.taken < len(edges):
            return self._choose_op(state, row, edges[self.taken])
        nodes = [node for node in state.space.nodes if node > 2]
        order = self._order(state, row, len(nodes), salt=1)
        return self._choose_edges(state, row, nodes[order[self.taken - len(edges)]])

    def _order(self, state: SearchState, row: int, count: int, salt: int = 0) -> list[int]:
        """The random order of the decisions of a row; it follows from the seed."""
        number = 2 * row + salt
        generator = torch.Generator().manual_seed(self.around.config.seed + 5 + 1000 * number)
        found: list[int] = torch.randperm(count, generator=generator).tolist()
        return found

    def _choose_op(self, state: SearchState, row: int, edge: int) -> dict[str, Any]:
        space, mask = state.space, state.mask
        ops = range(len(space.ops)) if space.selection == "every_edge" else space.choices
        without = {op: self._judged(state, row, edge, op) for op in ops if mask[row, edge, op]}
        chosen = most_missed(without, 1, self.how.selection_measure)[0]
        mask[row, edge] = False
        mask[row, edge, chosen] = True
        state.shrink(mask)
        named = {space.ops[op]: self._metric(judged) for op, judged in without.items()}
        return {"row": row, "edge": edge, "op": space.ops[chosen], "without": named}

    def _choose_edges(self, state: SearchState, row: int, node: int) -> dict[str, Any]:
        space, mask = state.space, state.mask
        without = {edge: self._judged(state, row, edge, None) for edge in space.incoming(node)}
        kept = most_missed(without, 2, self.how.selection_measure)
        for edge in without:
            mask[row, edge] &= edge in kept
        state.shrink(mask)
        sources = {str(space.edges[edge].source): self._metric(judged) for edge, judged in without.items()}
        return {"row": row, "node": node, "edges": sorted(kept), "without": sources}

    def _judged(self, state: SearchState, row: int, edge: int, op: int | None) -> Judged:
        """The supernet on the judging images without an op of an edge, or without the edge."""
        around, architecture = self.around, state.architecture
        # By what the ops weigh without chance: a sampler's judged weights have one op on an edge, and no other to miss.
        weights = architecture.to_weights(architecture.joined().detach()).clone()
        for cell, owner in enumerate(architecture.owner):
            if owner == row:
                weights[cell, edge, slice(None) if op is None else op] = 0.0
        stepper = Stepper(state, around.config.method, around.autocast, objective=around.objective, ranks=current())
        sums = Sums()
        state.net.eval()
        Iterations(stepper, around.dataset, around.config).judge(around.judging(), sums, weights)
        means = sums.means()
        sign = 1.0 if around.objective.higher_is_better else -1.0
        return sign * float(_number(means, f"valid_{around.objective.metric_name}")), float(
            _number(means, "valid_loss")
        )

    def _metric(self, judged: Judged) -> float:
        return judged[0] if self.around.objective.higher_is_better else -judged[0]

    def state_dict(self) -> dict[str, Any]:
        return {"taken": self.taken}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.taken = int(state["taken"])


def most_missed(without: Mapping[int, Judged], count: int, measure: str) -> list[int]:
    """Those without which the supernet is worst; at equal ones the first.

    Published is a metric alone, of which many are equal on few images: then the loss says more.
    """

    def rank(key: int) -> tuple[float, ...]:
        metric, loss = without[key]
        return (-loss,) if measure == "loss" else (metric, -loss)

    return sorted(without, key=rank)[:count]


def _number(means: Mapping[str, Any], name: str) -> Any:
    value = means[name]
    assert not isinstance(value, Iterable)
    return value

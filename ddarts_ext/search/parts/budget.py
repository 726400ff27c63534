"""A budget that the architecture is held to: the multiplier of its expected cost follows the excess."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch

from ddarts_ext.search.cost import ExpectedCost, Kept, costs_of
from ddarts_ext.search.limit import Limit
from ddarts_ext.search.parts.part import Part, Surroundings
from ddarts_ext.search.result import read_from
from ddarts_ext.search.state import SearchState


class BudgetPart(Part):
    """Lagrangian search: minimise the loss with the cost of the architecture at most the budget.

    The loss of the alphas has the term multiplier * (expected cost / budget - 1), see :class:`.ExpectedCost`. After
    every epoch in which alphas moved the architecture is read from them, and the multiplier grows by the rate times
    what its cost is over the budget, at most once the budget; it falls where the cost is below, down to 0. The rate of
    an epoch is ``budget_rate`` over the number of epochs in which alphas move.

    Records have ``cost``: its ``kind``, the ``budget``, the ``expected`` cost, that of the ``genotype``, and the
    ``multiplier`` with which the epoch was searched; those of methods that shrink, which have no alphas, have none.
    """

    def __init__(self, around: Surroundings) -> None:
        self.config = around.config
        self.budget, costs = costs_of(around.config, around.dataset)
        self.limit = Limit(self.budget, costs)
        self.multiplier = 0.0
        self._term: ExpectedCost | None = None

    def before_epoch(self, state: SearchState, epoch: int) -> None:
        if self.config.method.shrinking is not None:
            return
        how, device = self.config.method.discretisation, state.architecture.table.device
        if self._term is None:
            kept = Kept.by(how.rules[0], state.space, how.configuration)
            self._term = ExpectedCost(self.limit.costs, self.budget.amount, kept, device)
        state.cost = self._term
        state.strengths["cost"].fill_(self.multiplier)

    def after_epoch(self, state: SearchState, epoch: int, record: dict[str, Any]) -> bool:
        if state.cost is None:
            return False
        method = self.config.method
        found = self.limit.costs.of(read_from(state, method.discretisation).genotype)
        with torch.no_grad():
            expected = state.cost.at(state.architecture, state.architecture.joined()).double().sum()
        record["cost"] = {
            "kind": self.budget.kind,
            "budget": self.budget.amount,
            "expected": (float(expected) + state.cost.constant) * self.budget.amount,
            "genotype": found,
            "multiplier": self.multiplier,
        }
        _, at, epochs = method.stages.place(epoch, method.epochs)
        moving = method.stages.count * (epochs - method.architect.alpha_start)
        if at >= method.architect.alpha_start:
            excess = min(1.0, found / self.budget.amount - 1)
            self.multiplier = max(0.0, self.multiplier + self.config.budget_rate / moving * excess)
        return False

    def state_dict(self) -> dict[str, Any]:
        costs = self.limit.costs
        return {"multiplier": self.multiplier, "table": costs.table, "constant": costs.constant}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Raises ValueError where ops cost something else than before."""
        costs = self.limit.costs
        same = torch.equal(state["table"].to(costs.table), costs.table) and state["constant"] == costs.constant
        if not same:
            name = "latency_table" if self.budget.kind == "latency" else "budget"
            raise ValueError(f"search: {name} must give ops the costs that they had in the run to resume, got others")
        self.multiplier = float(state["multiplier"])


def limit_of(parts: Iterable[object]) -> Limit | None:
    """The budget of a search with these parts, if it has one."""
    return next((part.limit for part in parts if isinstance(part, BudgetPart)), None)

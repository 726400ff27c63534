"""Reading an architecture that is within a budget."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ddarts_ext.costs import CostBudget, Costs
from ddarts_ext.costs.budget import shown
from ddarts_ext.costs.judged import GenotypeCost
from ddarts_ext.genotype import Genotype

_BISECTIONS = 12
_LARGEST = 600.0
"""exp(-600) is still a number."""


@dataclass(frozen=True)
class Limit:
    """A budget, and what architectures cost."""

    budget: CostBudget
    costs: Costs

    def within(self, weights: Tensor, reading: Callable[[Tensor], Genotype]) -> Genotype:
        """``reading`` of op weights [rows, E, O], or where that costs more than the budget, of w exp(-m c) with the
        costs c of ops: with the smallest m found for which it does not. By the rule ``darts`` that is the architecture
        of the largest product of weights among all that cost as little. The first reading where there is no such m."""
        first = reading(weights)
        if self._cost(first) <= self.budget.amount:
            return first
        costs = (self.costs.table / self.budget.amount).to(weights)
        found, low, high = None, 0.0, 1.0
        while found is None and high * float(costs.max()) <= _LARGEST:
            one = reading(weights * torch.exp(-high * costs))
            if self._cost(one) <= self.budget.amount:
                found = one
            else:
                low, high = high, 2 * high
        for _ in range(_BISECTIONS if found is not None else 0):
            middle = (low + high) / 2
            one = reading(weights * torch.exp(-middle * costs))
            if self._cost(one) <= self.budget.amount:
                found, high = one, middle
            else:
                low = middle
        return first if found is None else found

    def judged(self, genotype: Genotype, unlimited: Genotype | None = None) -> GenotypeCost:
        """What the result costs. unlimited: what would have been read without a budget."""
        kind, cost, note = self.budget.kind, self.costs.of(genotype), ""
        if cost > self.budget.amount:
            note = f"the genotype costs {shown(kind, cost)}, more than the budget of {self.budget}"
        elif unlimited is not None and unlimited != genotype:
            note = (
                f"the ops of the largest weights cost {shown(kind, self.costs.of(unlimited))}, more than the budget of "
                f"{self.budget}: the genotype has cheaper ones in the place of some"
            )
        return GenotypeCost(kind, cost, self.budget.amount, note)

    def _cost(self, genotype: Genotype) -> float:
        """Nothing where a cell has no op, so that there is no network; another rule then stands in."""
        empty = any(not genotype.live(cell) for cell in range(genotype.layers))
        return 0.0 if empty and genotype.inputs > 1 else self.costs.of(genotype)

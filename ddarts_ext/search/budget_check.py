"""Which budgets of costs a search can have."""

from __future__ import annotations

from collections.abc import Sequence

from ddarts_ext.costs import CostBudget
from ddarts_ext.search.methods import Method


def check_budget(
    method: Method,
    budget: str | None,
    latency_table: str | None,
    cells: int | None,
    channels: int | None,
    reductions: Sequence[int] | None,
    **numbers: float,
) -> None:
    """Raise ValueError or TypeError for a budget that does not go together with the rest of a search. cells, channels:
    of the network whose cost counts, where that is not the supernet's. numbers: >= 0, by name."""
    for name, value in numbers.items():
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise TypeError(f"search: {name} must be a number, got {value!r}")
        if not 0 <= value < float("inf"):
            raise ValueError(f"search: {name} must be a finite number >= 0, got {value}")
    if budget is None:
        for name, given in (("latency_table", latency_table), ("budget_cells", cells), ("budget_channels", channels)):
            if given is not None:
                raise ValueError(f"search: budget must be given with {name}")
        return
    latency = CostBudget.parse(budget).kind == "latency"
    if method.random:
        raise ValueError(f"search: budget must be left out with method {method.name}, which has no op weights")
    if latency != (latency_table is not None):
        wanted = "be given" if latency else "be left out"
        raise ValueError(f"search: latency_table must {wanted} with budget {budget}")
    if channels is not None and channels % 2:
        raise ValueError(f"search: budget_channels must be even, got {channels}")
    if cells is None:
        return
    if method.space == "nasbench201":
        if cells % 3:
            raise ValueError(f"search: budget_cells must be a multiple of the 3 stages of nasbench201, got {cells}")
    elif method.sharing != "normal_reduction" or reductions is not None:
        raise ValueError(
            "search: budget_cells must be left out where there is not one normal and one reduction cell at thirds"
        )
    elif min(cells, method.cells) < 3:
        raise ValueError(
            f"search: budget_cells and cells must be 3 or more, of which two reduce, got {cells} and {method.cells}"
        )

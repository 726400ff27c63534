"""Reading within a budget: the best architecture that costs as little, or what is read anyway."""

from __future__ import annotations

import itertools
from math import prod

import pytest
import torch
from costs.sizes import sizes

from ddarts_ext.costs import CostBudget, counted_costs
from ddarts_ext.genotype import Genotype, discretize
from ddarts_ext.search.limit import Limit
from ddarts_ext.search.methods import Discretisation
from ddarts_ext.search.result import read

SIZES = sizes("darts", cells=3, channels=8, steps=1, sharing="normal_reduction")


def weights(seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(2, 2, 7, generator=generator, dtype=torch.float64).softmax(-1)


def reading(table: torch.Tensor) -> Genotype:
    return discretize(table, SIZES.space, "darts", seq=SIZES.order, reductions=SIZES.reductions)


def every(table: torch.Tensor) -> list[tuple[float, float]]:
    """(cost, product of weights) of all 7^4 architectures of two cells with two edges."""
    costs = counted_costs("params", SIZES)
    rows = [(row, edge) for row in range(2) for edge in range(2)]
    found = []
    for ops in itertools.product(range(7), repeat=4):
        chosen = [(*place, op) for place, op in zip(rows, ops, strict=True)]
        cost = costs.constant + sum(float(costs.table[one]) for one in chosen)
        found.append((cost, prod(float(table[one]) for one in chosen)))
    return found


@pytest.mark.parametrize("seed", range(4))
def test_it_is_the_likeliest_of_all_that_cost_as_little(seed: int) -> None:
    table, costs = weights(seed), counted_costs("params", SIZES)
    first = costs.of(reading(table))
    known = every(table)
    for amount in (first - 1, 0.8 * first, 0.6 * first):
        if amount < min(known)[0]:
            continue
        genotype = Limit(CostBudget("params", amount), costs).within(table, reading)
        cost = costs.of(genotype)
        likelihood = prod(
            float(table[row, SIZES.space.edge_index(gene.target, gene.source), SIZES.space.op_index(gene.op)])
            for row, cell in enumerate(genotype.genes)
            for gene in cell
        )
        assert cost <= amount
        assert likelihood == pytest.approx(max(value for price, value in known if price <= cost + 1e-6))


def test_what_is_within_the_budget_is_read_as_ever() -> None:
    table, costs = weights(0), counted_costs("params", SIZES)
    limit = Limit(CostBudget("params", costs.of(reading(table))), costs)
    assert limit.within(table, reading) == reading(table)
    assert limit.judged(reading(table), reading(table)).note == ""


def test_where_nothing_gives_way_it_is_the_first_and_that_is_said() -> None:
    table, costs = weights(0), counted_costs("params", SIZES)
    fixed = torch.zeros_like(table)
    fixed[..., SIZES.space.op_index("sep_conv_5x5")] = 1.0
    limit = Limit(CostBudget("params", costs.constant + 1), costs)
    found = read(fixed, SIZES.space, Discretisation(), SIZES.order, SIZES.reductions, limit=limit)
    assert found.genotype == reading(fixed)
    assert found.cost is not None
    assert "more than the budget of" in found.cost.note
    assert "cheaper" not in found.cost.note


def test_a_threshold_that_leaves_too_little_hands_over_to_darts() -> None:
    """Within the budget no op reaches the threshold: the rule that stands in is within it as well."""
    costs = counted_costs("params", SIZES)
    table = torch.full((2, 2, 7), 0.1, dtype=torch.float64)
    table[..., SIZES.space.op_index("sep_conv_5x5")] = 0.9
    least, _ = costs.range("darts", Discretisation().configuration)
    limit = Limit(CostBudget("params", 1.2 * least), costs)
    how = Discretisation(rules=("sparse",))
    found = read(table, SIZES.space, how, SIZES.order, SIZES.reductions, limit=limit)
    assert found.rule == "darts"
    assert found.cost is not None
    assert costs.of(found.genotype) == found.cost.cost <= 1.2 * least
    assert "cheaper ones in the place of some" in found.cost.note

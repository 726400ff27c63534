"""The expected cost of op weights: exact where they are an architecture, the mean over all where they are equal."""

from __future__ import annotations

import itertools

import pytest
import torch
from costs.sizes import EVERY, sizes

from ddarts_ext.costs import counted_costs
from ddarts_ext.genotype.configuration import Configuration
from ddarts_ext.genotype.random import random_genotype
from ddarts_ext.search.architecture import ArchitectureParameters
from ddarts_ext.search.cost import ExpectedCost, Kept
from ddarts_ext.search.decisions import one_hot
from ddarts_ext.search.edge_weights import EdgeWeights
from ddarts_ext.search.methods import Objectives
from ddarts_ext.search.terms import terms

CPU = torch.device("cpu")


def expected(name: str, rule: str, amount: float = 1e5, kind: str = "params", how: Configuration = Configuration()):  # type: ignore[no-untyped-def] # noqa: B008
    of = EVERY[name]
    costs = counted_costs(kind, of)
    return of, costs, ExpectedCost(costs, amount, Kept.by(rule, of.space, how), CPU)


@pytest.mark.parametrize("name", [name for name in EVERY if name != "isdarts"])
@pytest.mark.parametrize("rule", ["darts", "sparse", "edge", "complete", "configuration"])
def test_of_an_architecture_it_is_the_exact_count(name: str, rule: str) -> None:
    of, costs, term = expected(name, rule)
    generator = torch.Generator().manual_seed(0)
    for _ in range(3):
        # By darts every node has its ops, whatever the rule that would have read them.
        genotype = random_genotype(of.space, of.order, generator=generator, reductions=of.reductions)
        weights = one_hot(genotype.genes, of.space).float()
        found = float(term.of_rows(weights).double().sum()) + term.constant
        assert found * 1e5 == pytest.approx(costs.of(genotype), rel=1e-6)
        assert torch.equal(term.kept(weights), weights)


def test_of_equal_weights_it_is_the_mean_over_all_architectures() -> None:
    of = sizes("darts", cells=3, steps=1)
    costs = counted_costs("macs", of)
    term = ExpectedCost(costs, 1.0, Kept.by("darts", of.space, Configuration()), CPU)
    table, ops = costs.table, range(len(of.space.ops))
    mean = sum(
        sum(float(row[0, one] + row[1, other]) for one, other in itertools.product(ops, ops)) / len(ops) ** 2
        for row in table
    )
    for value in (1 / 7, 0.9):
        found = term.of_rows(torch.full(table.shape, value)).double().sum()
        assert float(found) == pytest.approx(mean, rel=1e-5)


def test_as_many_ops_are_expected_as_stay() -> None:
    weights = torch.rand(4, 14, 7, generator=torch.Generator().manual_seed(0))
    for how in (Configuration(), Configuration((1, 3, 2, 2)), Configuration(edges_per_cell=6, ops_per_edge=2)):
        _, _, term = expected("darts", "configuration", how=how)
        total = how.ops_per_edge * (how.edges_per_cell or 8)
        torch.testing.assert_close(term.kept(weights).sum((1, 2)), torch.full((4,), float(total)))
    _, _, term = expected("darts", "sparse")
    few = torch.zeros_like(weights)
    few[:, 0, 3] = 0.5
    assert torch.equal(term.kept(few), few)


def test_none_is_not_an_op_that_stays_but_where_all_edges_do() -> None:
    of, _, term = expected("normal and reduction cells", "darts")
    weights = torch.rand(2, len(of.space.edges), 8, generator=torch.Generator().manual_seed(0))
    with_none = weights.clone()
    with_none[..., of.space.op_index("none")] = 5.0
    assert torch.equal(term.of_rows(weights), term.of_rows(with_none))
    of, _, term = expected("nasbench201", "darts")
    sure = torch.zeros(1, 6, 5)
    sure[..., of.space.op_index("none")] = 1.0
    assert float(term.of_rows(sure)) == 0


def test_its_gradient_is_that_of_finite_differences_and_reaches_betas() -> None:
    of = EVERY["normal and reduction cells"]
    configuration = Configuration()
    architecture = ArchitectureParameters(
        len(of.space.edges),
        len(of.space.ops),
        of.owner,
        "softmax",
        initial_scale=0.5,
        generator=torch.Generator().manual_seed(0),
        edge_weights=EdgeWeights(of.space, configuration, "softmax"),
    ).double()
    _, _, term = expected("normal and reduction cells", "darts")
    for name in ("table", "member", "chosen", "counts"):
        setattr(term, name, getattr(term, name).double())
    term.of_rows = lambda weights: (term.kept(weights) * term.table).sum((-2, -1))  # type: ignore[method-assign]
    leaf = architecture.leaf()
    assert torch.autograd.gradcheck(lambda at: term.at(architecture, at), leaf)
    gradient = torch.autograd.grad(term.at(architecture, leaf).sum(), leaf)[0]
    assert float(gradient[..., -1].abs().max()) > 0


def test_dear_ops_lose_and_cheap_ones_gain() -> None:
    """A step against the gradient lowers the alpha of the dearest op of an edge and raises that of the cheapest."""
    of, costs, term = expected("normal and reduction cells", "darts")
    architecture = ArchitectureParameters(len(of.space.edges), len(of.space.ops), of.owner, "softmax")
    leaf = architecture.leaf()
    found = terms(architecture, leaf, Objectives(), term)
    assert [*found] == ["cost"]
    gradient = torch.autograd.grad(found["cost"].sum(), leaf)[0]
    choices = list(of.space.choices)
    for row in range(2):
        for edge in range(len(of.space.edges)):
            prices, slopes = costs.table[row, edge, choices], gradient[row, edge, choices]
            assert int(prices.argmax()) == int(slopes.argmax())
            assert float(prices[slopes.argmin()]) == float(prices.min())

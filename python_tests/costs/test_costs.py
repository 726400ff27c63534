"""The cost of every op, added up, is the exact count of the network."""

from __future__ import annotations

import pytest
import torch
from costs.sizes import EVERY, sizes

from ddarts_ext.costs import counted_costs
from ddarts_ext.genotype.configuration import Configuration
from ddarts_ext.genotype.random import random_genotype
from ddarts_ext.nn import build_network, count_multiply_adds, count_parameters
from ddarts_ext.search.cost import Kept


def drawn(of: object, count: int = 4, rule: str = "darts", seed: int = 0) -> list[object]:
    generator = torch.Generator().manual_seed(seed)
    return [
        random_genotype(of.space, of.order, rule, generator=generator, reductions=of.reductions)  # type: ignore[attr-defined, arg-type]
        for _ in range(count)
    ]


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize("kind", ["params", "macs"])
def test_ops_and_the_rest_are_the_network(name: str, kind: str) -> None:
    of = EVERY[name]
    costs = counted_costs(kind, of)
    for genotype in drawn(of):
        if of.space.selection == "every_edge":
            network = of.build(genotype)  # build_network has five cells in a stage
        else:
            network = build_network(genotype, of.channels, 10, 3, stem=of.stem)
        count = count_multiply_adds(network, of.image).convolutions if kind == "macs" else count_parameters(network)
        assert costs.of(genotype) == count
        assert costs.linear(genotype) == pytest.approx(count, rel=1e-12)


def test_where_nodes_are_missing_the_sum_is_too_much() -> None:
    for kind in ("params", "macs"):
        costs = counted_costs(kind, sizes())
        for whole in drawn(sizes(), 4):
            genes = tuple(tuple(gene for gene in cell if gene.target != 4) for cell in whole.genes)
            genotype = sizes().genotype(genes)
            assert genotype.nodes(0) == (2, 3, 5)
            assert costs.of(genotype) < costs.linear(genotype) < costs.of(whole)


@pytest.mark.parametrize("name", ["darts", "normal and reduction cells", "isdarts", "nasbench201"])
def test_no_architecture_is_cheaper_than_the_least_or_dearer_than_the_most(name: str) -> None:
    of = EVERY[name]
    for kind in ("params", "macs"):
        costs = counted_costs(kind, of)
        least, most = costs.range("darts", Configuration())
        found = [costs.of(one) for one in drawn(of, 30)]
        assert least <= min(found) < max(found) <= most


def test_the_least_and_the_most_of_other_rules() -> None:
    of = sizes(cells=3)
    costs = counted_costs("params", of)
    darts = costs.range("darts", Configuration())
    for rule in ("sparse", "edge", "complete"):
        least, most = costs.range(rule, Configuration())
        found = [costs.of(one) for one in drawn(of, 20, rule)]
        assert least <= min(found) <= max(found) <= most
        assert least < darts[0]
        assert (most > darts[1]) == (rule != "sparse")
    one = costs.range("configuration", Configuration(edges_per_cell=4))
    many = costs.range("configuration", Configuration(edges_per_cell=9, ops_per_edge=2))
    assert one[0] <= many[0] < many[1] > one[1]


def test_what_rules_keep() -> None:
    space = sizes("darts", steps=2).space
    assert Kept.by("darts", space, Configuration()) == Kept(((0, 1), (2, 3, 4)), (2, 2), at_most=False)
    assert Kept.by("sparse", space, Configuration()).at_most
    assert Kept.by("edge", space, Configuration()).counts == (2,) * 5
    assert Kept.by("complete", space, Configuration()).counts == (7,) * 5
    assert Kept.by("configuration", space, Configuration((1, 3), 0, 2)).counts == (2, 6)
    whole = Kept.by("configuration", space, Configuration(edges_per_cell=3))
    assert (whole.groups, whole.counts) == ((tuple(range(5)),), (3,))
    nb201 = sizes("nasbench201", cells=3, sharing="normal_reduction").space
    assert Kept.by("darts", nb201, Configuration()).counts == (1,) * 6

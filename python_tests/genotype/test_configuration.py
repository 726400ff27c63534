"""What a target configuration keeps of a cell."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from ddarts_ext import spaces
from ddarts_ext.genotype import discretize
from ddarts_ext.genotype.configuration import Configuration
from ddarts_ext.genotype.random import random_genotype

DARTS = spaces.get("darts")
BETAS = [0.0, 0.0, 0.9, 0.6, -0.2, 1.2, 0.3, 0.5, -0.4, 0.1, 0.2, 0.8, 1.5, -1.0]


def kept(configuration: Configuration, betas: list[float] = BETAS) -> list[list[int]]:
    """Per node the sources that are kept."""
    weights = np.tile(np.linspace(0.1, 0.2, 7), (1, 14, 1))
    cell = discretize(weights, DARTS, "configuration", configuration=configuration, strengths=np.array([betas])).cells[
        0
    ]
    sources: list[list[int]] = [[] for _ in DARTS.nodes]
    for entry in cell:
        sources[entry.target - 2].append(entry.source)
    return sources


def test_the_balanced_target_drops_the_weakest_edges_of_every_node() -> None:
    assert kept(Configuration()) == [[0, 1], [0, 1], [0, 2], [3, 2]]


def test_imbalanced_targets() -> None:
    assert kept(Configuration((1, 3, 1, 4))) == [[0], [0, 1, 2], [0], [3, 2, 1, 0]]
    # One edge into every node, then the strongest of all that are left: 0.8 into node 5, 0.6 into node 3.
    assert kept(Configuration(edges_per_cell=6)) == [[0], [0, 1], [0], [3, 2]]
    assert kept(Configuration(edges_per_cell=4)) == [[0], [0], [0], [3]]
    assert sum(map(len, kept(Configuration(edges_per_cell=14)))) == 14


def test_so_many_ops_on_every_edge_the_largest_first() -> None:
    weights = np.zeros((1, 14, 7))
    weights[..., [4, 1, 6]] = 0.5, 0.3, 0.2
    found = discretize(weights, DARTS, "configuration", configuration=Configuration(ops_per_edge=2))
    assert [entry.op for entry in found.cells[0]] == ["sep_conv_5x5", "avg_pool_3x3"] * 8


def test_without_edge_weights_it_is_the_rule_of_darts() -> None:
    weights = torch.rand(2, 14, 7, generator=torch.Generator().manual_seed(0))
    one, other = (discretize(weights, DARTS, rule, seq=(0, 1, 0)) for rule in ("darts", "configuration"))
    assert one == other
    space = spaces.get("nasbench201")
    weights = torch.rand(1, 6, 5, generator=torch.Generator().manual_seed(0))
    assert discretize(weights, space, "darts") == discretize(weights, space, "configuration")


@pytest.mark.parametrize(
    ("configuration", "message"),
    [
        (Configuration((2, 2, 2)), "edges_per_node must have a number for each of 4 nodes"),
        (Configuration((2, 4, 2, 2)), r"edges_per_node must be in 1\.\.3 for node 3, got 4"),
        (Configuration((0, 2, 2, 2)), r"edges_per_node must be in 1\.\.2 for node 2, got 0"),
        (Configuration(edges_per_cell=3), r"edges_per_cell must be in 4\.\.14, got 3"),
        (Configuration(ops_per_edge=8), r"ops_per_edge must be in 1\.\.7, got 8"),
        (Configuration((2, 2, 2, 2), 8), "edges_per_node or edges_per_cell must be left out"),
    ],
)
def test_what_a_cell_cannot_have_is_refused(configuration: Configuration, message: str) -> None:
    with pytest.raises(ValueError, match=f"discretize: {message}"):
        discretize(np.ones((1, 14, 7)), DARTS, "configuration", configuration=configuration)


@pytest.mark.parametrize(
    ("strengths", "message"), [(np.ones((1, 13)), "must be .rows, edges.="), (np.full((1, 14), np.nan), "be finite")]
)
def test_wrong_strengths_are_refused(strengths: Any, message: str) -> None:
    with pytest.raises(ValueError, match=f"discretize: strengths {message}|discretize: strengths must {message}"):
        discretize(np.ones((1, 14, 7)), DARTS, "configuration", strengths=strengths)


@pytest.mark.parametrize(
    "configuration", [Configuration(), Configuration((1, 3, 2, 5), 0, 2), Configuration(edges_per_cell=7)]
)
def test_random_architectures_have_the_configuration(configuration: Configuration) -> None:
    generator = torch.Generator().manual_seed(0)
    for _ in range(20):
        found = random_genotype(DARTS, (0, 1, 0), "configuration", generator=generator, configuration=configuration)
        for cell in found.genes:
            into = [len({entry.source for entry in cell if entry.target == node}) for node in DARTS.nodes]
            if configuration.edges_per_cell:
                assert sum(into) == 7
                assert min(into) >= 1
            else:
                assert tuple(into) == configuration.kept(DARTS)
            assert len(cell) == sum(into) * configuration.ops_per_edge

"""Recurrent genotypes: the published text, files, reading from weights, drawing at random."""

from __future__ import annotations

import pytest
import torch

from ddarts_ext import spaces
from ddarts_ext.genotype import Genotype
from ddarts_ext.genotype.discretisation import discretize
from ddarts_ext.genotype.random import random_genotype

SPACE = spaces.get("rnn")
V2 = (
    "Genotype(recurrent=[('sigmoid', 0), ('relu', 1), ('relu', 1), ('identity', 1), ('tanh', 2), ('sigmoid', 5), "
    "('tanh', 3), ('relu', 5)], concat=range(1, 9))"
)


def test_the_published_text_is_read_and_written() -> None:
    genotype = Genotype.from_text(f"DARTS_V2 = {V2}\nDARTS = DARTS_V2")
    assert genotype == Genotype.load("DARTS_V2_RNN")
    assert genotype.to_text() == V2
    assert genotype.recurrent
    assert Genotype.from_text(str(genotype)) == genotype
    assert Genotype.from_json(genotype.to_json()) == genotype
    assert not Genotype.load("DARTS_V2").recurrent


def test_v1_is_the_published_one() -> None:
    ops = [(entry.op, entry.source) for entry in Genotype.load("DARTS_V1_RNN").cells[0]]
    names = ["relu", "relu", "tanh", "relu", "relu", "identity", "relu", "relu"]
    assert ops == list(zip(names, [0, 1, 2, 3, 4, 1, 5, 1], strict=True))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Genotype(recurrent=[], concat=range(1, 9))", "recurrent must be a list"),
        ("Genotype(recurrent=[('relu', 0, 1)], concat=[1])", r"recurrent\[0\] must be \(op, source\)"),
        ("Genotype(recurrent=[('relu', 0)])", "must have concat= beside recurrent=, a list of nodes"),
        ("Genotype(recurrent=[('elu', 0)], concat=[1])", "op"),
        ("Genotype(recurrent=[('relu', 1)], concat=[1])", "."),
    ],
)
def test_other_text_is_refused(text: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Genotype.from_text(text)


def test_the_space_has_36_edges_and_one_op_on_one_edge_per_node() -> None:
    assert len(SPACE.edges) == 36
    assert SPACE.concat == tuple(range(1, 9))
    assert SPACE.size() == 40320 * 4**8
    assert SPACE.reductions(1) == ()


def test_a_node_keeps_its_strongest_edge_whatever_none_weighs() -> None:
    weights = torch.full((1, 36, 5), 0.05).double()
    weights[0, :, 0] = 0.9
    for node, source, op in ((1, 0, 2), (2, 1, 1), (3, 2, 4), (4, 0, 3)):
        weights[0, SPACE.edge_index(node, source), op] = 0.06
    found = discretize(weights, SPACE, "darts", seq=(0,))
    kept = [(entry.op, entry.source) for entry in found.cells[0]]
    assert kept[:4] == [("relu", 0), ("tanh", 1), ("identity", 2), ("sigmoid", 0)]
    assert kept[4:] == [("tanh", 0)] * 4  # ties: the lowest source, the first op
    assert found.reductions == ()


def test_random_ones_have_one_op_per_node() -> None:
    generator = torch.Generator().manual_seed(0)
    drawn = [random_genotype(SPACE, (0,), "darts", generator=generator) for _ in range(50)]
    assert all([entry.target for entry in genotype.cells[0]] == list(range(1, 9)) for genotype in drawn)
    assert {genotype.cells[0][1].source for genotype in drawn} == {0, 1}
    assert {genotype.cells[0][0].op for genotype in drawn} == set(spaces.ACTIVATIONS)

"""Algorithm 1 of D-DARTS: larger networks from searched cells."""

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ddarts_ext.genotype import Gene, Genotype, architectures
from ddarts_ext.genotype.derivation import Index, cell_sequence, derive


@pytest.mark.parametrize(
    ("index", "cells", "expected"),
    [
        ("reference", 14, "0 0 0 1 2 4 3 4 3 5 6 7 6 7"),
        ("reference", 20, "0 0 0 1 1 1 2 4 3 4 3 4 3 5 6 7 6 7 6 7"),
        ("cycle", 14, "0 1 0 1 2 3 4 3 4 5 6 7 6 7"),
    ],
)
def test_published_sequences_from_8_cells(index: Index, cells: int, expected: str) -> None:
    assert " ".join(map(str, cell_sequence(8, cells, index))) == expected


@pytest.mark.parametrize("n", [5, 6, 7, 8, 11, 20])
@pytest.mark.parametrize("cells", [3, 5, 8, 14, 20, 33])
def test_cycle_keeps_every_block_in_its_order(n: int, cells: int) -> None:
    sequence = cell_sequence(n, cells, "cycle")
    r1, r2 = n // 3, 2 * n // 3
    first, second = cells // 3, 2 * cells // 3
    assert (sequence[first], sequence[second]) == (r1, r2)
    for block, low, high in (
        (sequence[:first], 0, r1),
        (sequence[first + 1 : second], r1 + 1, r2),
        (sequence[second + 1 :], r2 + 1, n),
    ):
        assert block == tuple(low + i % (high - low) for i in range(len(block)))


@pytest.mark.parametrize("index", ["reference", "cycle"])
@pytest.mark.parametrize("name", architectures())
def test_as_many_cells_is_the_same_network(name: str, index: Index) -> None:
    genotype = Genotype.load(name)
    assert derive(genotype, genotype.layers, index) == genotype
    assert derive(genotype, genotype.layers, index, "from_file") == genotype


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 40), st.sampled_from(["reference", "cycle"]), st.data())
def test_as_many_cells_is_the_same_network_for_any_genotype(n: int, index: Index, data: st.DataObject) -> None:
    """Distinct cells, so that a wrong one shows; shared ones, any reductions, unequal concats too."""
    edges = [(target, source) for target in range(2, 6) for source in range(target)]
    genes = [(Gene("skip_connect", *edges[i % 14]), Gene("max_pool_3x3", *edges[i // 14])) for i in range(n)]
    seq = data.draw(st.none() | st.lists(st.integers(0, n - 1), min_size=n, max_size=n))
    reductions = data.draw(st.none() | st.lists(st.integers(0, n - 1), max_size=3, unique=True))
    concats = [(5, 2 + i % 4)[: 1 + (i % 4 != 3)] for i in range(n)] if data.draw(st.booleans()) else []
    genotype = Genotype(tuple(genes), tuple(seq or ()), reductions=reductions, concats=tuple(concats))  # type: ignore[arg-type]
    derived = derive(genotype, n, index)
    assert derived == genotype
    assert cell_sequence(n, n, index) == tuple(range(n))


def test_what_cells_join_goes_along() -> None:
    searched = Genotype.load("D-DARTS_edge_cifar10")
    concats = tuple((2, 5) if i % 2 else (3, 4, 5) for i in range(8))
    derived = derive(replace(searched, concats=concats), 14)
    assert [set(derived.joined(i)) for i in range(14)] == [
        set(concats[k]) & set(searched.nodes(k)) for k in cell_sequence(8, 14)
    ]


def test_derived_network_reduces_at_thirds_whatever_the_source_says() -> None:
    genotype = Genotype.load("D-DARTS_edge_cifar10")
    derived = derive(genotype, 14)
    assert derived.layers == 14
    assert derived.reduction_cells == (4, 9)
    assert derived.cells[4] == genotype.cells[2]
    assert derived.cells[9] == genotype.cells[5]


def test_reductions_from_file_as_the_reference_implementation() -> None:
    published = Genotype.load("D-DARTS_edge_cifar10", reductions="from_file")
    assert published.reduction_cells == (2, 6)
    derived = derive(published, 14, reductions="from_file")
    assert derived.reduction_cells == (2, 6)
    assert derived.seq == cell_sequence(8, 14)


def test_a_network_searched_with_other_reductions_keeps_their_cells() -> None:
    searched = Genotype.load("D-DARTS_edge_cifar10").with_reductions((1, 4))
    derived = derive(searched, 14, "cycle")
    assert derived.seq == (0, 0, 0, 0, 1, 2, 3, 2, 3, 4, 5, 6, 7, 5)


def test_shared_genes_stay_shared() -> None:
    derived = derive(Genotype.load("DARTS_V2"), 14, "cycle")
    assert len(derived.genes) == 2
    assert derived == Genotype.load("DARTS_V2", layers=14)


def test_errors_say_what_is_missing() -> None:
    genotype = Genotype.load("D-DARTS_edge_cifar10")
    with pytest.raises(ValueError, match="genotype must have 2 reduction cells, got 3 in 4 cells"):
        derive(Genotype.load("ResNet18"), 14)
    with pytest.raises(ValueError, match="cells must have room for 2 reduction cells, got 1 cells"):
        derive(genotype, 1)
    with pytest.raises(TypeError, match=r"derive: cells must be a whole number, got 2\.5"):
        derive(genotype, 2.5)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"derive: genotype must be a Genotype, as Genotype\.load reads it, got str"):
        derive("DARTS_V2")  # type: ignore[arg-type]
    of_numpy: Any = np.int64(8)
    published = Genotype.load("DARTS_V2")
    assert derive(published, of_numpy) == derive(published, 8)
    assert json.dumps(published.with_layers(of_numpy).to_json()) == json.dumps(published.with_layers(8).to_json())
    with pytest.raises(TypeError, match="genotype: must be a file, a name or the text of one, got int"):
        Genotype.load(3)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"; cells can be 2, .*8") as fewer:
        derive(Genotype.load("DARTS_V2"), 1)
    fitting = str(fewer.value).split("can be ")[1].split(" ...")[0].split(", ")
    assert all(derive(Genotype.load("DARTS_V2"), int(n)).layers == int(n) for n in fitting)
    with pytest.raises(ValueError, match=r"derive: cells must be in 1\.\.10000, got 1000000000"):
        derive(genotype, 10**9)
    four = Genotype(genotype.genes[:4])
    with pytest.raises(
        ValueError, match=r"a normal cell in block 1 for cell 5 of 14, got 4 cells with reductions \[1, 2\]"
    ):
        derive(four, 14, "cycle")
    # No length has an empty block 1 but 3 and 4; a search of 5 cells has all blocks.
    with pytest.raises(
        ValueError, match="of these 4 cells no longer network can be made; of 5 searched cells it can be 14"
    ):
        derive(four, 14, "cycle")
    assert derive(Genotype(genotype.genes[:5]), 14, "cycle").layers == 14
    with pytest.raises(ValueError, match="; cells can be 9, 10, 11, ") as raised:
        derive(genotype, 30)
    assert all(
        derive(genotype, int(n)).layers == int(n)
        for n in str(raised.value).split("can be ")[1].split(" ...")[0].split(", ")
    )
    with pytest.raises(ValueError, match="index must be 'cycle' here, as 'reference' picks cell 2 for cell 6"):
        derive(genotype, 30)
    with pytest.raises(ValueError, match="index must be one of reference, cycle, got 'paper'"):
        derive(genotype, 14, "paper")  # type: ignore[arg-type]

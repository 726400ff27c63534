"""Tables of op times: written, read, compared with the network that they are of."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from costs.sizes import EVERY, sizes

from ddarts_ext.benchmark.op_times import architectures
from ddarts_ext.costs import LatencyTable
from ddarts_ext.costs.latency import OpTime, places


def table(name: str = "darts") -> LatencyTable:
    """Times that are nothing but numbers: an op takes as many milliseconds as its channels, times its name's length."""
    of = EVERY[name]
    times = {place: OpTime(float(place.channels * len(place.op)), (1.0, 2.0), 5, "clock") for place in places(of)}
    return LatencyTable(of, 2, {"device": "cpu", "cpu": "none"}, times, 7.0, (6.0, 8.0))


@pytest.mark.parametrize("name", EVERY)
def test_places_are_what_ops_read_in_a_network(name: str) -> None:
    """Every op of networks that run is given what its place says: channels, stride and size."""
    of = EVERY[name]
    for genotype in architectures(of, 3, seed=0):
        network, seen = of.build(genotype, "cpu").eval(), []
        for number, cell in enumerate(network.cells):
            graph = getattr(cell, "graph", cell)
            states: dict[int, torch.Tensor] = {}
            run = graph.states

            def states_of(inputs: Any, *rest: Any, run: Any = run, states: Any = states) -> Any:
                states |= run(inputs, *rest)
                return states

            graph.states = states_of
            seen.append((number, graph, states))
        network(torch.zeros(2, *of.image))
        for number, graph, states in seen:
            for op, target, source in graph.entries:
                edge = of.space.edge_index(target, source)
                place = of.place(number, edge, of.space.op_index(op))
                assert list(states[source].shape[1:]) == [place.channels, place.height, place.width]
                assert states[target].shape[2] == -(-place.height // place.stride)


def test_a_table_is_read_as_it_was_written(tmp_path: Path) -> None:
    written = table()
    written.save(tmp_path / "ops.json")
    found = LatencyTable.load(tmp_path / "ops.json")
    assert found == written
    genotype = architectures(written.sizes, 1, seed=0)[0]
    expected = 7.0 + sum(
        written.ops[written.sizes.place(cell, edge, op)].median_ms
        for cell, genes in enumerate(genotype.cells)
        for gene in genes
        for edge, op in [
            (written.sizes.space.edge_index(gene.target, gene.source), written.sizes.space.op_index(gene.op))
        ]
    )
    assert found.costs().of(genotype) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"channels": 6}, r"network with channels 6, got 4"),
        ({"cells": 5}, r"network with cells 5, got 4"),
        ({"size": (9, 8)}, r"network with image \[3, 9, 8\], got \[3, 8, 8\]"),
        ({"space": "darts_none"}, r"network with space darts_none, got darts"),
    ],
)
def test_a_table_of_another_network_is_refused(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        table().check(sizes(**changed), "ops.json")


def test_a_table_does_not_care_which_cells_are_alike() -> None:
    table().check(sizes(sharing="normal_reduction"), "ops.json")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda data: data.pop("ops"), "KeyError: 'ops'"),
        (lambda data: data.update(version=2), "version must be 1, got 2"),
        (lambda data: data["ops"].pop(), "it has no time of"),
        (lambda data: data["ops"][0].update(median_ms=-1), "not negative"),
        (lambda data: data["network"]["ops"].reverse(), "ops of space darts must be"),
    ],
)
def test_a_file_that_is_none_is_refused(change: Any, message: str, tmp_path: Path) -> None:
    path = tmp_path / "ops.json"
    table().save(path)
    data = json.loads(path.read_text())
    change(data)
    path.write_text(json.dumps(data))
    with pytest.raises(ValueError, match=message):
        LatencyTable.load(path)
    with pytest.raises(FileNotFoundError, match="latency_table must be a file of ddarts measure-ops"):
        LatencyTable.load(tmp_path / "none.json")

"""Starting from a network that exists: its encoding, who shares alphas, and what the pre-training leaves alone."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from runs.shown import Shown
from typer.testing import CliRunner

from ddarts_ext import cli, spaces
from ddarts_ext.data import Augmentation, Dataset, MemorySplit
from ddarts_ext.genotype import Gene, Genotype
from ddarts_ext.genotype.start import Start
from ddarts_ext.nn import DiscreteNetwork
from ddarts_ext.search.architecture import owners
from ddarts_ext.search.searcher import Searcher
from ddarts_ext.search.settings import arguments_of
from ddarts_ext.search.start import initial_state

ENDS = (Gene("max_pool_3x3", 2, 1),)
TWO_GENES = Genotype(((Gene("skip_connect", 2, 0),), ENDS), seq=(0, 1, 0), concat=(2,), reductions=(1,))
ONE_GENE = Genotype((ENDS,), seq=(0, 0), concat=(2,), reductions=())
SMALL: dict[str, Any] = {"channels": 2, "batch": 4, "epochs": 3, "alpha_start": 1, "device": "cpu"}


def noise(train: int = 16) -> Dataset:
    generator = torch.Generator().manual_seed(0)

    def split(count: int) -> MemorySplit:
        images = torch.randint(0, 256, (count, 1, 4, 4), generator=generator, dtype=torch.uint8)
        return MemorySplit(images, torch.arange(count) % 2)

    classes = ("even", "odd")
    return Dataset("noise", split(train), split(4), classes, (4, 4), 1, (0.5,), (0.25,), Augmentation(crop_padding=1))


@pytest.mark.parametrize(
    ("name", "rows", "edges", "entries"),
    [("ResNet18", 1, 14, [6]), ("ResNet50", 3, 27, [6, 8, 12]), ("Xception", 3, 14, [4, 4, 2])],
)
def test_published_starts(name: str, rows: int, edges: int, entries: list[int]) -> None:
    """Cells of one sequence number have one row: alpha is 10 at every op of the network, and 0 elsewhere."""
    start = Start.load(name)
    space = spaces.get("dartopti", steps=start.genotype.steps)
    owner = owners("sequence", start.genotype.layers, start.genotype.reduction_cells, start.genotype.seq)
    table = start.table(space, owner)
    assert table.shape == (rows, edges, 12)
    assert [int((row == 10).sum()) for row in table] == entries
    assert set(table.unique().tolist()) == {0.0, 10.0}
    weights = torch.sigmoid(table)
    assert weights.max().item() == pytest.approx(1 / (1 + math.exp(-10)))
    assert weights.min().item() == 0.5
    for row, gene in enumerate(dict.fromkeys(start.genotype.seq)):
        for op, target, source in start.genotype.genes[gene]:
            assert table[row, space.edge_index(target, source), space.op_index(op)] == 10


def test_every_baseline_can_be_the_start() -> None:
    for name in ("ResNet18", "ResNet50", "Xception", "InceptionV4", "D-DARTS_edge_cifar10"):
        start = Start.load(name)
        assert start.sizes()["cells"] == start.genotype.layers
        owner = owners("sequence", start.genotype.layers, (), start.genotype.seq)
        assert len(start.table(spaces.get("dartopti", steps=start.genotype.steps), owner)) == len(set(owner))


def test_options_of_the_encoding() -> None:
    start = Start.load("ResNet18", off_logit=-10, input_node=1)
    table = start.table(spaces.get("dartopti"), (0,) * 4)
    assert set(table.unique().tolist()) == {-10.0, 10.0}
    assert {gene.source for gene in start.network.genes[0]} == {1, 2, 3, 4}
    assert len(start.network.genes[0]) == len(start.genotype.genes[0])
    assert Start.from_json(start.to_json()) == start
    both = Genotype(((Gene("skip_connect", 2, 0), Gene("skip_connect", 2, 1)),), concat=(2,))
    assert Start(both, input_node=1).network.genes == ((Gene("skip_connect", 2, 1),),)


@pytest.mark.parametrize(("input_node", "dead"), [(None, [0, 2]), (1, [])])
def test_published_residual_networks_have_dead_cells(input_node: int | None, dead: list[int]) -> None:
    """Node 0 is the cell before last: cells 0 and 2 of ResNet18 reach no output. Node 1 chains the cells."""
    torch.manual_seed(0)
    net = DiscreteNetwork(Start.load("ResNet18", input_node=input_node).network, 2, 2, in_channels=1)
    net(torch.randn(2, 1, 8, 8)).sum().backward()
    without = [
        index
        for index, cell in enumerate(net.cells)
        if all(p.grad is None for p in cell.graph.parameters())  # type: ignore[union-attr]
    ]
    assert without == dead


def test_equal_cells_share_alphas_and_their_optimiser() -> None:
    searcher = Searcher(noise(), "dartopti", start=TWO_GENES, **SMALL)
    state = initial_state(searcher.config, searcher.dataset, torch.device("cpu"))
    assert state.architecture.owner == (0, 1, 0)
    assert state.net.reductions == (1,)
    result = searcher.search()
    assert torch.equal(result.alphas[0], result.alphas[2])
    assert not torch.equal(result.alphas[0], result.alphas[1])
    assert result.genotype.layers == 3
    assert result.genotype.reduction_cells == (1,)
    assert len(result.history[-1]["contributions"]) == 2
    assert set(result.genotypes) == {"sparse", "edge", "darts"}


def test_pre_training_moves_weights_alone() -> None:
    result = Searcher(noise(), "dartopti", start=Start(TWO_GENES, off_logit=-3.0), **SMALL, alpha_lr=0.1).search()
    first, *rest = result.history
    flat = {value for cell in first["alphas"] for edge in cell for value in edge}
    assert flat == {-3.0, 10.0}
    assert "architecture" not in first
    assert "architecture" in rest[0]
    assert rest[0]["alphas"] != first["alphas"]
    assert first["distance"] == {"start": 0.0, "previous": 0.0}
    # The weights' cosine runs from the first epoch, the alphas' from their first step.
    assert [record["weight_lr"] for record in result.history] == sorted(
        (record["weight_lr"] for record in result.history), reverse=True
    )
    assert first["alpha_lr"] == rest[0]["alpha_lr"] == 0.1 > rest[1]["alpha_lr"]


def test_one_shared_architecture_has_no_ablation_loss() -> None:
    """The only row is as useful as the mean over rows: A = 0, which is said once and costs nothing."""
    said = Shown()
    result = Searcher(noise(), "dartopti", start=ONE_GENE, **SMALL, progress=said).search()
    assert [line for line in said.lines if "ablation" in line] == [
        "search: all cells share one architecture, so the ablation loss is 0 and is left out"
    ]
    assert "contributions" not in result.history[-1]
    without = Searcher(noise(), "dartopti", start=ONE_GENE, **SMALL, ablation_weight=0.0).search()
    assert torch.equal(result.alphas, without.alphas)


def test_start_is_kept_with_the_run(tmp_path: Path) -> None:
    searcher = Searcher(
        noise(), "dartopti", start=Start(TWO_GENES, off_logit=-1.0, input_node=1), **SMALL, out=tmp_path
    )
    searcher.search()
    assert searcher.folder is not None
    arguments = {**arguments_of(searcher.folder.config()), "data": noise()}
    again = Searcher(**arguments, device="cpu", out=tmp_path, resume=True)
    assert again.config == searcher.config


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "start must be given for method dartopti"),
        ({"start": "VGG"}, "must be a file or one of"),
        ({"start": TWO_GENES, "cells": 5}, "cells must be 3 as in the start, got 5"),
        ({"start": TWO_GENES, "epochs": 1}, "epochs must be more than the 1 before alphas move"),
        ({"start": Genotype(((Gene("sep_conv_7x7", 2, 0),),), concat=(2,))}, "start must be of ops in .*sep_conv_7x7"),
        ({"start": Genotype(((Gene("nor_conv_1x1", 1, 0),),), concat=(1,), inputs=1)}, "start must have .* 2 inputs"),
        ({"start": TWO_GENES, "early_stop": 1}, "early_stop must be true or false"),
        ({"start": TWO_GENES, "stop_window": 0}, "stop_window must be >= 1"),
        ({"start": TWO_GENES, "sequence": (0, 0, 0)}, "start must have equal cells where alphas are shared"),
    ],
)
def test_wrong_starts_are_named(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises((ValueError, TypeError), match=message):
        Searcher(noise(), "dartopti", **{**SMALL, **arguments})


@pytest.mark.parametrize(("value", "message"), [(10.0, "off_logit"), (math.nan, "off_logit"), ("low", "off_logit")])
def test_wrong_options_are_named(value: Any, message: str) -> None:
    with pytest.raises((ValueError, TypeError), match=message):
        Start(TWO_GENES, off_logit=value)
    with pytest.raises(ValueError, match="input_node must be 0 or 1, got 2"):
        Start(TWO_GENES, input_node=2)


def test_a_genotype_file_on_the_command_line(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    pixels, labels = rng.integers(0, 256, (16, 4, 4), dtype=np.uint8), np.arange(16) % 2
    np.savez(tmp_path / "images.npz", x_train=pixels, y_train=labels, x_test=pixels, y_test=labels)
    TWO_GENES.save(tmp_path / "own.json")
    out = str(tmp_path / "run")
    begin = ["search", "--data", str(tmp_path / "images.npz"), "--method", "dartopti", "--out", out, "--device", "cpu",
             "--start", str(tmp_path / "own.json"), "--off-logit", "-10", "--input-node", "1", "--no-early-stop",
             "--channels", "2", "--batch", "4", "--epochs", "2", "--set", "alpha_start=1"]  # fmt: skip
    first = CliRunner().invoke(cli.app, begin, catch_exceptions=False)
    assert first.exit_code == 0, first.output
    assert "distance to the start 0.000000 after 2 epochs" in first.stdout
    assert Genotype.load(f"{out}/genotypes.json#edge").layers == Genotype.load(out).layers == 3
    history = [json.loads(line) for line in (tmp_path / "run" / "history.jsonl").read_text().splitlines()]
    assert {a for cell in history[0]["alphas"] for edge in cell for a in edge} == {-10.0, 10.0}
    # The run knows its start; what is said again must be the same.
    again = CliRunner().invoke(cli.app, ["search", "--out", out, "--resume", "--device", "cpu"], catch_exceptions=False)
    assert again.exit_code == 0, again.output
    with pytest.raises(ValueError, match=r"off_logit must be -10.0 to resume"):
        CliRunner().invoke(cli.app, [*begin, "--resume", "--off-logit", "0"], catch_exceptions=False)
    with pytest.raises(ValueError, match="--start must be given with --off-logit and --input-node"):
        CliRunner().invoke(cli.app, ["search", "--data", "digits", "--off-logit", "0"], catch_exceptions=False)

"""What is called dead gets no gradient, and all else does; a cell joins what its concat names."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from torch import nn
from typer.testing import CliRunner

from ddarts_ext import cli
from ddarts_ext.genotype import Gene, Genotype
from ddarts_ext.genotype.files import image_architectures
from ddarts_ext.nn import DiscreteNetwork, NASBench201Network, build_network, count_parameters, dead_parameters
from ddarts_ext.nn.dead import dead_note
from ddarts_ext.spaces import get


def silent(network: Any, size: int = 32, *, auxiliary: bool = False) -> tuple[str, ...]:
    """The parameters without gradient, of a loss that weighs every logit of every image."""
    generator = torch.Generator().manual_seed(1)
    # With the statistics of a batch the gradient of a bias before another norm is zero but for rounding.
    network = network.double().eval()
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if "norm" in name:  # so that no gradient vanishes in a ReLU at zero
                parameter.add_(torch.rand(parameter.shape, generator=generator, dtype=torch.float64))
    images = torch.randn(4, network.in_channels, size, size, generator=generator, dtype=torch.float64)
    outputs = network.forward_auxiliary(images) if auxiliary else (network(images),)
    loss = sum((out * torch.randn(out.shape, generator=generator, dtype=torch.float64)).sum() for out in outputs)
    torch.autograd.backward(loss)
    return tuple(
        name for name, parameter in network.named_parameters() if parameter.grad is None or not parameter.grad.any()
    )


def random_genotype(seed: int, ops: tuple[str, ...] = get("dartopti").ops) -> Genotype | None:
    """Few entries a cell, own concats: much of it is dead. None where a cell has no output."""
    random = torch.Generator().manual_seed(seed)

    def draw(below: int) -> int:
        return int(torch.randint(below, (), generator=random))

    layers = 1 + draw(6)
    genes = []
    for _ in range(layers):
        cell = {}
        for _ in range(2 + draw(5)):
            target = 2 + draw(4)
            cell[Gene(ops[draw(len(ops))], target, draw(target))] = None
        genes.append(tuple(cell))
    concats = tuple(tuple(node for node in range(2, 6) if draw(2)) or (5,) for _ in range(layers))
    genotype = Genotype(tuple(genes), concats=concats, reductions=tuple({draw(layers), draw(layers)}), steps=4)
    return genotype if all(genotype.joined(i) for i in range(layers)) else None


RANDOM = [genotype for genotype in map(random_genotype, range(400)) if genotype is not None][:40]


@pytest.mark.parametrize("name", [name for name in image_architectures() if name != "Xception_cifar100_edge"])
def test_published_architectures_against_autograd(name: str) -> None:
    genotype = Genotype.load(name)
    if len(genotype.genes) == 2:
        genotype = genotype.with_layers(5)
    network = build_network(genotype, channels=4)
    dead = dead_parameters(network)
    assert dead == silent(network, 16)
    assert bool(dead) == bool(genotype.dead_cells() or any(genotype.reads(i) != (0, 1) for i in range(genotype.layers)))


@pytest.mark.parametrize("index", range(len(RANDOM)))
def test_random_architectures_against_autograd(index: int) -> None:
    genotype = RANDOM[index]
    stem = ("cifar", "imagenet", "imagenet_stride4")[index % 3]
    network = DiscreteNetwork(genotype, channels=4, stem=stem)
    assert dead_parameters(network) == silent(network, 32 if stem == "cifar" else 64)


@pytest.mark.parametrize("index", range(10))
def test_an_auxiliary_classifier_reads_a_cell_too(index: int) -> None:
    genotype = RANDOM[index]
    network = DiscreteNetwork(genotype, channels=4, auxiliary=True)
    alone = dead_parameters(network, auxiliary=False)
    assert dead_parameters(network) == silent(network, auxiliary=True)
    assert set(dead_parameters(network)) <= set(alone)


def test_random_architectures_have_every_kind_of_dead_part() -> None:
    """Else the tests above would show little."""
    names = {name for genotype in RANDOM for name in dead_parameters(DiscreteNetwork(genotype, 4, stem="imagenet"))}
    for part in ("stem.conv1", ".preprocess0", ".preprocess1", ".graph.ops"):
        assert any(part in name for name in names)
    assert any(genotype.dead_cells() for genotype in RANDOM)


@pytest.mark.parametrize("seed", range(30))
def test_nasbench201_against_autograd(seed: int) -> None:
    ops = get("nasbench201").ops
    random = torch.Generator().manual_seed(seed)
    a, b, c, d, e, f = (ops[max(0, int(torch.randint(-4, 5, (), generator=random)))] for _ in range(6))
    genotype = Genotype.from_nb201(f"|{a}~0|+|{b}~0|{c}~1|+|{d}~0|{e}~1|{f}~2|")
    network = NASBench201Network(genotype, 4, cells_per_stage=1)
    dead = set(dead_parameters(network))
    quiet = set(silent(network, 8))
    if genotype.dead_cells():
        assert {name for name, _ in network.named_parameters()} - dead == {
            name for name, _ in network.named_parameters() if name.startswith(("norm.", "classifier."))
        }
        assert "stem.conv.weight" in quiet
        return
    assert quiet <= dead
    # Behind a node that is zero, the bias of a norm and what it makes of the border are left.
    shifts = {gene.target for k, gene in enumerate(network.entries) if f"cells.0.ops.{k}.norm.bias" in dead}
    assert shifts or dead == quiet


def test_what_a_concat_leaves_out_is_not_joined() -> None:
    normal = [("skip_connect", node, node - 1) for node in (2, 3, 4, 5)]
    for concat, reduce_concat in (((2, 3, 4, 5), (2, 3, 4, 5)), ((3, 4, 5), (3, 4, 5)), ((5,), (2, 5)), ((2, 3), (4,))):
        genotype = Genotype.from_darts(normal, normal, 4, concat, reduce_concat)
        network = DiscreteNetwork(genotype, channels=8)
        channels = 8
        for i in range(4):
            channels *= 2 if i in (1, 2) else 1
            joined = reduce_concat if i in (1, 2) else concat
            assert genotype.joined(i) == joined
            assert network.cells[i].out_channels == channels * len(joined)
        images = torch.randn(2, 3, 8, 8)
        assert network(images).shape == (2, 10)
        if concat == reduce_concat:
            same = DiscreteNetwork(Genotype((tuple(Gene(*g) for g in normal),) * 4, concat=concat), 8)
            assert count_parameters(network) == count_parameters(same)


def test_the_note_names_cells_entries_and_parameters() -> None:
    genotype = Genotype(
        ((Gene("sep_conv_3x3", 2, 1),), (Gene("sep_conv_3x3", 2, 0), Gene("sep_conv_3x3", 3, 2))), concat=(2,), steps=2
    )
    note = dead_note(DiscreteNetwork(genotype, channels=2))
    assert note.startswith("cells on no path from the image to the output: 0; entries that reach no output, by cell: ")
    assert "1: sep_conv_3x3:3<-2; " in note
    assert note.endswith(" parameters that nothing trains")
    assert dead_note(DiscreteNetwork(Genotype.load("DARTS_V2", layers=5), channels=2)) == ""


def test_describe_names_dead_parts() -> None:
    figures = json.loads(CliRunner().invoke(cli.app, ["describe", "ResNet18", "--channels", "4", "--json"]).output)
    assert figures["dead_cells"] == [0, 2]
    network: nn.Module = DiscreteNetwork(Genotype.load("ResNet18"), 4)
    quiet = silent(network)
    assert figures["dead_parameters"] == sum(p.numel() for name, p in network.named_parameters() if name in quiet)
    text = CliRunner().invoke(cli.app, ["describe", "ResNet18", "--channels", "4"]).output
    assert f"dead: cells on no path from the image to the output: 0, 2; {figures['dead_parameters']:,} param" in text
    assert "dead" not in CliRunner().invoke(cli.app, ["describe", "DARTS_V2", "--layers", "5"]).output

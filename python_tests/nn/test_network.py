"""Networks of decided architectures: which nodes exist, drop path, auxiliary head, sizes, errors."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from ddarts_ext.genotype import Gene, Genotype
from ddarts_ext.nn import AuxiliaryHead, DiscreteNetwork, NASBench201Network, Pass, build_network
from ddarts_ext.nn.discrete import DiscreteGraph, Drop, drop_path

DARTS = Genotype.load("DARTS_V2", layers=4)


def images(batch: int = 4, channels: int = 3, height: int = 8, width: int = 8) -> Tensor:
    return torch.randn(batch, channels, height, width, generator=torch.Generator().manual_seed(0))


def network(genotype: Genotype = DARTS, **options: object) -> DiscreteNetwork:
    torch.manual_seed(0)
    return DiscreteNetwork(genotype, **({"channels": 4} | options))  # type: ignore[arg-type]


@pytest.mark.parametrize(("channels", "height", "width"), [(1, 8, 8), (3, 9, 7), (3, 4, 6)])
def test_any_image(channels: int, height: int, width: int) -> None:
    net = network(in_channels=channels, auxiliary=True, drop_path=0.2)
    logits, auxiliary = net.forward_auxiliary(images(4, channels, height, width))
    (logits.sum() + auxiliary.sum()).backward()
    assert logits.shape == auxiliary.shape == (4, 10)
    assert all(p.grad is not None for p in net.parameters())
    assert net.eval()(images(1, channels, height, width)).shape == (1, 10)


@pytest.mark.parametrize("stem", ["imagenet", "imagenet_stride4"])
def test_imagenet_stems(stem: str) -> None:
    net = network(Genotype.load("ResNet18"), stem=stem, channels=4, auxiliary=True)
    assert net.forward_auxiliary(images(2, 3, 64, 72))[0].shape == (2, 10)


def test_cells_have_the_nodes_that_exist() -> None:
    """FairDARTS: channels follow the number of nodes; a node that loses its entries goes, and what reads it."""
    cell = (Gene("sep_conv_3x3", 5, 0), Gene("max_pool_3x3", 2, 1), Gene("skip_connect", 4, 3))
    net = network(Genotype((cell,) * 3))
    assert [c.concat for c in net.cells] == [(5, 2)] * 3
    assert [c.out_channels for c in net.cells] == [8, 16, 32]
    assert net(images()).shape == (4, 10)


def test_order_of_the_output_is_that_of_first_appearance() -> None:
    cell = (Gene("skip_connect", 3, 0), Gene("avg_pool_3x3", 2, 1))
    net = network(Genotype((cell,), reductions=()))
    s = torch.randn(2, 12, 6, 6)
    p = Pass(statistics="batch")
    out = net.cells[0](s, s, p)
    torch.testing.assert_close(out[:, :4], net.cells[0].preprocess0(s, p))


def test_drop_path_scales_what_it_keeps() -> None:
    torch.manual_seed(0)
    out = drop_path(torch.ones(4000, 2, 3, 3), Drop(0.25))
    torch.testing.assert_close(out.unique(), torch.tensor([0.0, 1 / 0.75]))
    assert (out == out[:, :1, :1, :1]).all()
    assert abs((out[:, 0, 0, 0] == 0).float().mean().item() - 0.25) < 0.03


@pytest.mark.parametrize(("on", "kept"), [("op", {1.0, 3.0}), ("node", {0.0, 4.0})])
def test_what_drop_path_drops(on: str, kept: set[float]) -> None:
    """DARTS spares pure skips and drops op by op; threshold genotypes drop the sum of a node."""
    entries = [Gene("skip_connect", 2, 0), Gene("avg_pool_3x3", 2, 1)]
    graph = DiscreteGraph(entries, 2, [2], 2, reduction=False, drop_path_on=on)
    torch.manual_seed(0)
    ones = torch.ones(64, 2, 4, 4)
    out = graph.states((ones, ones), Pass(), Drop(0.5))[2]
    assert set(out.unique().tolist()) == kept


def test_drop_path_rule_follows_the_genotype() -> None:
    assert network().cells[0].graph.drop_path_on == "op"
    assert network(Genotype.load("D-DARTS_sparse_cifar10")).cells[0].graph.drop_path_on == "node"
    assert network(drop_path_on="node").cells[0].graph.drop_path_on == "node"


def test_drop_path_is_for_training_alone() -> None:
    net = network(drop_path=0.9).eval()
    torch.testing.assert_close(net(images()), net(images()))
    net.train()
    assert not torch.allclose(net(images()), net(images()))


def test_auxiliary_head_pools_as_published_where_it_can() -> None:
    head = AuxiliaryHead(4, 10)
    x = images(2, 4, 8, 8)
    pooled = torch.nn.functional.avg_pool2d(x.relu(), 5, 3, count_include_pad=False)
    assert pooled.shape[2:] == (2, 2)
    p = Pass(statistics="running")
    torch.testing.assert_close(head(x, p), head(pooled, p))
    for side in (1, 2, 4, 16):
        assert head(images(2, 4, side, side), Pass()).shape == (2, 10)


def test_auxiliary_head_is_not_part_of_the_forward() -> None:
    with_head, without = network(auxiliary=True), network()
    without.load_state_dict({k: v for k, v in with_head.state_dict().items() if not k.startswith("auxiliary.")})
    torch.testing.assert_close(with_head(images()), without(images()))


def test_nasbench201_nodes_without_ops_are_zero() -> None:
    """What reads such a node is still computed, as in the benchmark's own networks."""
    none = Genotype.from_nb201("|none~0|+|none~0|nor_conv_3x3~1|+|none~0|none~1|nor_conv_1x1~2|")
    net = build_network(none, 4)
    assert isinstance(net, NASBench201Network)
    assert net(images()).shape == (4, 10)
    assert sum(p.numel() for p in net.cells[0].parameters()) == 4 * 4 * 9 + 8 + 4 * 4 + 8
    skip = Genotype.from_nb201("|skip_connect~0|+|none~0|none~1|+|skip_connect~0|none~1|none~2|")
    state = images(2, 4)
    alone = NASBench201Network(skip, 4, 1)
    torch.testing.assert_close(alone.cells[0].states((state,), Pass())[3], state)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: network(channels=3), "channels must be even and >= 2, got 3"),
        (lambda: network(drop_path=1.0), r"drop_path must be in \[0, 1\), got 1.0"),
        (lambda: network(Genotype(((Gene("max_pool_3x3", 3, 2),),))), "got none in cell 0"),
        (lambda: network()(images(2, 3, 3, 3)), "images must be at least 4x4"),
        (lambda: network().forward_auxiliary(images()), "auxiliary must be True"),
        (lambda: network(Genotype.from_nb201("|skip_connect~0|")), "two inputs per cell"),
        (lambda: NASBench201Network(DARTS), "one cell with one input"),
    ],
)
def test_errors(call: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()  # type: ignore[operator]

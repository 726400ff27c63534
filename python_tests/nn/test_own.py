"""Ops and spaces of one's own, searched, trained, exported."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from ddarts_ext import Searcher, Trainer, load_network, spaces
from ddarts_ext.export import export
from ddarts_ext.genotype import Genotype
from ddarts_ext.nn import DiscreteNetwork, MixedOp, register_primitive
from ddarts_ext.nn.plain import layers
from ddarts_ext.nn.primitives import _FACTORIES
from ddarts_ext.spaces import Space, catalogue


def shuffled(channels: int, stride: int) -> nn.Module:
    """Two groups of a grouped convolution, shuffled."""
    return nn.Sequential(
        nn.ReLU(),
        nn.Conv2d(channels, channels, 3, stride, 1, groups=2, bias=False),
        nn.ChannelShuffle(2),
    )


@pytest.fixture(autouse=True)
def nothing_stays() -> Iterator[None]:
    kept = [(table, dict(table)) for table in (_FACTORIES, layers.OWN, catalogue._SPACES)]
    yield
    for table, before in kept:
        table.clear()  # type: ignore[attr-defined]
        table.update(before)  # type: ignore[attr-defined]
    spaces.known_ops.cache_clear()


def registered() -> Space:
    register_primitive("shuffle_conv_3x3", shuffled)
    return spaces.register(Space("mine", ("skip_connect", "max_pool_3x3", "shuffle_conv_3x3")))


@pytest.mark.parametrize("method", ["darts", "ddarts"])
def test_a_space_with_an_own_op_is_searched(method: str, tmp_path: Path) -> None:
    registered()
    result = Searcher(
        "digits",
        method,
        space="mine",
        epochs=1,
        cells=3,
        channels=2,
        batch=256,
        out=tmp_path / "search",
        rules=["darts"],
    ).search()
    assert result.genotype.ops <= set(spaces.get("mine").ops)
    assert Genotype.load(tmp_path / "search") == result.genotype


def test_alphas_and_weights_of_the_op_get_gradients() -> None:
    registered()
    mixed = MixedOp(spaces.get("mine").ops, 4, stride=2)
    weights = torch.rand(3, requires_grad=True)
    mixed(torch.randn(4, 4, 9, 8), weights).square().sum().backward()
    assert weights.grad is not None
    assert (weights.grad != 0).all()
    assert all(p.grad is not None and bool((p.grad != 0).any()) for p in mixed.parameters())


def own_genotype() -> Genotype:
    cell = (("shuffle_conv_3x3", 2, 0), ("skip_connect", 2, 1), ("shuffle_conv_3x3", 3, 2), ("max_pool_3x3", 3, 0))
    return Genotype((cell, cell), seq=(0, 1, 0), concat=(2, 3), reductions=(1,))  # type: ignore[arg-type]


def test_a_network_with_it_is_trained_and_leaves(tmp_path: Path) -> None:
    registered()
    run = tmp_path / "net"
    Trainer(own_genotype(), "digits", epochs=1, channels=4, batch=256, out=run).train()
    network = load_network(run)
    x = torch.randn(3, 1, 8, 8)
    assert torch.allclose(network.network.plain().eval()(x), network(x), atol=1e-5)
    (path,) = export(network, "torch", tmp_path / "network.pt2", fold=True)
    assert torch.allclose(torch.export.load(path).module()(x), network(x), atol=1e-5)
    with pytest.raises(ValueError, match="to must be another than python, as the code of op shuffle_conv_3x3"):
        export(network, "python", tmp_path / "network.py")


def test_weights_go_to_the_plain_network_and_back() -> None:
    registered()
    network = DiscreteNetwork(own_genotype(), 4, 3)
    plain = network.plain()
    other = DiscreteNetwork(own_genotype(), 4, 3)
    other.load_plain_state_dict(plain.state_dict())
    assert all(
        torch.equal(a, b) for a, b in zip(other.state_dict().values(), network.state_dict().values(), strict=True)
    )


def in_place(channels: int, stride: int) -> nn.Module:
    """As torchvision begins its blocks."""
    return nn.Sequential(nn.ReLU(inplace=True), nn.Conv2d(channels, channels, 3, stride, 1, bias=False))


@pytest.mark.parametrize(
    ("name", "build", "error", "said"),
    [
        ("skip_connect", shuffled, ValueError, "name must be that of no other op, got 'skip_connect'"),
        ("none", shuffled, ValueError, "name must be that of no other op, got 'none'"),
        ("two words", shuffled, ValueError, "name must be a name of letters"),
        ("flat", lambda c, s: nn.Conv2d(c, c, 3, s), ValueError, r"must give \[2, 4, 9, 8\] of .* at stride 1, got"),
        ("same", lambda c, s: nn.ReLU(), ValueError, r"must give \[2, 4, 5, 4\] of .* at stride 2, got"),
        ("normed", lambda c, s: nn.BatchNorm2d(c), ValueError, "must have no batch norm"),
        ("inplace", in_place, ValueError, "build of inplace must leave its input as it is"),
        ("function", lambda c, s: torch.relu, TypeError, "must give a module, got"),
    ],
)
def test_what_is_no_op(name: str, build: Any, error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said):
        register_primitive(name, build)
    assert name not in layers.OWN


def test_names_are_taken_once() -> None:
    space = registered()
    assert registered() == space  # the same again changes nothing
    with pytest.raises(ValueError, match="name must be that of no other op, got 'shuffle_conv_3x3'"):
        register_primitive("shuffle_conv_3x3", lambda c, s: shuffled(c, s))
    with pytest.raises(ValueError, match="name must be that of no other space, got 'darts'"):
        spaces.register(Space("darts", ("skip_connect", "max_pool_3x3")))
    with pytest.raises(ValueError, match=r"op must be one of .*shuffle_conv_3x3"):
        Genotype(((("unknown", 2, 0),),), seq=(0,), concat=(2,))  # type: ignore[arg-type]


def test_build_must_be_a_function() -> None:
    with pytest.raises(TypeError, match="register_primitive: build must be a function of channels and stride, got int"):
        register_primitive("no_function", 3)  # type: ignore[arg-type]

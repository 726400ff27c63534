"""Biases before a norm with batch statistics: no arithmetic, and everything is as with it."""

from __future__ import annotations

import copy

import pytest
import torch
from nn.golden import fill, images
from torch import Tensor, nn

from ddarts_ext import spaces
from ddarts_ext.nn import MixedOp, NASBench201Supernet, Pass, Supernet
from ddarts_ext.nn.graph import SearchGraph
from ddarts_ext.nn.idle_bias import Biased
from ddarts_ext.nn.primitives import Style

OPS = ("skip_connect", "nor_conv_1x1", "nor_conv_3x3", "dua_sepc_3x3", "dil_sepc_5x5")


def acting(module: nn.Module) -> nn.Module:
    """A copy whose biases are all added."""
    other = copy.deepcopy(module)
    for part in other.modules():
        if isinstance(part, Biased):
            part.idle = ()
    for part in other.modules():
        if isinstance(part, SearchGraph):
            part._plan()
    return other


def idle(module: nn.Module) -> list[str]:
    return [f"{path}.{name}" for path, part in module.named_modules() if isinstance(part, Biased) for name in part.idle]


def stepped(net: nn.Module, x: Tensor, weights: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """What a step of the optimiser of the published code makes of the parameters; logits of the step."""
    optimizer = torch.optim.SGD(net.parameters(), 0.1, momentum=0.9, weight_decay=0.05, nesterov=True)
    for _ in range(2):
        optimizer.zero_grad()
        logits = net(x, weights, Pass())
        logits.square().sum().backward()
        nn.utils.clip_grad_norm_(net.parameters(), 5.0)
        optimizer.step()
    return logits.detach(), {name: parameter.detach() for name, parameter in net.named_parameters()}


@pytest.mark.parametrize("name", ["isdarts", "nasbench201"])
def test_a_step_is_that_of_a_network_whose_biases_are_added(name: str) -> None:
    net = NASBench201Supernet(4, 1) if name == "nasbench201" else Supernet(spaces.get(name), 3, 4)
    fill(net)
    weights = torch.rand(3, len(net.space.edges), len(net.space.ops), dtype=torch.float64)
    other = acting(net)
    named = idle(net)
    assert named
    assert set(named) <= set(net.state_dict())
    assert not idle(other)
    before = {key: net.get_parameter(key).detach().clone() for key in named}
    expected_logits, expected = stepped(other, images(), weights)
    logits, found = stepped(net, images(), weights)
    torch.testing.assert_close(logits, expected_logits, rtol=1e-9, atol=1e-9)
    for key, value in expected.items():
        torch.testing.assert_close(found[key], value, rtol=1e-8, atol=1e-10, msg=key)
    for key in named:
        assert net.get_parameter(key).grad.count_nonzero() == 0  # type: ignore[union-attr]
        assert (found[key] - before[key]).abs().min() > 0, "weight decay moves them"


def test_judging_needs_no_biases() -> None:
    net = fill(Supernet(spaces.get("isdarts"), 3, 4)).eval()
    weights = torch.rand(3, len(net.space.edges), len(net.space.ops), dtype=torch.float64)
    for p in (Pass(statistics="running"), Pass(statistics="batch")):
        torch.testing.assert_close(net(images(), weights, p), acting(net)(images(), weights, p), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("track", [False, True])
def test_a_bias_acts_where_running_statistics_follow_it(stride: int, track: bool) -> None:
    op = MixedOp(OPS, 4, stride, Style(conv_bias=True, track=track)).double()
    assert bool(idle(op)) is not track
    x, weights = torch.randn(2, 4, 6, 6, dtype=torch.float64), torch.rand(5, dtype=torch.float64)
    for p in (Pass(statistics="update"), Pass(statistics="running")):
        torch.testing.assert_close(op(x, weights, p), acting(op)(x, weights, p), rtol=1e-9, atol=1e-9)
    biases = [parameter for name, parameter in op.named_parameters() if name.endswith("bias")]
    op(x, weights, Pass(statistics="running")).square().sum().backward()
    assert [bool(bias.grad.count_nonzero()) for bias in biases] == [track] * len(biases)  # type: ignore[union-attr]


def test_frozen_biases_have_no_gradient() -> None:
    op = MixedOp(OPS, 4, 1, Style(conv_bias=True, track=False))
    for name, parameter in op.named_parameters():
        parameter.requires_grad_(not name.endswith("bias"))
    op(torch.randn(2, 4, 6, 6), torch.rand(5)).sum().backward()
    assert all((parameter.grad is None) is name.endswith("bias") for name, parameter in op.named_parameters())

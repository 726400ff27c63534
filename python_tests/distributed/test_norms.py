"""Norms over the batches of several processes: for one process they are those of the fused ops."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from ddarts_ext import ops
from ddarts_ext.nn import synchronised
from ddarts_ext.nn.forward_pass import Pass
from ddarts_ext.nn.norm import GroupedNorm, synchronise_norms
from ddarts_ext.nn.supernet import Supernet
from ddarts_ext.spaces import get


class One:
    """A single process."""

    world = 1

    def total(self, tensor: Tensor) -> Tensor:
        return tensor


class Twice:
    """Two processes with the same batch."""

    world = 2

    def total(self, tensor: Tensor) -> Tensor:
        return 2 * tensor


def _input(groups: int, last: bool = True) -> Tensor:
    x = torch.randn(groups * 4, 6, 5, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1)) + 3
    return x.contiguous(memory_format=torch.channels_last) if last else x


@pytest.mark.parametrize("groups", [1, 3])
@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize("affine", [False, True])
def test_a_norm(groups: int, relu: bool, affine: bool) -> None:
    x = _input(groups).requires_grad_()
    table = [torch.randn(6, dtype=torch.float64, requires_grad=True) for _ in range(2)] if affine else [None, None]
    leaves = [x, *(t for t in table if t is not None)]
    found = synchronised.grouped_norm(x, table[0], table[1], groups, 1e-5, relu, One())
    wanted = ops.grouped_batch_norm(x, table[0], table[1], groups=groups, relu=relu)
    for mine, theirs in zip(found, wanted, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-12, atol=1e-12)
    assert found[0].is_contiguous(memory_format=torch.channels_last)
    seed = torch.randn_like(x)
    for mine, theirs in zip(
        torch.autograd.grad(found[0], leaves, seed), torch.autograd.grad(wanted.out, leaves, seed), strict=True
    ):
        torch.testing.assert_close(mine, theirs, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("groups", [1, 2])
def test_a_node(groups: int) -> None:
    branches = [_input(groups).add(k).requires_grad_() for k in range(3)]
    weights = torch.rand(groups, 3, dtype=torch.float64, requires_grad=True)
    flags = [True, False, True]
    found = synchronised.mixed_sum(branches, weights, flags, 1e-5, One())
    wanted = ops.mixed_sum(branches, weights, normalize=flags)
    for mine, theirs in zip(found, wanted, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-12, atol=1e-12)
    seed = torch.randn_like(found[0])
    for mine, theirs in zip(
        torch.autograd.grad(found[0], [weights, *branches], seed),
        torch.autograd.grad(wanted.out, [weights, *branches], seed),
        strict=True,
    ):
        torch.testing.assert_close(mine, theirs, rtol=1e-10, atol=1e-12)


def test_running_statistics_count_the_values_of_all() -> None:
    """Their variance is unbiased: over twice as many values here."""
    x, norm, wanted = _input(1), GroupedNorm(6).double(), torch.nn.BatchNorm2d(6, affine=False).double()
    synchronise_norms(norm, Twice())
    norm(x, Pass())
    wanted(torch.cat([x, x]))
    torch.testing.assert_close(norm.running_var, wanted.running_var)
    torch.testing.assert_close(norm.running_mean, wanted.running_mean)


@pytest.mark.parametrize("space", ["darts", "nasbench201"])
def test_a_supernet_computes_the_same_with_one_process(space: str) -> None:
    found = get(space)
    torch.manual_seed(0)
    if space == "darts":
        net = Supernet(found, 3, 4, 5, in_channels=3).double()
    else:
        from ddarts_ext.nn.nasbench201 import NASBench201Supernet

        net = NASBench201Supernet(4, 1, 5, in_channels=3).double()  # type: ignore[assignment]
    x = torch.randn(4, 3, 8, 8, dtype=torch.float64)
    weights = torch.rand(len(net.cells), len(found.edges), len(found.ops), dtype=torch.float64, requires_grad=True)
    plain = net(x, weights, Pass(statistics="batch"))
    synchronise_norms(net, One())
    together = net(x, weights, Pass(statistics="batch"))
    torch.testing.assert_close(together, plain, rtol=1e-9, atol=1e-9)
    gradients = [torch.autograd.grad(out.square().sum(), weights)[0] for out in (together, plain)]
    torch.testing.assert_close(*gradients, rtol=1e-7, atol=1e-9)
    synchronise_norms(net, None)
    assert all(getattr(module, "processes", None) is None for module in net.modules())

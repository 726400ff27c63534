"""1x1 convolutions and reductions of a kind as one: the same outputs and gradients as one by one."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ddarts_ext import spaces
from ddarts_ext.nn import NASBench201Supernet, Pass, Supernet, graph, mixed, primitives, stacked
from ddarts_ext.nn.layout import lay_out
from ddarts_ext.nn.primitives import EVALUATION, SEARCH, FactorizedReduce, PointwiseConv, ReluConv, Style, primitive
from ddarts_ext.nn.readers import apart, pooled_apart
from ddarts_ext.ops import _stacked
from ddarts_ext.runs.optimizers import state_of, take_up


def image(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64).contiguous(memory_format=torch.channels_last).requires_grad_()


@pytest.mark.parametrize("size", [(6, 8), (5, 7)], ids=str)
@pytest.mark.parametrize("count", [1, 3])
def test_reductions_equal_one_by_one(count: int, size: tuple[int, int]) -> None:
    convs, x = nn.ModuleList(primitive("skip_connect", 4, 2, SEARCH) for _ in range(count)).double(), image(2, 4, *size)
    others, y = copy.deepcopy(convs), x.detach().clone().requires_grad_()
    found, expected = stacked.reduced(list(convs), x), FactorizedReduce.run(list(others), y, Pass())
    waves = [torch.randn_like(out) for out in expected]
    torch.testing.assert_close(found, expected)
    torch.autograd.backward(found, waves)
    torch.autograd.backward(expected, waves)
    torch.testing.assert_close(x.grad, y.grad)
    for parameter, other in zip(convs.parameters(), others.parameters(), strict=True):
        torch.testing.assert_close(parameter.grad, other.grad)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("laid", [True, False], ids=["side by side", "anyhow"])
def test_square_convolutions_equal_one_by_one(stride: int, laid: bool) -> None:
    convs = nn.ModuleList(ReluConv(4, 4, 3, stride, SEARCH) for _ in range(3)).double()
    others, x = copy.deepcopy(convs), image(2, 4, 5, 6)
    if laid:
        flat = torch.stack([op.weight.detach().permute(0, 2, 3, 1) for op in convs])
        for op, row in zip(convs, flat, strict=True):
            op.weight.data = row.permute(0, 3, 1, 2)
    y = x.detach().clone().requires_grad_()
    found = stacked.convolved(list(convs), x)
    expected = [op.after_relu(y, Pass()) for op in others]
    waves = [torch.randn_like(out) for out in expected]
    torch.testing.assert_close(found, expected)
    torch.autograd.backward(found, waves)
    torch.autograd.backward(expected, waves)
    torch.testing.assert_close(x.grad, y.grad)
    for op, other in zip(convs, others, strict=True):
        torch.testing.assert_close(op.weight.grad, other.weight.grad)


@pytest.mark.parametrize("channels", [4, 48])
def test_pointwise_convolutions_equal_one_by_one(channels: int) -> None:
    """As one op, and where that has too many channels as one product."""
    convs = nn.ModuleList(PointwiseConv(channels, channels, 1, SEARCH) for _ in range(3)).double()
    others, x = copy.deepcopy(convs), image(2, channels, 5, 6)
    y = x.detach().clone().requires_grad_()
    found, expected = stacked.pointwise(list(convs), x), PointwiseConv.run(list(others), y, Pass())
    waves = [torch.randn_like(out) for out in expected]
    torch.testing.assert_close(found, expected)
    torch.autograd.backward(found, waves)
    torch.autograd.backward(expected, waves)
    torch.testing.assert_close(x.grad, y.grad)
    for op, other in zip(convs, others, strict=True):
        torch.testing.assert_close(op.weight.grad, other.weight.grad)


@pytest.mark.parametrize("kind", [ReluConv, PointwiseConv])
@pytest.mark.parametrize("style", [SEARCH, EVALUATION], ids=["search", "evaluation"])
def test_only_what_a_sum_mixes_shares_an_image(monkeypatch: pytest.MonkeyPatch, kind: Any, style: Style) -> None:
    """A norm of an op's own would copy its channels out of one."""
    forced(monkeypatch)
    sizes = (4, 4, 3, 1) if kind is ReluConv else (4, 4, 1)
    found = kind.run([kind(*sizes, style).double() for _ in range(2)], image(2, 4, 5, 6), Pass())
    storages = {out.untyped_storage().data_ptr() for out in found}
    assert len(storages) == (1 if style is SEARCH else 2)


def test_a_joined_weight_is_a_view_where_that_can_be() -> None:
    flat = torch.randn(3, 2, 3, 3, 4).permute(0, 1, 4, 2, 3)  # channels-last weights, side by side
    weights = list(flat.unbind(0))
    found = _stacked.joined(weights)
    assert found.data_ptr() == flat.data_ptr()
    assert found.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(found, torch.cat(weights), rtol=0, atol=0)
    assert _stacked.joined(weights[::-1]).data_ptr() != flat.data_ptr()
    torch.testing.assert_close(_stacked.joined(weights[::-1]), torch.cat(weights[::-1]), rtol=0, atol=0)
    leaves = [weight.double().requires_grad_() for weight in weights]
    assert torch.autograd.gradcheck(lambda *w: _stacked.joined(w), leaves)
    assert torch.autograd.gradgradcheck(lambda *w: _stacked.joined(w), leaves)


def test_readers_of_a_state_give_the_sum_of_their_gradients() -> None:
    x = image(2, 3, 4, 6)
    parts = apart(x, 6)
    assert all(part.data_ptr() == x.data_ptr() and part.stride() == x.stride() for part in parts)
    factors = torch.arange(1.0, 6.0, dtype=torch.float64)
    terms = [factor * part for factor, part in zip(factors, parts, strict=False)]  # nothing reads the last
    wave = torch.randn(2, 9, 4, 6, dtype=torch.float64)
    (torch.cat([terms[0], parts[1], terms[2]], 1) * wave).sum().add_(sum(terms[1:]).square().sum() / 2).backward()
    expected = wave[:, :3] + wave[:, 3:6] + 3 * wave[:, 6:] + 14 * 14 * x.detach()
    torch.testing.assert_close(x.grad, expected)
    (alone,) = apart(x.detach().requires_grad_(), 1)
    torch.testing.assert_close(torch.autograd.grad(alone.sum(), alone)[0], torch.ones_like(x))


def forced(monkeypatch: pytest.MonkeyPatch) -> None:
    """States are summed node by node, and whatever can be stacked is, as on a GPU."""
    monkeypatch.setattr(graph, "applies", lambda x, p: False)
    for module in (mixed, primitives):
        monkeypatch.setattr(module, "readers", lambda x, count: apart(x, count) if x.requires_grad else [x] * count)
    pools = primitives.readers_and_pools
    monkeypatch.setattr(
        primitives,
        "readers_and_pools",
        lambda x, *a, **k: pooled_apart(x, *a, **k) if x.requires_grad else pools(x, *a, **k),
    )
    monkeypatch.setattr(stacked, "_off_the_cpu", lambda x: True)


@pytest.mark.parametrize("name", ["darts", "isdarts", "dartopti", "nasbench201"])
@pytest.mark.parametrize("p", [Pass(), Pass(statistics="running"), Pass(groups=2)], ids=["update", "running", "groups"])
def test_a_network_is_the_same(monkeypatch: pytest.MonkeyPatch, name: str, p: Pass) -> None:
    """Cells of every kind, pruned ones too: outputs, gradients and running statistics."""
    space = spaces.get(name)
    net = (NASBench201Supernet(4, 1) if name == "nasbench201" else Supernet(space, 3, 4)).double()
    mask = torch.rand(len(space.edges), len(space.ops)) > 0.3
    net.cells[1].prune(mask)
    net.cells[2].prune(mask)
    x, table = image(4, 3, 16, 16), torch.rand(3, *mask.shape, dtype=torch.float64)
    found = {}
    for path in ("plain", "stacked"):
        own = copy.deepcopy(net)
        with monkeypatch.context() as patch:
            if path == "stacked":
                forced(patch)
                lay_out(own)
            weights = table.clone().requires_grad_()
            logits = own(x, weights, p)
            logits.square().sum().backward()
        found[path] = [logits, weights.grad, *(q.grad for q in own.parameters()), *own.buffers()]
    for a, b in zip(found["plain"], found["stacked"], strict=True):
        assert (a is None) is (b is None)
        if a is not None:
            torch.testing.assert_close(a, b, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("space", ["darts", "nasbench201", "dartopti"])
def test_weights_that_lie_side_by_side_are_not_copied(monkeypatch: pytest.MonkeyPatch, space: str) -> None:
    """Their names and values stay, and they stay where they are when a state dict is loaded."""
    torch.manual_seed(0)
    plain = (NASBench201Supernet(4, 1) if space == "nasbench201" else Supernet(spaces.get(space), 3, 4)).double()
    net = copy.deepcopy(plain)
    lay_out(net)
    for (name, a), (other, b) in zip(plain.named_parameters(), net.named_parameters(), strict=True):
        assert name == other
        assert torch.equal(a, b)
    for weight in plain.parameters():
        nn.init.normal_(weight)
    net.load_state_dict(plain.state_dict())
    assert all(torch.equal(a, b) for a, b in zip(plain.parameters(), net.parameters(), strict=True))
    copied: list[int] = []

    def counting(function: Any) -> Any:
        def counted(tensors: list[Tensor], dim: int = 0) -> Tensor:
            copied.extend(len(tensors) for t in tensors[:1] if any(isinstance(u, nn.Parameter) for u in tensors))
            return function(tensors, dim)

        return counted

    forced(monkeypatch)
    for name in ("stack", "cat"):
        monkeypatch.setattr(torch, name, counting(getattr(torch, name)))
    e, o = net.cells[0].present().shape
    for module in (net, plain):
        copied.clear()
        module(image(2, 3, 16, 16), torch.rand(3, e, o, dtype=torch.float64))
        assert (len(copied) > 0) is (module is plain)


def test_momentum_takes_the_layout_of_its_weight() -> None:
    ours, theirs = (nn.Parameter(torch.randn(4, 3, 3, 3)) for _ in range(2))
    ours.data = ours.data.contiguous(memory_format=torch.channels_last)
    optimizers = [torch.optim.SGD([weight], lr=0.1, momentum=0.9) for weight in (ours, theirs)]
    theirs.grad = torch.randn_like(theirs)
    optimizers[1].step()
    take_up(optimizers[0], state_of(optimizers[1]))
    (found,), (expected,) = (list(optimizer.state.values()) for optimizer in optimizers)
    assert torch.equal(found["momentum_buffer"], expected["momentum_buffer"])
    assert found["momentum_buffer"].stride() == ours.stride()


@pytest.mark.parametrize("count", [1, 3])
def test_products_of_one_image_are_twice_differentiable(count: int) -> None:
    rows = torch.randn(6, 2, dtype=torch.float64, requires_grad=True)
    weights = torch.randn(count, 3, 2, dtype=torch.float64, requires_grad=True)
    for found, weight in zip(_stacked.shared_products(rows, weights), weights, strict=True):
        torch.testing.assert_close(found, rows @ weight.T)
    assert torch.autograd.gradcheck(_stacked.shared_products, (rows, weights))
    assert torch.autograd.gradgradcheck(_stacked.shared_products, (rows, weights))


@pytest.mark.parametrize("count", [1, 511, 1024, 3 * 1024, 1 << 16])
@pytest.mark.parametrize("filters", [1, 2])
def test_weight_gradients_in_parts(count: int, filters: int) -> None:
    rows, weights = torch.randn(count, 3, dtype=torch.float64), torch.randn(filters, 4, 3, dtype=torch.float64)
    waves = [torch.randn(count, 4, dtype=torch.float64) for _ in range(filters)]
    outputs = _stacked.shared_products(rows, weights.requires_grad_())
    torch.testing.assert_close(
        torch.autograd.grad(outputs, weights, waves)[0],
        torch.stack([wave.T @ rows for wave in waves]),
        rtol=1e-10,
        atol=1e-10,
    )


def test_weights_are_stacked_without_a_copy_where_they_lie_side_by_side() -> None:
    flat = torch.randn(12)
    weights = [flat[:4].view(2, 2), flat[4:8].view(2, 2), flat[8:].view(2, 2)]
    assert _stacked.stacked(weights).data_ptr() == flat.data_ptr()
    assert _stacked.stacked(weights[::-1]).data_ptr() != flat.data_ptr()
    torch.testing.assert_close(_stacked.stacked(weights), torch.stack(weights), rtol=0, atol=0)
    assert not _stacked.side_by_side([weights[0], weights[2]])
    assert not _stacked.side_by_side([weights[0], weights[1].clone()])

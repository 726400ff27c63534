"""Forward-mode derivatives and torch.func are those of the reference; vmap says where it cannot work; traces replay."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from ops.calls import valid_calls
from torch import Tensor
from torch.autograd import forward_ad, gradcheck

from ddarts_ext import _extension, ops
from ddarts_ext.ops import Edges

NODE_OPS = ("tanh", "sigmoid", "identity")
Function = Callable[[Tensor], list[Tensor]]


def functions() -> dict[str, Function]:
    """Every op with a gradient as a function of its image, in float64."""
    calls = valid_calls(torch.float64)
    filters, mixing = calls["relu_separable_conv2d"][1:3]
    edges = calls["mixed_edges"]
    settings = Edges(*(tuple(edges[i]) for i in (5, 6, 9, 7, 8)))
    return {
        "pool3x3": lambda x: list(ops.pool3x3(x, stride=2)),  # type: ignore[arg-type]
        "grouped_batch_norm": lambda x: [ops.grouped_batch_norm(x, x[0, :, 0, 0], groups=2).out],
        "mixed_sum": lambda x: [ops.mixed_sum([x, x.cos()], x[:2, :2, 0, 0], normalize=[True, False]).out],
        "spawn_group": lambda x: [ops.spawn_group(x, x.cos())],
        "relu_depthwise_conv2d": lambda x: (
            ops.relu_depthwise_conv2d(x, filters, dilations=[1, 2], normalize=True, groups=2).outputs
        ),
        "relu_separable_conv2d": lambda x: (
            ops.relu_separable_conv2d([x], filters, mixing, dilations=[1, 2], normalize=True).outputs
        ),
        "relu_pointwise_conv2d": lambda x: [ops.relu_pointwise_conv2d(x, mixing, stride=2)],
        "recurrent_node": lambda x: [
            ops.recurrent_node(
                [x[:, 0, 0], x[:, 0, 1].sin()],
                [x[:, 1, :2].flatten(1), x[:, 2, :2].flatten(1)],
                x[:2, :, 3, 0],
                NODE_OPS,
            )
        ],
        "mixed_edges": lambda x: (
            ops.mixed_edges(x, settings, edges[2], edges[3], edges[4], previous=[x.cos(), x.sin()]).sums
        ),
    }


NAMES = list(functions())


def image() -> Tensor:
    return torch.randn(4, 3, 6, 5, dtype=torch.float64)


@pytest.mark.parametrize("name", NAMES)
def test_forward_mode(name: str) -> None:
    x, function = image().requires_grad_(), functions()[name]
    assert gradcheck(lambda x: tuple(function(x)), x, check_forward_ad=True, check_backward_ad=False)


@pytest.mark.parametrize("name", NAMES)
def test_forward_mode_without_recording(name: str) -> None:
    x, tangent, function = image(), image(), functions()[name]
    _, expected = torch.autograd.functional.jvp(lambda x: tuple(function(x)), x, tangent)
    with torch.no_grad(), forward_ad.dual_level():
        found = [forward_ad.unpack_dual(out).tangent for out in function(forward_ad.make_dual(x, tangent))]
    assert None not in found
    torch.testing.assert_close(tuple(found), expected)


@pytest.mark.parametrize("name", NAMES)
def test_torch_func_differentiates(name: str) -> None:
    x, tangent, function = image(), image(), functions()[name]

    def loss(x: Tensor) -> Tensor:
        return torch.stack([out.square().sum() for out in function(x)]).sum()

    leaf = x.clone().requires_grad_()
    (expected,) = torch.autograd.grad(loss(leaf), leaf)
    torch.testing.assert_close(torch.func.grad(loss)(x), expected)
    torch.testing.assert_close(torch.func.jvp(loss, (x,), (tangent,))[1], (expected * tangent).sum())


@pytest.mark.skipif(bool(_extension.why_not("channel_iim", "cpu")), reason="the references are plain torch")
def test_what_has_no_gradient_has_no_tangent() -> None:
    x = image()
    with forward_ad.dual_level():
        dual = forward_ad.make_dual(x, torch.ones_like(x))
        norm = ops.grouped_batch_norm(dual)
        found = [norm.mean, norm.rstd, ops.channel_iim([dual])]
        assert [forward_ad.unpack_dual(out).tangent for out in found] == [None] * 3


def test_a_second_order_product() -> None:
    x, tangent = image(), image()

    def loss(x: Tensor) -> Tensor:
        return ops.grouped_batch_norm(x).out.pow(3).sum()

    leaf = x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(loss(leaf), leaf, create_graph=True)
    (expected,) = torch.autograd.grad(gradient, leaf, tangent)
    torch.testing.assert_close(torch.func.jvp(torch.func.grad(loss), (x,), (tangent,))[1], expected)


LOOPED = ("pool3x3", "grouped_batch_norm", "spawn_group")  # torch calls these once a sample
UNTRACED = ("mixed_sum", "mixed_edges", "channel_iim")  # lists of flags


def with_measure() -> dict[str, Function]:
    return functions() | {"channel_iim": lambda x: [ops.channel_iim([x])]}


@pytest.mark.parametrize("name", [name for name in with_measure() if name not in LOOPED])
def test_vmap_says_that_it_cannot(name: str) -> None:
    batch, function = torch.stack([image(), image()]).requires_grad_(), with_measure()[name]
    with pytest.raises(NotImplementedError, match=f"^{name}: torch.func.vmap cannot batch this op"):
        torch.func.vmap(lambda x: tuple(function(x)))(batch)


@pytest.mark.parametrize("name", LOOPED)
def test_vmap_says_that_it_cannot_differentiate(name: str) -> None:
    function = functions()[name]

    def loss(x: Tensor) -> Tensor:
        return torch.stack([out.sum() for out in function(x)]).sum()

    with pytest.raises(NotImplementedError, match=f"^{name}: torch.func.vmap cannot batch this op"):
        torch.func.vmap(torch.func.grad(loss))(torch.stack([image(), image()]))


@pytest.mark.filterwarnings("ignore:There is a performance drop")
@pytest.mark.parametrize("name", LOOPED)
def test_vmap_of_an_op_that_torch_can_loop_over(name: str) -> None:
    batch, function = torch.stack([image(), image()]).requires_grad_(), functions()[name]
    found = torch.func.vmap(lambda x: tuple(function(x)))(batch)
    expected = [torch.stack(outs) for outs in zip(*(function(x) for x in batch), strict=True)]
    torch.testing.assert_close(list(found), expected)
    sums = [torch.stack([out.square().sum() for out in outs]).sum() for outs in (found, expected)]
    torch.testing.assert_close(*(torch.autograd.grad(total, batch)[0] for total in sums))


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning", "ignore::DeprecationWarning", "ignore::FutureWarning")
@pytest.mark.parametrize("name", [name for name in with_measure() if name not in UNTRACED])
@pytest.mark.parametrize("requires_grad", [False, True])
def test_a_trace_replays(name: str, requires_grad: bool, tmp_path: Any) -> None:
    function, x, other = functions()[name], image(), image().requires_grad_()
    trace = torch.jit.trace(lambda x: tuple(function(x)), x.requires_grad_(requires_grad))
    torch.jit.save(trace, str(tmp_path / "trace.pt"))
    found, expected = torch.jit.load(str(tmp_path / "trace.pt"))(other), function(other)
    torch.testing.assert_close(list(found), list(expected))
    sums = [torch.stack([out.square().sum() for out in outs]).sum() for outs in (found, expected)]
    torch.testing.assert_close(*(torch.autograd.grad(total, other)[0] for total in sums))


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning", "ignore::DeprecationWarning", "ignore::FutureWarning")
@pytest.mark.parametrize("name", UNTRACED)
def test_a_trace_says_that_it_cannot(name: str) -> None:
    function = with_measure()[name]
    with pytest.raises(NotImplementedError, match=f"^{name}: torch.jit.trace cannot record this op"):
        torch.jit.trace(lambda x: tuple(function(x)), image())


@pytest.mark.parametrize("name", NAMES)
def test_third_derivatives_in_reverse(name: str) -> None:
    """Along a curve, so that ReLUs and maxima keep their places within a step of the numerical derivative."""
    function, x, direction = functions()[name], image(), image()

    def second(at: Tensor) -> Tensor:
        total = sum(out.pow(3).sum() for out in function(x * at + 0.01 * direction * at.square()))
        for _ in range(2):
            (total,) = torch.autograd.grad(total, at, create_graph=True)
        return total

    assert torch.autograd.gradcheck(second, torch.tensor(1.3, dtype=torch.float64, requires_grad=True), rtol=1e-4)

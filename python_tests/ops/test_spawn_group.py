"""spawn_group: equal to slicing, repeating and concatenating, in values, gradients, layout and on the emulated GPU."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from ops.tolerances import DTYPES, assert_close
from torch import Tensor

from ddarts_ext.ops.spawn_group import (
    spawn_group,
    spawn_group_backward_reference,
    spawn_group_reference,
)

FORMATS = [torch.contiguous_format, torch.channels_last]
SHAPES = [(2, 3, 5, 7), (1, 16, 8, 8), (3, 1, 1, 1), (2, 24, 4, 6), (0, 2, 3, 3)]


def by_hand(groups: Tensor | None, source: Tensor, copies: int, stride: int, zero: bool) -> Tensor:
    group = torch.cat([source[:, :, ::stride, ::stride]] * copies, dim=1) * (0 if zero else 1)
    return group if groups is None else torch.cat([groups, group])


def tensors(
    shape: tuple[int, ...], copies: int, stride: int, before: int, dtype: torch.dtype, format_: torch.memory_format
) -> tuple[Tensor, Tensor]:
    """groups of `before` groups, and a source."""
    batch, channels, height, width = shape
    out = (before * batch, channels * copies, -(-height // stride), -(-width // stride))
    return tuple(torch.randn(s).to(dtype).contiguous(memory_format=format_) for s in (out, shape))  # type: ignore[return-value]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("format_", FORMATS)
@pytest.mark.parametrize("shape", SHAPES)
def test_equals_cat_of_repeat(dtype: torch.dtype, format_: torch.memory_format, shape: tuple[int, ...]) -> None:
    for copies, stride, before, zero in itertools.product((1, 4), (1, 2, 3), (0, 2), (False, True)):
        groups, source = tensors(shape, copies, stride, before, dtype, format_)
        out = spawn_group(groups, source, copies=copies, stride=stride, zero=zero)
        assert torch.equal(out, by_hand(groups, source, copies, stride, zero))
        assert out.is_contiguous(memory_format=format_) or out.is_contiguous()
        assert torch.equal(out[before * shape[0] :], spawn_group(None, source, copies=copies, stride=stride, zero=zero))


def test_output_is_no_view_of_an_input() -> None:
    source = torch.randn(2, 3, 4, 4)
    out = spawn_group(None, source)
    out.zero_()
    assert source.abs().sum() > 0


def test_mixed_layouts_strides_and_dtypes() -> None:
    groups, source = tensors((2, 4, 6, 6), 2, 2, 3, torch.float32, torch.channels_last)
    strided = torch.randn(2, 4, 6, 12)[..., ::2]
    for g, s in (
        (groups.contiguous(), source),
        (groups, strided),
        (groups.half(), source),
        (groups, source.bfloat16()),
    ):
        out = spawn_group(g, s, copies=2, stride=2)
        assert out.dtype == torch.float32
        assert torch.equal(out, by_hand(g.float(), s.float(), 2, 2, False))
    assert spawn_group(groups.contiguous(), source, copies=2, stride=2).is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("format_", FORMATS)
@pytest.mark.parametrize(("copies", "stride"), [(1, 1), (4, 1), (4, 2), (3, 3)])
def test_gradients(dtype: torch.dtype, format_: torch.memory_format, copies: int, stride: int) -> None:
    for shape in SHAPES:
        groups, source = tensors(shape, copies, stride, 2, dtype, format_)
        groups.requires_grad_()
        source.requires_grad_()
        out = spawn_group(groups, source, copies=copies, stride=stride)
        grad = torch.randn_like(out)
        found = torch.autograd.grad(out, (groups, source), grad)
        exact = [t.detach().double().requires_grad_() for t in (groups, source)]
        expected = torch.autograd.grad(by_hand(*exact, copies, stride, False), exact, grad.double())
        for ours, theirs in zip(found, expected, strict=True):
            assert ours.dtype == dtype
            assert_close(ours, theirs, gradient=True)


def test_zero_group_has_no_gradient_to_its_source() -> None:
    groups, source = tensors((2, 3, 4, 4), 1, 1, 1, torch.float32, torch.contiguous_format)
    groups.requires_grad_()
    source.requires_grad_()
    spawn_group(groups, source, zero=True).sum().backward()
    assert source.grad is None
    assert torch.equal(groups.grad, torch.ones_like(groups))  # type: ignore[arg-type]


@pytest.mark.parametrize(("copies", "stride"), [(1, 1), (2, 1), (2, 2)])
def test_gradcheck_and_gradgradcheck(copies: int, stride: int) -> None:
    groups, source = tensors((1, 2, 3, 4), copies, stride, 1, torch.float64, torch.channels_last)
    groups.requires_grad_()
    source.requires_grad_()

    def spawn(g: Tensor, s: Tensor) -> Tensor:
        return spawn_group(g, s, copies=copies, stride=stride).sin()

    assert torch.autograd.gradcheck(spawn, (groups, source))
    assert torch.autograd.gradgradcheck(spawn, (groups, source))


@pytest.mark.parametrize("format_", FORMATS)
def test_opcheck(format_: torch.memory_format) -> None:
    groups, source = tensors((2, 3, 5, 4), 2, 2, 1, torch.float32, format_)
    op, backward = torch.ops.ddarts_ext.spawn_group.default, torch.ops.ddarts_ext.spawn_group_backward.default
    source.requires_grad_()
    torch.library.opcheck(op, (groups, source, 2, 2, False))
    torch.library.opcheck(op, (None, source, 1, 1, False))
    torch.library.opcheck(backward, (groups.clone().requires_grad_(), 5, 4, 2, 2))


def test_compile() -> None:
    groups, source = tensors((2, 3, 4, 4), 2, 2, 1, torch.float32, torch.channels_last)
    source.requires_grad_()

    def step(g: Tensor, s: Tensor) -> Tensor:
        return spawn_group(g, s, copies=2, stride=2) * 2

    compiled = torch.compile(step, fullgraph=True)
    grads = [torch.autograd.grad(f(groups, source).square().sum(), source)[0] for f in (step, compiled)]
    assert_close(grads[1], grads[0], gradient=True)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda g, s: spawn_group(g, s[0]), ValueError, r"source must be \[N,C,H,W\], got \[2, 4, 4\]"),
        (lambda g, s: spawn_group(g, s.int()), TypeError, "source must be float64"),
        (lambda g, s: spawn_group(g, s, copies=0), ValueError, "copies must be an integer from 1 to 65536, got 0"),
        (
            lambda g, s: spawn_group(g, s, copies=10**9),
            ValueError,
            "copies must be an integer from 1 to 65536, got 1000000000",
        ),
        (
            lambda g, s: spawn_group(g, s, stride=-1),
            ValueError,
            "stride must be an integer from 1 to 2147483648, got -1",
        ),
        (lambda g, s: spawn_group(g[:3], s), ValueError, "groups must have a batch that is a multiple of 2, got 3"),
        (lambda g, s: spawn_group(g, s, copies=2), ValueError, r"groups must be .*=\[4, 4, 4, 4\], got \[4, 2, 4, 4\]"),
        (lambda g, s: spawn_group(g[0], s), ValueError, "groups must be"),
    ],
)
def test_errors(call: Any, error: type[Exception], message: str) -> None:
    groups, source = tensors((2, 2, 4, 4), 1, 1, 2, torch.float32, torch.contiguous_format)
    with pytest.raises(error, match=f"spawn_group: {message}"):
        call(groups, source)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("format_", FORMATS)
def test_emulated_cuda_kernels(emulated: Any, dtype: torch.dtype, format_: torch.memory_format) -> None:
    forward, backward = emulated.op("spawn_group"), emulated.op("spawn_group_backward")
    for shape in SHAPES:
        for copies, stride, before, zero in ((4, 1, 2, False), (4, 2, 1, False), (1, 3, 0, False), (2, 2, 1, True)):
            groups, source = tensors(shape, copies, stride, before, dtype, format_)
            given = groups if before else None
            grad = torch.randn_like(spawn_group_reference(None, source, copies, stride, False))
            expected = spawn_group_backward_reference(grad.double(), *shape[2:], copies, stride)
            for _ in emulated.orders():
                out = forward(given, source, copies, stride, zero)
                assert torch.equal(out, by_hand(given, source, copies, stride, zero))
                assert_close(backward(grad, *shape[2:], copies, stride), expected, dtype, gradient=True)


def test_emulated_cuda_kernels_stay_inside_their_tensors(emulated: Any) -> None:
    emulated.check_addresses(
        "spawn_group",
        """
for dtype in (torch.float32, torch.float16):
    for format_ in (torch.contiguous_format, torch.channels_last):
        for shape in ((2, 3, 5, 7), (1, 16, 8, 8)):
            for copies, stride in ((4, 1), (2, 2)):
                x = torch.randn(shape).to(dtype).contiguous(memory_format=format_)
                out = ops.spawn_group(None, x, copies, stride, False)
                ops.spawn_group(out, x, copies, stride, True)
                ops.spawn_group_backward(out, *shape[2:], copies, stride)
""",
    )

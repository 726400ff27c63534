"""pool3x3: equal to torch's two pools, argmax included; kernels equal to the reference; gradients of both outputs."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from ops.tolerances import DTYPES, assert_close
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

from ddarts_ext.ops.pool3x3 import pool3x3, pool3x3_backward_reference, pool3x3_reference

SHAPES = [
    (2, 3, 5, 7),
    (1, 1, 1, 1),
    (2, 16, 1, 5),
    (3, 5, 6, 1),
    (2, 16, 8, 8),
    (1, 9, 33, 40),
    (2, 3, 2, 2),
    (0, 3, 4, 4),
]
ASKED = [(True, True), (True, False), (False, True)]
LAYOUTS = ["contiguous", "channels_last", "transposed"]


def arranged(x: Tensor, layout: str) -> Tensor:
    if layout == "transposed":
        return x.transpose(2, 3).contiguous().transpose(2, 3)
    form = torch.channels_last if layout == "channels_last" else torch.contiguous_format
    return x.contiguous(memory_format=form)


def values(shape: tuple[int, ...], dtype: torch.dtype, kind: str) -> Tensor:
    """Random values; with ``ties`` few distinct ones; with ``special`` also NaN and infinities."""
    x = torch.randn(shape)
    if kind != "distinct":
        x = (1.5 * x).round()
    if kind == "special":
        for value, share in ((float("nan"), 0.15), (float("inf"), 0.1), (float("-inf"), 0.4)):
            x[torch.rand(shape) < share] = value
    return x.to(dtype)


def torch_pools(x: Tensor, stride: int) -> tuple[Tensor, Tensor]:
    x = x.contiguous()  # on a GPU torch 2.11's gradients in channels-last are wrong for a gradient in the other layout
    return F.max_pool2d(x, 3, stride, 1), F.avg_pool2d(x, 3, stride, 1, count_include_pad=False)


def check(op: Any, backward: Any, x: Tensor, stride: int, maximum: bool, average: bool) -> None:
    """Forward and backward of ``op`` against the references, the average against float64."""
    got, expected = op(x, stride, maximum, average), pool3x3_reference(x, stride, maximum, average)
    wide = pool3x3_reference(x.double(), stride, maximum, average)
    assert [t.stride() for t in got] == [t.stride() for t in expected]
    torch.testing.assert_close(got[0], expected[0], rtol=0, atol=0, equal_nan=True)
    assert torch.equal(got[2], expected[2])
    assert_close(got[1], wide[1], x.dtype, scaled=False)
    grads = [torch.randn(got[i].shape).to(x.dtype) if asked else None for i, asked in ((0, maximum), (1, average))]
    rest = (got[2], x.shape[2], x.shape[3], stride, got[0 if maximum else 1].is_contiguous() is False)
    dx = backward(*grads, *rest)
    expected_dx = pool3x3_backward_reference(*(None if g is None else g.double() for g in grads), *rest)
    assert dx.dtype == x.dtype
    assert dx.stride() == expected_dx.stride()
    assert_close(dx, expected_dx, gradient=True)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("kind", ["distinct", "ties", "special"])
def test_equals_the_reference(dtype: torch.dtype, stride: int, kind: str) -> None:
    ops = torch.ops.ddarts_ext
    for shape, layout, asked in itertools.product(SHAPES, LAYOUTS, ASKED):
        check(ops.pool3x3, ops.pool3x3_backward, arranged(values(shape, dtype, kind), layout), stride, *asked)


@pytest.mark.parametrize("kind", ["distinct", "ties", "special"])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_equals_torch_in_values_and_in_which_pixel_gets_the_gradient(kind: str, stride: int, layout: str) -> None:
    x = arranged(values((2, 19, 9, 12), torch.float64, kind), layout).requires_grad_()
    pooled, (maximum, average) = pool3x3(x, stride=stride), torch_pools(x, stride)
    torch.testing.assert_close(pooled.maximum, maximum, rtol=0, atol=0, equal_nan=True)
    torch.testing.assert_close(pooled.average, average, equal_nan=True)
    grads = [torch.randn(maximum.shape, dtype=x.dtype) for _ in range(2)]
    expected = torch.autograd.grad([maximum, average], x, grads)
    torch.testing.assert_close(torch.autograd.grad(list(pooled), x, grads), expected)  # type: ignore[arg-type]


def test_the_last_nan_and_the_first_maximum_win() -> None:
    nan, inf = float("nan"), float("inf")
    for window, position in (
        ([[nan, 1.0], [nan, 9.0]], 2),
        ([[4.0, 4.0], [4.0, 4.0]], 0),
        ([[-inf, -inf], [-inf, -inf]], 0),
    ):
        x = torch.tensor(window, dtype=torch.float64).reshape(1, 1, 2, 2).requires_grad_()
        maximum = pool3x3(x, average=False).maximum
        assert maximum is not None
        maximum[0, 0, 0, 0].backward()
        assert x.grad is not None
        assert x.grad.flatten().tolist() == [float(i == position) for i in range(4)]


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("wanted", ["maximum", "average"])
def test_a_gradient_may_reach_one_output_only(stride: int, wanted: str) -> None:
    x = torch.randn(2, 3, 6, 5, dtype=torch.float64, requires_grad=True)
    out, expected = getattr(pool3x3(x, stride=stride), wanted), torch_pools(x, stride)[wanted == "average"]
    torch.testing.assert_close(
        torch.autograd.grad(out.square().sum(), x), torch.autograd.grad(expected.square().sum(), x)
    )


def test_what_is_not_asked_for_is_none() -> None:
    x = torch.randn(1, 2, 4, 4)
    assert pool3x3(x, average=False).average is None
    assert pool3x3(x, maximum=False).maximum is None


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("asked", ASKED)
@pytest.mark.parametrize("shape", [(1, 2, 4, 3), (1, 3, 1, 2)])
def test_gradients(stride: int, asked: tuple[bool, bool], shape: tuple[int, ...]) -> None:
    def pooled(x: Tensor) -> list[Tensor]:
        return [t for t in pool3x3(x, stride=stride, maximum=asked[0], average=asked[1]) if t is not None]

    for layout in LAYOUTS[:2]:
        x = arranged(torch.randn(shape, dtype=torch.float64), layout).requires_grad_()
        assert gradcheck(pooled, x)
        assert gradgradcheck(pooled, x)


@pytest.mark.parametrize("stride", [1, 2])
def test_opcheck(stride: int) -> None:
    for layout, asked in zip(LAYOUTS, ASKED, strict=True):
        x = arranged(torch.randn(2, 4, 5, 6), layout).requires_grad_()
        torch.library.opcheck(torch.ops.ddarts_ext.pool3x3.default, (x, stride, *asked))


def test_compiles_whole() -> None:
    def loss(x: Tensor) -> Tensor:
        pooled = pool3x3(x.relu())
        return (pooled.maximum * pooled.average).sum()  # type: ignore[operator]

    x = torch.randn(2, 4, 6, 6).to(memory_format=torch.channels_last).requires_grad_()
    (expected,) = torch.autograd.grad(loss(x), x)
    (got,) = torch.autograd.grad(torch.compile(loss, fullgraph=True, backend="aot_eager")(x), x)
    torch.testing.assert_close(got, expected)


def test_autocast_leaves_the_dtype_alone() -> None:
    for dtype in (torch.float32, torch.bfloat16):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            pooled = pool3x3(torch.randn(1, 2, 4, 4, dtype=dtype))
        assert pooled.maximum is not None
        assert pooled.maximum.dtype == dtype


def test_any_number_of_threads_gives_the_same_bits() -> None:
    x, threads = torch.randn(5, 7, 40, 21, requires_grad=True), torch.get_num_threads()
    results = []
    try:
        for count in (1, 2):
            torch.set_num_threads(count)
            pooled = pool3x3(x, stride=2)
            results.append([*pooled, *torch.autograd.grad([p.sum() for p in pooled if p is not None], x)])
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


@pytest.mark.parametrize(
    ("x", "options", "error", "message"),
    [
        (torch.zeros(2, 2), {}, ValueError, r"x must be \[N,C,H,W\], got \[2, 2\]"),
        (torch.zeros(1, 1, 2, 2, dtype=torch.int64), {}, TypeError, "x must be float64, .* got int64"),
        (torch.zeros(1, 1, 0, 2), {}, ValueError, r"x must have H and W of at least 1, got \[1, 1, 0, 2\]"),
        (torch.zeros(1, 1, 2, 2), {"stride": 3}, ValueError, "stride must be 1 or 2, got 3"),
        (torch.zeros(1, 1, 2, 2), {"maximum": False, "average": False}, ValueError, "must be True, got False for both"),
    ],
)
def test_errors(x: Tensor, options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=f"pool3x3: .*{message}"):
        pool3x3(x, **options)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("stride", [1, 2])
def test_cuda_kernels_equal_the_reference(emulated: Any, dtype: torch.dtype, stride: int) -> None:
    op, backward = emulated.op("pool3x3"), emulated.op("pool3x3_backward")
    shapes = [(2, 3, 5, 7), (1, 1, 1, 1), (1, 16, 3, 5), (2, 2, 5, 16), (1, 8, 2, 2), (1, 3, 4, 32), (0, 3, 4, 4)]
    for _ in emulated.orders():
        for shape, layout, asked in itertools.product(shapes, LAYOUTS, ASKED):
            check(op, backward, arranged(values(shape, dtype, "special"), layout), stride, *asked)


def test_cuda_kernels_stay_inside_their_tensors(emulated: Any) -> None:
    emulated.check_addresses(
        "pool3x3",
        """
for shape in [(1, 1, 1, 1), (2, 3, 5, 7), (1, 8, 3, 3), (1, 2, 3, 16), (1, 1, 16, 8)]:
    for form in (torch.contiguous_format, torch.channels_last):
        for stride in (1, 2):
            x = torch.randn(shape).contiguous(memory_format=form)
            most, mean, where = ops.pool3x3(x, stride, True, True)
            ops.pool3x3_backward(most, mean, where, shape[2], shape[3], stride, not x.is_contiguous())
""",
    )

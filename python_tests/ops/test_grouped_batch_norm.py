"""grouped_batch_norm: torch's batch norm group by group; kernels equal the reference; gradients of all inputs."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from ops.tolerances import DTYPES, assert_close
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

from ddarts_ext.ops.grouped_batch_norm import (
    grouped_batch_norm,
    grouped_batch_norm_backward_reference,
    grouped_batch_norm_reference,
)

SHAPES = [
    ((4, 3, 5, 7), 2),
    ((20, 1, 1, 1), 2),
    ((6, 16, 3, 5), 3),
    ((2, 8, 8, 8), 1),
    ((0, 3, 4, 4), 2),
    ((20, 70, 1, 1), 2),
]
LAYOUTS = ["contiguous", "channels_last", "transposed"]
STATISTICS = ["batch", "shared", "per group"]


def arranged(x: Tensor, layout: str) -> Tensor:
    if layout == "transposed":
        return x.transpose(2, 3).contiguous().transpose(2, 3)
    form = torch.channels_last if layout == "channels_last" else torch.contiguous_format
    return x.contiguous(memory_format=form)


def arguments(
    shape: tuple[int, ...], groups: int, dtype: torch.dtype, layout: str, affine: bool, statistics: str
) -> list[Any]:
    """x, weight, bias, mean, rstd; x far from zero mean."""
    x = arranged((3 + 2 * torch.randn(shape)).to(dtype), layout)
    weight, bias = (torch.randn(shape[1]), torch.randn(shape[1]).to(dtype)) if affine else (None, None)
    if statistics == "batch":
        return [x, weight, bias, None, None]
    rows = groups if statistics == "per group" else 1
    return [x, weight, bias, torch.randn(rows, shape[1]), 0.1 + torch.rand(rows, shape[1])]


def wide(values: Any) -> list[Any]:
    return [v.double() if isinstance(v, Tensor) else v for v in values]


def away_from_the_kink(x: Tensor, y: Tensor) -> Tensor:
    """1 where rounding cannot decide whether the ReLU cuts, else 0."""
    return (y.abs() > 1e-3).to(x.dtype)


def check(op: Any, backward: Any, values: list[Any], groups: int, relu: bool) -> None:
    x, weight, bias, given, _ = values
    out, mean, rstd = op(*values, groups, 1e-5, relu)
    expected = grouped_batch_norm_reference(*wide(values), groups, 1e-5, relu)
    shapes = grouped_batch_norm_reference(*values, groups, 1e-5, relu)
    assert [(t.stride(), t.dtype) for t in (out, mean, rstd)] == [(t.stride(), t.dtype) for t in shapes]
    assert_close(out, expected[0])
    assert_close(mean, expected[1])
    assert_close(rstd, expected[2])
    plain = grouped_batch_norm_reference(*wide(values), groups, 1e-5, False)[0]
    grad = arranged(torch.randn(x.shape).to(x.dtype) * away_from_the_kink(x, plain), "contiguous")
    rest = (given is None, groups, relu)
    got = backward(grad, x, weight, bias, mean, rstd, *rest)
    want = grouped_batch_norm_backward_reference(*wide([grad, x, weight, bias]), expected[1], expected[2], *rest)
    assert got[0].stride() == out.stride()
    assert got[0].dtype == x.dtype
    for a, b in zip(got, want, strict=True):
        assert_close(a, b, gradient=True)
    for a, parameter in zip(got[1:], (weight, bias), strict=True):
        assert a.numel() == 0 if parameter is None else a.dtype == parameter.dtype


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("statistics", STATISTICS)
@pytest.mark.parametrize("relu", [False, True])
def test_equals_the_reference(dtype: torch.dtype, statistics: str, relu: bool) -> None:
    ops = torch.ops.ddarts_ext
    for (shape, groups), layout, affine in itertools.product(SHAPES, LAYOUTS, (False, True)):
        values = arguments(shape, groups, dtype, layout, affine, statistics)
        check(ops.grouped_batch_norm, ops.grouped_batch_norm_backward, values, groups, relu)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_equals_torch_group_by_group(layout: str) -> None:
    x = arranged(torch.randn(6, 5, 4, 3, dtype=torch.float64), layout).requires_grad_()
    weight, bias = (torch.randn(5, dtype=torch.float64, requires_grad=True) for _ in range(2))
    expected = torch.cat([F.batch_norm(part, None, None, weight, bias, True).relu() for part in x.split(2)])
    out, mean, rstd = grouped_batch_norm(x, weight, bias, groups=3, relu=True)
    torch.testing.assert_close(out, expected)
    parts = x.detach().reshape(3, 2, 5, 4, 3)
    torch.testing.assert_close(mean, parts.mean((1, 3, 4)))
    torch.testing.assert_close(rstd, (parts.var((1, 3, 4), unbiased=False) + 1e-5).rsqrt())
    grad = torch.randn_like(out)
    torch.testing.assert_close(
        torch.autograd.grad(out, (x, weight, bias), grad), torch.autograd.grad(expected, (x, weight, bias), grad)
    )


def test_given_statistics_are_those_of_torch_in_eval_mode() -> None:
    x, mean, variance = torch.randn(4, 3, 5, 5), torch.randn(3), torch.rand(3)
    out = grouped_batch_norm(x, mean=mean[None], rstd=(variance + 1e-5).rsqrt()[None], groups=2).out
    torch.testing.assert_close(out, F.batch_norm(x, mean, variance, eps=1e-5))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_statistics_survive_a_mean_much_larger_than_the_deviation(layout: str) -> None:
    x = arranged(torch.randn(8, 16, 32, 32) + 1e4, layout)
    mean, rstd = grouped_batch_norm(x)[1:]
    expected = x.double().var((0, 2, 3), unbiased=False).add(1e-5).rsqrt()
    torch.testing.assert_close(rstd[0].double(), expected, rtol=1e-4, atol=0)
    torch.testing.assert_close(mean[0].double(), x.double().mean((0, 2, 3)), rtol=1e-6, atol=0)


@pytest.mark.parametrize("statistics", ["batch", "shared"])
@pytest.mark.parametrize("relu", [False, True])
def test_gradients(statistics: str, relu: bool) -> None:
    for layout in LAYOUTS[:2]:
        x, weight, bias, mean, rstd = wide(arguments((4, 2, 3, 2), 2, torch.float64, layout, True, statistics))
        inputs = [t.requires_grad_() for t in (x, weight, bias)]

        def norm(x: Tensor, weight: Tensor, bias: Tensor, mean: Any = mean, rstd: Any = rstd) -> Tensor:
            return grouped_batch_norm(x, weight, bias, mean=mean, rstd=rstd, groups=2, relu=relu).out

        assert gradcheck(norm, inputs)
        assert gradgradcheck(norm, inputs)


def test_statistics_have_no_gradient() -> None:
    _, mean, rstd = grouped_batch_norm(torch.randn(2, 3, 4, 4, requires_grad=True))
    assert not mean.requires_grad
    assert not rstd.requires_grad


@pytest.mark.parametrize("statistics", ["batch", "per group"])
def test_opcheck(statistics: str) -> None:
    for layout, affine in zip(LAYOUTS, (True, False, True), strict=True):
        values = arguments((4, 3, 2, 5), 2, torch.float32, layout, affine, statistics)
        values[0].requires_grad_()
        torch.library.opcheck(torch.ops.ddarts_ext.grouped_batch_norm.default, (*values, 2, 1e-5, True))


def test_compiles_whole() -> None:
    def loss(x: Tensor, weight: Tensor) -> Tensor:
        return grouped_batch_norm(x.exp(), weight, groups=2, relu=True).out.square().sum()

    x = torch.randn(4, 3, 4, 4).to(memory_format=torch.channels_last).requires_grad_()
    weight = torch.randn(3, requires_grad=True)
    expected = torch.autograd.grad(loss(x, weight), (x, weight))
    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(torch.autograd.grad(compiled(x, weight), (x, weight)), expected)


def test_autocast_takes_low_precision_x_with_float32_parameters() -> None:
    x, weight = torch.randn(2, 3, 4, 4, dtype=torch.bfloat16), torch.ones(3, requires_grad=True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out, mean, _ = grouped_batch_norm(x, weight)
    out.float().square().sum().backward()
    assert out.dtype == torch.bfloat16
    assert mean.dtype == torch.float32
    assert weight.grad is not None
    assert weight.grad.dtype == torch.float32


def test_any_number_of_threads_gives_the_same_bits() -> None:
    threads = torch.get_num_threads()
    for layout in LAYOUTS[:2]:
        x, results = arranged(torch.randn(8, 24, 31, 17), layout).requires_grad_(), []
        grad = torch.randn(x.shape)
        try:
            for count in (1, 2):
                torch.set_num_threads(count)
                norm = grouped_batch_norm(x, groups=2)
                results.append([*norm, *torch.autograd.grad(norm.out, x, grad)])
        finally:
            torch.set_num_threads(threads)
        assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


X = torch.zeros(4, 3, 2, 2)


@pytest.mark.parametrize(
    ("x", "options", "error", "message"),
    [
        (torch.zeros(2, 2), {}, ValueError, r"x must be \[N,C,H,W\], got \[2, 2\]"),
        (X.int(), {}, TypeError, "x must be float64, .* got int32"),
        (X, {"groups": 3}, ValueError, "x must have a batch divisible by groups=3, got 4"),
        (X, {"weight": torch.ones(2)}, ValueError, r"weight must be \[C\]=\[3\], got \[2\]"),
        (X, {"bias": torch.ones(3).int()}, TypeError, "bias must be float64, .* got int32"),
        (X, {"mean": torch.zeros(1, 3)}, ValueError, "mean and rstd must be given together, got only mean"),
        (
            X,
            {"mean": torch.zeros(3, 3), "rstd": torch.ones(3, 3), "groups": 2},
            ValueError,
            r"mean must be \[1 or G,C\]",
        ),
        (X[:2, :, :1, :1], {"groups": 2}, ValueError, "more than 1 value per channel and group, got input size"),
    ],
)
def test_errors(x: Tensor, options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=f"grouped_batch_norm: .*{message}"):
        grouped_batch_norm(x, **options)


@pytest.mark.parametrize("dtype", DTYPES)
def test_cuda_kernels_equal_the_reference(emulated: Any, dtype: torch.dtype) -> None:
    op, backward = emulated.op("grouped_batch_norm"), emulated.op("grouped_batch_norm_backward")
    shapes = [
        ((4, 3, 5, 7), 2),
        ((20, 1, 1, 1), 2),
        ((4, 16, 3, 5), 2),
        ((3, 2, 16, 16), 1),
        ((0, 3, 4, 4), 2),
        ((20, 70, 1, 1), 2),
        ((40, 4, 4, 4), 20),
    ]
    for _ in emulated.orders():
        for (shape, groups), layout, statistics in itertools.product(shapes, LAYOUTS[:2], STATISTICS[:2]):
            affine = shape[1] > 2
            check(op, backward, arguments(shape, groups, dtype, layout, affine, statistics), groups, relu=affine)


def test_cuda_kernels_join_many_parts(emulated: Any) -> None:
    op, backward = emulated.op("grouped_batch_norm"), emulated.op("grouped_batch_norm_backward")
    for _ in emulated.orders():
        for shape, groups, affine in (((2, 4, 160, 128), 1, True), ((4, 3, 96, 100), 2, False)):
            given = arguments(shape, groups, torch.float32, LAYOUTS[1], affine, STATISTICS[0])
            check(op, backward, given, groups, relu=affine)


def test_cuda_kernels_stay_inside_their_tensors(emulated: Any) -> None:
    emulated.check_addresses(
        "grouped_batch_norm",
        """
for shape in [(2, 3, 5, 7), (4, 8, 3, 3), (2, 3, 4, 8)]:
    for form in (torch.contiguous_format, torch.channels_last):
        x, weight = torch.randn(shape).contiguous(memory_format=form), torch.randn(shape[1])
        out, mean, rstd = ops.grouped_batch_norm(x, weight, weight, None, None, 2, 1e-5, True)
        ops.grouped_batch_norm_backward(out, x, weight, weight, mean, rstd, True, 2, True)
""",
    )

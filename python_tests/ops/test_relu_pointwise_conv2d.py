"""relu_pointwise_conv2d equals a ReLU and 1x1 convolutions of every stride-th pixel, side by side."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from ops.filters import LAYOUTS, normal
from ops.tolerances import DTYPES, assert_close
from torch import Tensor

from ddarts_ext.ops import relu_pointwise_conv2d
from ddarts_ext.ops._library import has_kernel
from ddarts_ext.ops.relu_pointwise_conv2d import composed, relu_pointwise_conv2d_backward_reference


def problem(
    shape: Sequence[int], outs: Sequence[int], dtype: torch.dtype = torch.float32
) -> tuple[Tensor, list[Tensor]]:
    weights = [normal((out, shape[1], 1, 1), torch.float64, 60 + f) / shape[1] ** 0.5 for f, out in enumerate(outs)]
    return normal(shape, dtype, 0), [weight.to(dtype) for weight in weights]


def definition(x: Tensor, weights: Sequence[Tensor], stride: int) -> Tensor:
    """Pixels past the border count as zero."""
    rows, columns = -(-x.shape[2] // stride) * stride, -(-x.shape[3] // stride) * stride
    padded = F.pad(x, (0, columns - x.shape[3], 0, rows - x.shape[2])).relu()
    return torch.cat([F.conv2d(padded[:, :, f::stride, f::stride], w) for f, w in enumerate(weights)], 1)


def compare(x: Tensor, weights: list[Tensor], stride: int) -> None:
    """The output and all gradients against the definition in float64."""
    leaves = [t.detach().requires_grad_() for t in (x, *weights)]
    exact = [t.detach().double().requires_grad_() for t in leaves]
    got = relu_pointwise_conv2d(leaves[0], leaves[1:], stride=stride)
    want = definition(exact[0], exact[1:], stride)
    assert got.dtype == x.dtype
    assert_close(got, want)
    grad = normal(want.shape, x.dtype, 100)
    found = torch.autograd.grad(got, leaves, grad)
    for a, b in zip(found, torch.autograd.grad(want, exact, grad.double()), strict=True):
        assert_close(a, b, x.dtype, gradient=True)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_equals_eager_for_every_dtype_layout_and_stride(dtype: torch.dtype, layout: str) -> None:
    for stride, outs in ((1, [24]), (2, [8, 16]), (2, [16])):
        x, weights = problem((6, 16, 10, 8), outs, dtype)
        compare(x.contiguous(memory_format=LAYOUTS[layout]), weights, stride)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("size", [(1, 1), (1, 5), (3, 7), (4, 4), (8, 16), (9, 17), (10, 17), (40, 32)], ids=str)
def test_any_size_and_number_of_channels(size: tuple[int, int], layout: str) -> None:
    for channels, outs in itertools.product((1, 3, 8, 20, 48), ((1, 2), (8, 8), (5, 40), (24, 16))):
        x, weights = problem((2, channels, *size), outs)
        x = x.contiguous(memory_format=LAYOUTS[layout])
        compare(x, weights, 2)
        compare(x, weights[:1], 1)


def test_more_channels_than_a_tile_holds_rows_of() -> None:
    for layout, stride in itertools.product(LAYOUTS.values(), (1, 2)):
        x, weights = problem((3, 264, 8, 72), [40] * stride)
        compare(x.contiguous(memory_format=layout), weights, stride)


def test_strided_inputs_and_gradients_keep_their_layout() -> None:
    x, weights = problem((4, 16, 12, 16), [8, 8])
    for view in (x[:, 3:12], x[:, :, 1:-1, ::2], x[:1].expand(3, -1, -1, -1), x[..., 4:12].transpose(2, 3)):
        compare(view, [weight[:, : view.shape[1]] for weight in weights], 2)
    for layout in LAYOUTS.values():
        leaf = x.contiguous(memory_format=layout).requires_grad_()
        out = relu_pointwise_conv2d(leaf, weights, stride=2)
        (gradient,) = torch.autograd.grad(out.sum(), leaf)
        assert all(t.is_contiguous(memory_format=layout) for t in (out, gradient))


def test_empty_batch_and_nan() -> None:
    x, weights = problem((0, 4, 5, 5), [6, 2])
    leaves = [t.requires_grad_() for t in (x, *weights)]
    out = relu_pointwise_conv2d(x, weights, stride=2)
    assert out.shape == (0, 8, 3, 3)
    assert all(not gradient.any() for gradient in torch.autograd.grad(out.sum(), leaves))
    x, weights = problem((1, 8, 2, 8), [8])
    x[0, 3, 1, 2] = torch.nan
    nans = relu_pointwise_conv2d(x.contiguous(memory_format=torch.channels_last), weights).isnan()
    assert torch.equal(nans, definition(x, weights, 1).isnan())


@pytest.mark.parametrize("stride", [1, 2])
def test_first_and_second_derivatives(stride: int) -> None:
    x, weights = problem((2, 3, 5, 4), [2, 3][:stride], torch.float64)
    leaves = [t.requires_grad_() for t in (x, *weights)]

    def function(x: Tensor, *weights: Tensor) -> Tensor:
        return relu_pointwise_conv2d(x, weights, stride=stride)

    assert torch.autograd.gradcheck(function, leaves)
    assert torch.autograd.gradgradcheck(function, leaves)


def test_opcheck() -> None:
    for layout, stride in itertools.product(LAYOUTS.values(), (1, 2)):
        x, weights = problem((4, 8, 5, 4), [8, 16][:stride])
        x = x.contiguous(memory_format=layout)
        forward, backward = (getattr(torch.ops.ddarts_ext, f"relu_pointwise_conv2d{end}") for end in ("", "_backward"))
        leaves = [t.detach().requires_grad_() for t in (x, *weights)]
        torch.library.opcheck(forward.default, (leaves[0], leaves[1:], stride))
        grad = torch.randn_like(forward(x, weights, stride))
        for wanted in ((True, True), (True, False), (False, True)):
            torch.library.opcheck(backward.default, (grad, x, weights, stride, *wanted))


def test_compiles_without_graph_breaks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    x, weights = problem((2, 8, 6, 6), [4, 4])

    def loss(x: Tensor) -> Tensor:
        return relu_pointwise_conv2d(x, weights, stride=2).sin().sum()

    leaf = x.requires_grad_()
    expected = torch.autograd.grad(loss(leaf), leaf)[0]
    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    assert_close(torch.autograd.grad(compiled(leaf), leaf)[0], expected)


def test_autocast_casts_as_conv2d_does() -> None:
    x, weights = problem((2, 8, 6, 6), [4])
    with torch.autocast(torch.get_default_device().type, torch.bfloat16):
        got = relu_pointwise_conv2d(x.requires_grad_(), weights)
    assert got.dtype == torch.bfloat16
    assert_close(got, relu_pointwise_conv2d(x, weights))
    assert torch.autograd.grad(got.sum(), x)[0].dtype == torch.float32


@pytest.mark.skipif(not has_kernel("relu_pointwise_conv2d", "cpu"), reason="torch's products promise no such thing")
def test_result_does_not_depend_on_the_number_of_threads() -> None:
    x, weights = problem((5, 24, 40, 40), [16, 24])
    leaves = [t.requires_grad_() for t in (x, *weights)]
    results = []
    before = torch.get_num_threads()
    try:
        for threads in (1, 2, 3, 2):
            torch.set_num_threads(threads)
            out = relu_pointwise_conv2d(x, weights, stride=2)
            results.append([out, *torch.autograd.grad(out.square().sum(), leaves)])
    finally:
        torch.set_num_threads(before)
    for result in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(result, results[0], strict=True))


@pytest.mark.parametrize("size", [(6, 4), (5, 7)])
def test_references_are_the_definition(size: tuple[int, int]) -> None:
    x, weights = problem((3, 4, *size), [2, 5], torch.float64)
    leaves = [t.requires_grad_() for t in (x, *weights)]
    want = definition(x, weights, 2)
    assert_close(composed(x, weights, 2), want)
    grad = torch.randn_like(want)
    found = relu_pointwise_conv2d_backward_reference(grad, x.detach(), weights, 2, True, True)
    for a, b in zip(found, torch.autograd.grad(want, leaves, grad), strict=True):
        assert_close(a, b, gradient=True)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"x": torch.ones(4, 8, 5)}, ValueError, r"x must be \[N,C,H,W\], got \[4, 8, 5\]"),
        ({"x": torch.ones(4, 8, 5, 5).long()}, TypeError, "x must be float64, float32"),
        ({"x": torch.ones(4, 8, 0, 5)}, ValueError, r"x must be \[N,C,H,W\] with C, H and W at least 1"),
        ({"stride": 3}, ValueError, "stride must be 1 or 2, got 3"),
        ({"weights": []}, ValueError, "weights must be 1 to stride=1 tensors, got 0"),
        ({"weights": [torch.ones(8, 8, 1, 1)] * 2}, ValueError, "weights must be 1 to stride=1 tensors, got 2"),
        (
            {"weights": [torch.ones(8, 4, 1, 1)]},
            ValueError,
            r"weights\[0\] must be \[Co,C,1,1\]=\[Co,8,1,1\], got \[8, 4, 1, 1\]",
        ),
    ],
)
def test_errors_say_what_was_expected_and_what_came(
    changes: dict[str, Any], error: type[Exception], message: str
) -> None:
    settings: dict[str, Any] = {"x": torch.ones(4, 8, 5, 5), "weights": [torch.ones(8, 8, 1, 1)]}
    with pytest.raises(error, match=f"^relu_pointwise_conv2d: {message}"):
        relu_pointwise_conv2d(**(settings | changes))

"""The CUDA kernels of relu_pointwise_conv2d, run by the emulation, equal its references in float64."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from ops.filters import LAYOUTS, normal
from ops.tolerances import DTYPES, assert_close
from torch import Tensor

from ddarts_ext.ops.relu_pointwise_conv2d import (
    relu_pointwise_conv2d_backward_reference,
    relu_pointwise_conv2d_reference,
)

OP = "relu_pointwise_conv2d"
CASES = (
    ((2, 64, 8, 16), [16], 1),
    ((2, 20, 9, 17), [12, 12], 2),
    ((2, 3, 7, 5), [5, 2], 2),
    ((2, 8, 16, 24), [72], 2),
)
"""Shape, output channels, stride."""


def check(
    emulated: Any, x: Tensor, outs: Sequence[int], stride: int, layout: torch.memory_format = torch.channels_last,
    *, tf32: bool = False,
) -> None:  # fmt: skip
    """The output, and the gradients: all, that of x alone, those of the weights alone."""
    weights = [normal((out, x.shape[1], 1, 1), x.dtype, 60 + f) / x.shape[1] ** 0.5 for f, out in enumerate(outs)]
    exact = [weight.double() for weight in weights]
    want = relu_pointwise_conv2d_reference(x.double(), exact, stride)
    got = emulated.op(OP)(x, weights, stride, tf32)
    row = torch.float16 if tf32 else x.dtype  # which has as many bits
    assert got.dtype == x.dtype
    assert_close(got, want, row)
    grad = normal(want.shape, x.dtype, 100).contiguous(memory_format=layout)
    for wanted in ((True, True), (True, False), (False, True)):
        expected = relu_pointwise_conv2d_backward_reference(grad.double(), x.double(), exact, stride, *wanted)
        found = emulated.op(f"{OP}_backward")(grad, x, weights, stride, *wanted, tf32)
        for a, b in zip(found, expected, strict=True):
            assert_close(a, b, row, gradient=True)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_every_dtype_layout_and_stride(emulated: Any, dtype: torch.dtype, layout: str) -> None:
    for _ in emulated.orders():
        for shape, outs, stride in CASES:
            x = normal(shape, dtype, 0).contiguous(memory_format=LAYOUTS[layout])
            check(emulated, x, outs, stride, LAYOUTS[layout])
            if dtype == torch.float32:
                check(emulated, x, outs, stride, LAYOUTS[layout], tf32=True)


def test_strided_empty_and_many_images(emulated: Any) -> None:
    check(emulated, normal((2, 4, 6, 12), torch.float32, 0)[..., ::2], [4, 4], 2)
    check(emulated, normal((0, 4, 6, 6), torch.float32, 0), [4, 4], 2)
    check(emulated, normal((0, 4, 6, 6), torch.float32, 0), [4], 1)
    check(emulated, normal((600, 8, 4, 4), torch.float32, 0), [8], 1)
    check(emulated, normal((1, 4, 1, 1), torch.float32, 0), [4, 4], 2)


def test_kernels_stay_inside_their_tensors(emulated: Any) -> None:
    emulated.check_addresses(
        OP,
        """
for dtype in (torch.float32, torch.float16):
    for shape, outs in (((2, 20, 9, 17), (18, 18)), ((2, 3, 9, 10), (70, 4)), ((2, 4, 8, 8), (4, 4))):
        x = torch.randn(shape).to(dtype)
        x = x.contiguous(memory_format=torch.channels_last) if shape[1] % 4 == 0 else x
        weights = [torch.randn(out, shape[1], 1, 1) for out in outs]
        out = ops.relu_pointwise_conv2d(x, weights, 2)
        ops.relu_pointwise_conv2d_backward(out, x, weights, 2, True, True)
        ops.relu_pointwise_conv2d_backward(out[:, :outs[0]], x, weights[:1], 2, True, True)
""",
    )

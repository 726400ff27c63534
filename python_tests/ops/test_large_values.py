"""Values near the largest float32: sums overflow, results are those of torch on contiguous tensors, in every layout."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from ddarts_ext import ops
from ddarts_ext.ops._library import has_kernel

LAYOUTS = ("contiguous", "channels_last", "transposed")
SHAPE = (4, 3, 6, 8)
LARGE = 3e38


def arranged(x: Tensor, layout: str) -> Tensor:
    if layout == "transposed":
        return x.transpose(2, 3).contiguous().transpose(2, 3)
    return x.contiguous(memory_format=torch.channels_last if layout == "channels_last" else torch.contiguous_format)


def large(kind: str) -> Tensor:
    x = torch.randn(SHAPE)
    return {"signs": x.sign() * LARGE, "spread": x.clamp(-1, 1) * LARGE, "positive": x.abs().clamp(0.1, 1) * LARGE}[
        kind
    ]


def separable(x: Tensor) -> Tensor:
    filters, mixing = torch.ones(3, 1, 3, 3), torch.ones(3, 3, 1, 1)
    return ops.relu_separable_conv2d([x], [filters], [mixing], dilations=[1], normalize=True).outputs[0]


NORMS: dict[str, Callable[[Tensor], Tensor]] = {
    "grouped_batch_norm": lambda x: ops.grouped_batch_norm(x).out,
    "mixed_sum": lambda x: ops.mixed_sum([x, x], torch.ones(2), normalize=[True, True]).out,
    "relu_depthwise_conv2d": lambda x: ops.relu_depthwise_conv2d(
        x, [torch.ones(3, 1, 3, 3)], dilations=[1], normalize=True
    ).outputs[0],
    "relu_separable_conv2d": separable,
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("kind", ["signs", "spread", "positive"])
@pytest.mark.parametrize("name", NORMS)
def test_a_variance_beyond_float32_makes_zeros_as_in_torch(name: str, kind: str, layout: str) -> None:
    if torch.get_default_device().type != "cpu" or not has_kernel(name, "cpu"):
        pytest.skip("what the CPU kernels do")
    x = large(kind)
    assert not F.batch_norm(x, None, None, training=True).any()  # torch's own, contiguous
    x = arranged(x, layout).requires_grad_()
    out = NORMS[name](x)
    assert not out.any()
    (gradient,) = torch.autograd.grad(out.sum(), x)
    assert not gradient.any()


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_constant_image_is_normalised_to_zeros(layout: str) -> None:
    if torch.get_default_device().type != "cpu" or not has_kernel("grouped_batch_norm", "cpu"):
        pytest.skip("what the CPU kernels do")
    x = arranged(torch.full(SHAPE, LARGE), layout)
    for name in ("grouped_batch_norm", "mixed_sum", "relu_depthwise_conv2d"):
        assert not NORMS[name](x).any()


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("stride", [1, 2])
def test_pools_and_convolutions_overflow_where_torchs_do(layout: str, stride: int) -> None:
    x = arranged(large("positive"), layout)
    pooled = ops.pool3x3(x, stride=stride)
    torch.testing.assert_close(pooled.maximum, F.max_pool2d(x, 3, stride, 1))
    torch.testing.assert_close(pooled.average, F.avg_pool2d(x, 3, stride, 1, count_include_pad=False))
    weight = torch.rand(3, 1, 3, 3)
    found = ops.relu_depthwise_conv2d(x, [weight], dilations=[1], stride=stride).outputs[0]
    torch.testing.assert_close(found, F.conv2d(x.relu(), weight, None, stride, 1, 1, 3))


def test_what_is_not_finite_stays_so() -> None:
    x = torch.randn(SHAPE)
    x[0, 1, 2, 3] = float("nan")
    x[1, 2, 3, 4] = float("inf")
    out = ops.grouped_batch_norm(x).out
    assert out[:, 0].isfinite().all()
    assert out[:, 1:].isnan().all()

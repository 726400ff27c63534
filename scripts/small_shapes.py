"""Runs every op once per dtype and layout on small shapes, forward and backward: what compute-sanitizer looks at.

--only-list instead prints which ops have a kernel on the device, and fails where one has none.
"""

from __future__ import annotations

import argparse
import itertools
import sys
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from ddarts_ext import ops
from ddarts_ext.ops import AVERAGE, MAXIMUM, SKIP
from ddarts_ext.ops._library import composed_of, defined_ops, has_kernel


def calls(x: Tensor, weights: list[Tensor]) -> Iterator[tuple[str, Callable[[], list[Tensor]]]]:
    """(name, call) of every op; x [4,C,H,W], weights: depthwise filters [C,1,3,3] and [C,1,5,5]."""
    pointwise = [weight[:, :, 0, 0, None, None].expand(-1, x.shape[1], -1, -1) for weight in weights]
    mixing = torch.rand(2, 3, device=x.device)
    flags = [True, False, True]
    yield "mixed_sum", lambda: [ops.mixed_sum([x, x * 2, x + 1], mixing, normalize=flags).out]
    for stride, normalize in itertools.product((1, 2), (False, True)):
        yield (
            "relu_depthwise_conv2d",
            lambda stride=stride, normalize=normalize: list(  # type: ignore[misc]
                ops.relu_depthwise_conv2d(
                    x, weights, dilations=[1, 2], stride=stride, normalize=normalize, groups=2
                ).outputs
            ),
        )
        yield (
            "relu_separable_conv2d",
            lambda stride=stride, normalize=normalize: list(  # type: ignore[misc]
                ops.relu_separable_conv2d(
                    [x, x + 1],
                    weights,
                    pointwise,
                    sources=[0, 1],
                    dilations=[1, 2],
                    stride=stride,
                    normalize=normalize,
                    groups=2,
                ).outputs
            ),
        )
        yield "pool3x3", lambda stride=stride: [p for p in ops.pool3x3(x, stride=stride) if p is not None]  # type: ignore[misc]
        yield "spawn_group", lambda stride=stride: [ops.spawn_group(None, x, copies=2, stride=stride)]  # type: ignore[misc]
    square = [weight[:, :1].expand(-1, x.shape[1], -1, -1).contiguous() for weight in pointwise]
    edges = ops.Edges((0, 0, 1, 1), (SKIP, 0, MAXIMUM, AVERAGE), (False, True, True, False), (2,), (0,))
    yield "mixed_edges", lambda: ops.mixed_edges(x, edges, weights, square, torch.rand(2, 4, device=x.device)).sums
    yield "relu_pointwise_conv2d", lambda: [ops.relu_pointwise_conv2d(x, square, stride=2)]
    yield "grouped_batch_norm", lambda: [ops.grouped_batch_norm(x, groups=2, relu=True).out]
    yield "channel_iim", lambda: [ops.channel_iim([x, x])]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--only-list", action="store_true")
    options = parser.parse_args()
    if options.only_list:
        device = torch.device(options.device).type
        composed = [name for name in defined_ops() if composed_of(name) and not has_kernel(name, device)]
        missing = [name for name in defined_ops() if not has_kernel(name, device) and name not in composed]
        for name in defined_ops():
            print(f"{name}: {'reference only' if name in missing else 'composed' if name in composed else 'kernel'}")
        return 1 if missing else 0
    dtypes = (torch.float32, torch.float16, torch.bfloat16, torch.float64)
    formats = (torch.contiguous_format, torch.channels_last)
    for dtype, format_, (channels, size) in itertools.product(dtypes, formats, ((8, 8), (5, 7))):
        torch.manual_seed(0)
        x = torch.randn(4, channels, size, size, device=options.device).to(dtype).contiguous(memory_format=format_)
        x.requires_grad_()
        weights = [torch.randn(channels, 1, k, k, device=options.device, dtype=dtype).requires_grad_() for k in (3, 5)]
        for name, call in calls(x, weights):
            outputs = call()
            differentiable = [out for out in outputs if out.requires_grad]
            if differentiable:
                sum(out.double().sum() for out in differentiable).backward()  # type: ignore[union-attr]
            if any(not out.isfinite().all() for out in outputs):
                print(f"small_shapes: {name} must give finite values for {dtype}, {format_}, got others")
                return 1
    print("all ops ran")
    return 0


if __name__ == "__main__":
    sys.exit(main())

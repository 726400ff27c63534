"""Runs every op once per dtype and layout on small shapes, forward and backward: what compute-sanitizer looks at.

Values must be finite. An op that fails is named, and the others run.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable, Iterator

import torch
from running import report
from task import before_the_device, parser
from torch import Tensor

from ddarts_ext import ops
from ddarts_ext.ops import AVERAGE, MAXIMUM, SKIP


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
    rows = x.flatten(1)
    gates = torch.cat((rows, rows.flip(1)), 1)
    mixing = torch.rand(2, 4, device=x.device)
    yield "recurrent_node", lambda: [ops.recurrent_node([rows, rows], [gates, gates], mixing)]


def shape_of(text: str) -> tuple[int, int, int, int]:
    n, c, h, w = (int(number) for number in text.split(","))
    return n, c, h, w


def failures_of(x: Tensor, weights: list[Tensor]) -> Iterator[str]:
    """What goes wrong on one input, op by op."""
    for name, call in calls(x, weights):
        try:
            outputs = call()
            differentiable = [out for out in outputs if out.requires_grad]
            if differentiable:
                sum(out.double().sum() for out in differentiable).backward()  # type: ignore[union-attr]
            if any(not out.isfinite().all() for out in outputs):
                yield f"{name}: values must be finite, some are not"
        except Exception as error:
            yield f"{name}: {type(error).__name__}: {error}"


def main() -> int:
    arguments = parser(__doc__)
    arguments.add_argument("--dtype", nargs="+", default=["float32", "float16", "bfloat16", "float64"])
    arguments.add_argument("--layout", nargs="+", default=["contiguous_format", "channels_last"])
    arguments.add_argument("--shape", nargs="+", type=shape_of, default=[(4, 8, 8, 8), (4, 5, 7, 7), (4, 40, 24, 24)])
    options = arguments.parse_args()
    before_the_device(options.dry, shapes=options.shape)
    failed, runs = [], 0
    for dtype, layout, shape in itertools.product(options.dtype, options.layout, options.shape):
        torch.manual_seed(0)
        x = torch.randn(shape, device=options.device).to(getattr(torch, dtype))
        x = x.contiguous(memory_format=getattr(torch, layout)).requires_grad_()
        weights = [torch.randn(shape[1], 1, k, k, device=options.device, dtype=x.dtype) for k in (3, 5)]
        case = f"{dtype} {layout} {list(shape)}"
        failed += [f"{case} {found}" for found in failures_of(x, [weight.requires_grad_() for weight in weights])]
        runs += 1
        report({"runs": runs, "failed": failed})
    print("\n".join(failed) if failed else f"all ops ran on {runs} inputs")
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())

"""The shapes whose kernels the report is about: those of a search at 16 channels, small enough for the emulation.

Every case runs an op forward and backward through its public function, with the emulated CUDA kernels in place of the
CPU's; every grid has more than one block.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from ddarts_ext import ops
from ddarts_ext.nn.readers import pooled_apart


@dataclass(frozen=True)
class Shape:
    """Of the images [batch, channels, side, side]."""

    batch: int
    channels: int
    side: int

    def __str__(self) -> str:
        return f"[{self.batch}, {self.channels}, {self.side}, {self.side}]"


SMALL = Shape(4, 32, 16)
LATE, FEW_LATE = Shape(64, 64, 8), Shape(4, 64, 8)
"""Of the last cells of a search, where tiles are few; and fewer of these images."""


@dataclass(frozen=True)
class Case:
    """``run()`` calls ``op`` once, and its gradient where it has one."""

    op: str
    text: str
    run: Callable[[], None]


def cases(dtype: torch.dtype, format_: torch.memory_format, shape: Shape = SMALL) -> Iterator[Case]:
    """All cases in one dtype, layout and shape."""
    how = shape, dtype, format_
    for stride in (1, 2):
        yield Case("relu_depthwise_conv2d", f"stride {stride}", _depthwise(*how, stride, normalize=False))
    yield Case("relu_depthwise_conv2d", "with batch norm", _depthwise(*how, 1, normalize=True))
    for stride in (1, 2):
        yield Case("relu_separable_conv2d", f"stride {stride}", _separable(*how, stride, normalize=False))
    yield Case("relu_separable_conv2d", "with batch norm", _separable(*how, 1, normalize=True))
    for stride in (1, 2):
        yield Case("relu_pointwise_conv2d", f"stride {stride}", _pointwise(*how, stride))
    for stride in (1, 2):
        yield Case("pool3x3", f"stride {stride}", _pool(*how, stride))
    for stride in (1, 2):
        yield Case("pool3x3_readers", f"stride {stride}", _pool_readers(*how, stride))
    for stride in (1, 2):
        yield Case("mixed_edges", f"stride {stride}", _mixed_edges(*how, stride))
    yield Case("mixed_sum", "8 branches", _mixed_sum(*how))
    yield Case("grouped_batch_norm", "2 groups", _norm(*how))
    yield Case("channel_iim", "3 maps", _iim(*how))
    yield Case("spawn_group", "stride 2", _spawn(*how))
    yield Case("recurrent_node", "3 predecessors", _node(shape, dtype))


def _image(shape: Shape, dtype: torch.dtype, format_: torch.memory_format) -> Tensor:
    image = torch.randn(shape.batch, shape.channels, shape.side, shape.side).to(dtype).contiguous(memory_format=format_)
    return image.requires_grad_()


def _backward(outputs: list[Tensor], format_: torch.memory_format) -> None:
    torch.autograd.backward(outputs, [torch.ones_like(out).contiguous(memory_format=format_) for out in outputs])


def _depthwise(
    shape: Shape, dtype: torch.dtype, format_: torch.memory_format, stride: int, *, normalize: bool
) -> Callable[[], None]:
    def run() -> None:
        x = _image(shape, dtype, format_)
        sides, dilations = ((3, 5), [1, 1]) if normalize else ((3, 5, 3, 5), [1, 1, 2, 2])
        weights = [torch.randn(shape.channels, 1, k, k, dtype=dtype).requires_grad_() for k in sides]
        found = ops.relu_depthwise_conv2d(x, weights, dilations=dilations, stride=stride, normalize=normalize, groups=2)
        _backward(list(found.outputs), format_)

    return run


def _separable(
    shape: Shape, dtype: torch.dtype, format_: torch.memory_format, stride: int, *, normalize: bool
) -> Callable[[], None]:
    def run() -> None:
        inputs = [_image(shape, dtype, format_) for _ in range(2 if normalize else 1)]
        sides, dilations = ((3, 5), [1, 1]) if normalize else ((3, 5, 3, 5), [1, 1, 2, 2])
        weights = [torch.randn(shape.channels, 1, k, k, dtype=dtype).requires_grad_() for k in sides]
        pointwise = [torch.randn(shape.channels, shape.channels, 1, 1, dtype=dtype).requires_grad_() for _ in sides]
        found = ops.relu_separable_conv2d(
            inputs, weights, pointwise, dilations=dilations, stride=stride, normalize=normalize, groups=2
        )
        _backward(list(found.outputs), format_)

    return run


def _pointwise(shape: Shape, dtype: torch.dtype, format_: torch.memory_format, stride: int) -> Callable[[], None]:
    def run() -> None:
        weights = [
            torch.randn(shape.channels, shape.channels, 1, 1, dtype=dtype).requires_grad_() for _ in range(stride)
        ]
        _backward([ops.relu_pointwise_conv2d(_image(shape, dtype, format_), weights, stride=stride)], format_)

    return run


def _pool(shape: Shape, dtype: torch.dtype, format_: torch.memory_format, stride: int) -> Callable[[], None]:
    def run() -> None:
        found = ops.pool3x3(_image(shape, dtype, format_), stride=stride)
        _backward([out for out in found if out is not None], format_)

    return run


def _pool_readers(shape: Shape, dtype: torch.dtype, format_: torch.memory_format, stride: int) -> Callable[[], None]:
    def run() -> None:
        x = _image(shape, dtype, format_)
        parts, maxima, averages = pooled_apart(x * 1, 3, stride=stride, maxima=4, averages=4)
        _backward([*parts, *maxima, *averages], format_)

    return run


def _mixed_edges(shape: Shape, dtype: torch.dtype, format_: torch.memory_format, stride: int) -> Callable[[], None]:
    """Two edges with all ops of DARTS, but the identity at stride 2."""
    named = [ops.MAXIMUM, ops.AVERAGE, *([ops.SKIP] if stride == 1 else [])]
    edges = ops.Edges(
        targets=tuple(t for t in (0, 1) for _ in range(len(named) + 4)),
        kinds=tuple(kind for t in (0, 1) for kind in (*named, *range(4 * t, 4 * t + 4))),
        normalize=tuple(kind != ops.SKIP for _ in (0, 1) for kind in (*named, 0, 0, 0, 0)),
        dilations=(1, 1, 2, 2) * 2,
        seconds=(0, 1, 4, 5),
        stride=stride,
    )
    sides = [3, 5, 3, 5] * 2 + [3, 5] * 2

    def run() -> None:
        weights = [torch.randn(shape.channels, 1, k, k, dtype=dtype).requires_grad_() for k in sides]
        pointwise = [torch.randn(shape.channels, shape.channels, 1, 1, dtype=dtype).requires_grad_() for _ in sides]
        mixing = torch.rand(2, len(edges.kinds)).requires_grad_()
        side = shape.side // stride
        previous = [_image(Shape(shape.batch, shape.channels, side), dtype, format_) for _ in (0, 1)]
        found = ops.mixed_edges(_image(shape, dtype, format_), edges, weights, pointwise, mixing, previous=previous)
        _backward(found.sums, format_)

    return run


def _mixed_sum(shape: Shape, dtype: torch.dtype, format_: torch.memory_format) -> Callable[[], None]:
    def run() -> None:
        branches = [_image(shape, dtype, format_) for _ in range(8)]
        weights = torch.rand(2, 8).requires_grad_()
        _backward([ops.mixed_sum(branches, weights, normalize=[k > 1 for k in range(8)]).out], format_)

    return run


def _norm(shape: Shape, dtype: torch.dtype, format_: torch.memory_format) -> Callable[[], None]:
    def run() -> None:
        _backward([ops.grouped_batch_norm(_image(shape, dtype, format_), groups=2, relu=True).out], format_)

    return run


def _iim(shape: Shape, dtype: torch.dtype, format_: torch.memory_format) -> Callable[[], None]:
    def run() -> None:
        with torch.no_grad():
            ops.channel_iim([_image(shape, dtype, format_) for _ in range(3)])

    return run


def _node(shape: Shape, dtype: torch.dtype) -> Callable[[], None]:
    def run() -> None:
        states = [torch.randn(shape.batch * shape.side, shape.channels).to(dtype).requires_grad_() for _ in range(3)]
        gates = [torch.randn(shape.batch * shape.side, 2 * shape.channels).to(dtype).requires_grad_() for _ in range(3)]
        out = ops.recurrent_node(states, gates, torch.rand(3, 4).requires_grad_())
        out.backward(torch.ones_like(out))

    return run


def _spawn(shape: Shape, dtype: torch.dtype, format_: torch.memory_format) -> Callable[[], None]:
    def run() -> None:
        groups = (
            torch.randn(shape.batch, 3 * shape.channels, shape.side // 2, shape.side // 2)
            .to(dtype)
            .contiguous(memory_format=format_)
        )
        _backward([ops.spawn_group(groups, _image(shape, dtype, format_), copies=3, stride=2)], format_)

    return run

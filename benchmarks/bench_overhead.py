"""What a call costs beside its kernel: every op forward and backward on [2,4,4,4], where kernels take next to nothing.

Candidates: ``raw``: the op and its backward op called below autograd, with arguments ready; ``kernel channels-last``:
the public function, recorded, and the gradients of all inputs. Beside them ``engine``: a product with a number, which
is what autograd's engine takes for one node. So the layer between costs ``kernel channels-last`` - ``raw`` - ``engine``
milliseconds. All sizes are the smallest that a cell has: a call of ``mixed_edges`` has three stages here, up to 24
in a supernet. Times are the least of many turns, as what disturbs a call of microseconds only ever adds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ddarts_ext import ops
from ddarts_ext.benchmark import Row
from ddarts_ext.benchmark.timing import interleave

SHAPE = (2, 4, 4, 4)
CHANNELS = SHAPE[1]


@dataclass(frozen=True)
class Call:
    """A call of an op. outputs: the public function's, of which the first has a gradient. inputs: whose gradients are
    taken. name: of the op below. arguments: its own. backward: the arguments of its backward op, from its results."""

    outputs: Callable[[], Any]
    inputs: list[Tensor]
    name: str
    arguments: tuple[Any, ...]
    backward: Callable[[Tensor, Any], tuple[Any, ...]]


def _image() -> Tensor:
    return torch.randn(SHAPE).contiguous(memory_format=torch.channels_last).requires_grad_()


def _filters(count: int, *shape: int) -> list[Tensor]:
    return [torch.randn(CHANNELS, *shape, requires_grad=True) for _ in range(count)]


def calls() -> dict[str, Call]:
    """One of every op, by name."""
    x, scale, shift = _image(), torch.ones(CHANNELS, requires_grad=True), torch.zeros(CHANNELS, requires_grad=True)
    depthwise, pointwise = _filters(3, 1, 3, 3), _filters(3, CHANNELS, 1, 1)
    weights = torch.rand(1, 4, requires_grad=True)
    edges = ops.Edges((0, 0, 0, 0), (ops.SKIP, ops.MAXIMUM, 0, 1), (False, True, True, True), (1, 2), (0,))
    settings = [list(edges.targets), list(edges.kinds), list(edges.dilations), list(edges.seconds)]
    flags, dilations, branches = [True] * 4, [1, 2, 1], [x] * 4
    return {
        "grouped_batch_norm": Call(
            lambda: ops.grouped_batch_norm(x, scale, shift, relu=True)[:1],
            [x, scale, shift],
            "grouped_batch_norm",
            (x, scale, shift, None, None, 1, 1e-5, True),
            lambda grad, found: (grad, x, scale, shift, *found[1:], True, 1, True),
        ),
        "pool3x3": Call(
            lambda: ops.pool3x3(x),
            [x],
            "pool3x3",
            (x, 1, True, True),
            lambda grad, found: (grad, grad, found[2], *SHAPE[2:], 1, True),
        ),
        "relu_pointwise_conv2d": Call(
            lambda: [ops.relu_pointwise_conv2d(x, pointwise[:1])],
            [x, pointwise[0]],
            "relu_pointwise_conv2d",
            (x, pointwise[:1], 1),
            lambda grad, _: (grad, x, pointwise[:1], 1, True, True),
        ),
        "relu_depthwise_conv2d": Call(
            lambda: ops.relu_depthwise_conv2d(x, depthwise, dilations=dilations).outputs,
            [x, *depthwise],
            "relu_depthwise_conv2d",
            (x, depthwise, dilations, 1, False, None, None, 1, 1e-5),
            lambda grad, found: ([grad] * 3, x, depthwise, dilations, 1, False, *found[1:], True, 1, True, True),
        ),
        "relu_separable_conv2d": Call(
            lambda: ops.relu_separable_conv2d([x], depthwise, pointwise, dilations=dilations).outputs,
            [x, *depthwise, *pointwise],
            "relu_separable_conv2d",
            ([x], depthwise, pointwise, [0] * 3, dilations, 1, False, None, None, 1, 1e-5),
            lambda grad, found: (
                [grad] * 3, [x], depthwise, pointwise, [0] * 3, dilations, 1, False, *found[1:], True, 1, True, True,
            ),
        ),
        "mixed_sum": Call(
            lambda: ops.mixed_sum(branches, weights, normalize=flags)[:1],
            [x, weights],
            "mixed_sum",
            (branches, weights, flags, None, None, 1e-5),
            lambda grad, found: (grad, branches, weights, flags, *found[1:], True, True),
        ),
        "mixed_edges": Call(
            lambda: ops.mixed_edges(x, edges, depthwise, pointwise, weights).sums,
            [x, *depthwise, *pointwise, weights],
            "mixed_edges",
            (x, [], depthwise, pointwise, weights, *settings, list(edges.normalize), 1, 1, *[None] * 4, 1e-5),
            lambda grad, found: (
                [grad], x, depthwise, pointwise, weights, found[0][1:], *settings, list(edges.normalize), 1,
                *found[1:], True, True, True, True,
            ),
        ),
    }  # fmt: skip


def _recorded(call: Call) -> Callable[[], None]:
    grads = [torch.ones_like(out) for out in call.outputs()]

    def step() -> None:
        torch.autograd.grad(list(call.outputs()), call.inputs, grads)

    return step


def _raw(call: Call) -> Callable[[], None]:
    forward, backward = (getattr(torch.ops.ddarts_ext, call.name + end).default for end in ("", "_backward"))
    grad = torch.ones_like(call.inputs[0])

    def step() -> None:
        with torch._C._AutoDispatchBelowAutograd():
            backward(*call.backward(grad, forward(*call.arguments)))

    return step


def _engine() -> Callable[[], None]:
    x = _image()
    grad = torch.ones_like(x)

    def step() -> None:
        torch.autograd.grad(x * 2.0, x, grad)

    return step


def measure(device: str, *, seconds: float = 1.0, **_: object) -> Iterator[Row]:
    """A row of every candidate and op, in turn. On a CPU only: elsewhere calls do not wait for kernels."""
    if device != "cpu":
        return
    for name, call in calls().items():
        steps = {"raw": _raw(call), "engine": _engine(), "kernel channels-last": _recorded(call)}
        times = interleave(steps, device, seconds, warmup=50, least=20)
        for candidate, values in times.items():
            least = min(values)
            bounds = (least, sorted(values)[len(values) // 2])
            yield Row("overhead", f"{name} {list(SHAPE)}", candidate, least, bounds, len(values), None, None, {}, {})

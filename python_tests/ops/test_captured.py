"""Every op with its gradients as a CUDA graph: captured once, it gives for new values what eager code gives."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from ddarts_ext import ops
from ddarts_ext.ops import AVERAGE, MAXIMUM, SKIP

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")

EDGES = ops.Edges((0, 0, 1, 1), (SKIP, 0, MAXIMUM, AVERAGE), (False, True, True, False), (2,), (0,))
Call = Callable[[Tensor, list[Tensor], list[Tensor], Tensor], list[Tensor]]


def pools(x: Tensor) -> list[Tensor]:
    return [pool for pool in ops.pool3x3(x) if pool is not None]


CALLS: dict[str, Call] = {
    "mixed_sum": lambda x, _d, _p, mixing: [
        ops.mixed_sum([x, x.sin(), x + 1], mixing[:, :3], normalize=[True] * 3).out
    ],
    "mixed_edges": lambda x, d, p, mixing: list(ops.mixed_edges(x, EDGES, d, p, mixing).sums),
    "relu_depthwise_conv2d": lambda x, d, _p, _m: list(
        ops.relu_depthwise_conv2d(x, d, dilations=[1, 2], normalize=True, groups=2).outputs
    ),
    "relu_separable_conv2d": lambda x, d, p, _m: list(
        ops.relu_separable_conv2d([x], d, p, dilations=[1, 2], normalize=True, groups=2).outputs
    ),
    "relu_pointwise_conv2d": lambda x, _d, p, _m: [ops.relu_pointwise_conv2d(x, p[:1], stride=2)],
    "grouped_batch_norm": lambda x, _d, _p, _m: [ops.grouped_batch_norm(x, groups=2, relu=True).out],
    "pool3x3": lambda x, _d, _p, _m: pools(x),
    "spawn_group": lambda x, _d, _p, _m: [ops.spawn_group(None, x, copies=2)],
    "recurrent_node": lambda x, _d, _p, mixing: [
        ops.recurrent_node(
            [x[:, 0, 0], x[:, 1, 0]], [x[:, 2, :2].flatten(1), x[:, 3, :2].flatten(1)], mixing.expand(2, 4)
        )
    ],
    "channel_iim": lambda x, _d, _p, _m: [ops.channel_iim([x, x.sin()])],
}


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=str)
def test_a_graph_that_is_replayed_gives_what_eager_code_gives(name: str, layout: torch.memory_format) -> None:
    def fresh(*shape: int) -> Tensor:
        made = torch.randn(shape, device="cuda")
        return made.contiguous(memory_format=layout) if len(shape) == 4 and shape[-1] > 1 else made

    leaves = [fresh(4, 8, 9, 8), fresh(8, 1, 3, 3), fresh(8, 1, 5, 5), fresh(8, 8, 1, 1), fresh(8, 8, 1, 1)]
    leaves = [leaf.requires_grad_() for leaf in [*leaves, torch.rand(1, 4, device="cuda")]]

    def step() -> list[Tensor]:
        outputs = CALLS[name](leaves[0], leaves[1:3], leaves[3:5], leaves[5])
        if not any(out.requires_grad for out in outputs):
            return outputs
        loss = torch.stack([out.square().sum() for out in outputs]).sum()
        return [*outputs, *(g for g in torch.autograd.grad(loss, leaves, allow_unused=True) if g is not None)]

    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(2):
            step()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = step()
    with torch.no_grad():
        for leaf in leaves:
            leaf.add_(0.25)
    graph.replay()
    for ours, theirs in zip(captured, step(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)

"""All differentiable ops in one function under torch.compile's default backend, forward and backward, in one graph."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
import torch
from torch import Tensor

from ddarts_ext import ops


def node(x: Tensor, weights: list[Tensor], pointwise: Tensor, mixing: Tensor) -> Tensor:
    """What a supernet does with a state: norms, convolutions, pools and their sum, with a cell taken away."""
    state = ops.grouped_batch_norm(x, relu=True).out
    outputs = ops.relu_depthwise_conv2d(state, weights, dilations=[1, 2]).outputs
    mixed = ops.relu_separable_conv2d([state], weights, [pointwise, pointwise], dilations=[1, 2]).outputs
    pools = [pool for pool in ops.pool3x3(state) if pool is not None]
    total = ops.mixed_sum([*outputs, *mixed, *pools], mixing, normalize=[True] * 6).out
    edges = ops.Edges((0, 0), (-1, 0), (False, True), (2,), (0,))
    (total,) = ops.mixed_edges(state, edges, weights, [pointwise, pointwise], mixing[:, :2], previous=[total]).sums
    return ops.spawn_group(ops.relu_pointwise_conv2d(total, [pointwise]), state)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=str)
def test_one_graph_with_the_numbers_of_eager(
    layout: torch.memory_format, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    torch.manual_seed(0)
    x = torch.randn(4, 8, 7, 8, dtype=torch.float64).contiguous(memory_format=layout)
    leaves = [x, torch.randn(8, 1, 3, 3), torch.randn(8, 1, 5, 5), torch.randn(8, 8, 1, 1), torch.rand(1, 6)]
    leaves = [leaf.double().requires_grad_() for leaf in leaves]
    torch._dynamo.reset()
    compiled = torch.compile(node, fullgraph=True)
    found = []
    for function in (node, compiled):
        out = function(leaves[0], leaves[1:3], leaves[3], leaves[4])
        found.append([out, *torch.autograd.grad(out.square().sum(), leaves)])
    for ours, theirs in itertools.zip_longest(*reversed(found)):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10)

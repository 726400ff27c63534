"""Whether products of float32 may be in TF32: torch's setting for convolutions, and on CUDA devices alone."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from ddarts_ext import ops
from ddarts_ext.ops import _checks


@pytest.fixture(params=["tf32", "ieee"])
def precision(request: pytest.FixtureRequest) -> Iterator[str]:
    before = torch.backends.cudnn.conv.fp32_precision
    torch.backends.cudnn.conv.fp32_precision = request.param
    yield request.param
    torch.backends.cudnn.conv.fp32_precision = before


def test_the_answer_is_torchs_setting_on_cuda_alone(precision: str) -> None:
    assert not _checks.tf32_allowed(torch.empty(1, device="cpu"))
    assert not _checks.tf32_allowed(torch.empty(1, device="meta"))
    with FakeTensorMode(allow_non_fake_inputs=True):
        x = torch.empty(1, device="cuda")
    assert _checks.tf32_allowed(x) is (precision == "tf32")


def test_compiled_code_can_ask(precision: str) -> None:
    def ask(x: Tensor) -> Tensor:
        return x + 1 if _checks._convolutions_in_tf32() else x - 1

    torch._dynamo.reset()
    asked = torch.compile(ask, fullgraph=True, backend="eager")
    assert asked(torch.zeros(1, device="cpu")).item() == (1 if precision == "tf32" else -1)


@pytest.mark.parametrize("allowed", [False, True])
def test_every_op_hands_it_on_and_its_backward_too(monkeypatch: pytest.MonkeyPatch, allowed: bool) -> None:
    """Seen where the kernels are called; on a CPU both give the same."""
    monkeypatch.setattr(_checks, "tf32_allowed", lambda x: allowed)
    seen: dict[str, Any] = {}
    for name in ("mixed_edges", "relu_pointwise_conv2d", "relu_separable_conv2d"):
        watch(monkeypatch, importlib.import_module(f"ddarts_ext.ops.{name}"), seen)
    x = torch.randn(2, 4, 6, 6, requires_grad=True)
    depthwise = [torch.randn(4, 1, 3, 3, requires_grad=True) for _ in range(2)]
    pointwise = [torch.randn(4, 4, 1, 1, requires_grad=True) for _ in range(2)]
    edges = ops.Edges(targets=(0,), kinds=(0,), normalize=(True,), dilations=(1,), seconds=(0,), stride=1)
    outputs = [
        ops.relu_pointwise_conv2d(x, pointwise[:1]),
        *ops.relu_separable_conv2d([x], depthwise, pointwise, dilations=[1, 1]).outputs,
        *ops.mixed_edges(x, edges, depthwise, pointwise, torch.ones(1, 1, requires_grad=True)).sums,
    ]
    torch.autograd.backward(outputs, [torch.ones_like(out) for out in outputs])
    assert len(seen) == 6
    assert all(value is allowed for value in seen.values()), seen


def watch(monkeypatch: pytest.MonkeyPatch, module: Any, seen: dict[str, Any]) -> None:
    """The last argument of the module's two ops, as it is given."""
    for name in ("_forward", "_backward_op"):
        call = getattr(module, name)

        def recorded(*args: Any, call: Any = call, key: str = f"{module.__name__}.{name}") -> Any:
            seen[key] = args[-1]
            return call(*args)

        monkeypatch.setattr(module, name, recorded)

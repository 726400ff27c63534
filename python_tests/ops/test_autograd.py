"""An op called in eager code goes straight to its node, and through the dispatcher where somebody has to see it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from ops.filters import normal
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from ddarts_ext.ops.mixed_sum import mixed_sum
from ddarts_ext.ops.pool3x3 import pool3x3
from ddarts_ext.ops.relu_depthwise_conv2d import relu_depthwise_conv2d

OPS: dict[str, Callable[[Tensor], Tensor]] = {
    "pool3x3": lambda x: pool3x3(x, average=False).maximum,  # type: ignore[dict-item, return-value]
    "mixed_sum": lambda x: mixed_sum([x, x.cos()], x.new_ones(2), normalize=[True, False]).out,
    "relu_depthwise_conv2d": lambda x: relu_depthwise_conv2d(x, [x.new_ones(3, 1, 3, 3)], dilations=[1]).outputs[0],
}


def image() -> Tensor:
    return normal((2, 3, 4, 5), torch.float64, 0)


def names(calls: list[Any]) -> set[str]:
    return {str(call).removeprefix("ddarts_ext.").split(".")[0] for call in calls}


@pytest.mark.parametrize("name", OPS)
def test_modes_see_the_op_and_change_nothing(name: str) -> None:
    class Functions(TorchFunctionMode):
        def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            seen.append(func)
            return func(*args, **(kwargs or {}))

    class Dispatches(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            seen.append(func)
            return func(*args, **(kwargs or {}))

    x = image().requires_grad_()
    expected = OPS[name](x)
    (gradient,) = torch.autograd.grad(expected.square().sum(), x)
    for mode in (Functions, Dispatches):
        seen: list[Any] = []
        with mode():
            out = OPS[name](x)
        assert name in names(seen)
        assert torch.equal(out, expected)
        assert torch.equal(torch.autograd.grad(out.square().sum(), x)[0], gradient)


@pytest.mark.parametrize("name", OPS)
def test_a_tensor_that_overrides_functions_is_asked(name: str) -> None:
    seen: list[Any] = []

    class Watched(Tensor):
        @classmethod
        def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            seen.append(func)
            return super().__torch_function__(func, types, args, kwargs or {})

    OPS[name](image().as_subclass(Watched).requires_grad_())
    assert name in names(seen)


@pytest.mark.parametrize("name", OPS)
def test_nothing_is_recorded_without_need(name: str) -> None:
    x = image()
    assert OPS[name](x).grad_fn is None
    with torch.no_grad():
        assert OPS[name](x.requires_grad_()).grad_fn is None
    node = OPS[name](x).grad_fn
    assert node is not None
    assert name in type(node).__name__  # node.name() is refused by torch 2.11


def test_a_graph_that_is_kept_gives_the_same_again() -> None:
    x = image().requires_grad_()
    out = OPS["mixed_sum"](x)
    first = torch.autograd.grad(out.sum(), x, retain_graph=True)
    assert torch.equal(torch.autograd.grad(out.sum(), x)[0], first[0])

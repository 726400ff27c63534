"""Stand-ins for a CUDA graph on a CPU, and searches and trainings that use them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten

from ddarts_ext.data.captured import CapturedSteps
from ddarts_ext.runs.graphs import Call, Recording


class CalledAgain:
    """A replay is another call, on the tensors that have their place."""

    def record(self, call: Call) -> None:
        self.replay: Call = call


class Tape:
    """A replay does the ops again that were seen, on the very tensors that they were seen with, and runs no Python of
    the step: what a CUDA graph does. A value that is read on the host cannot be recorded."""

    def __init__(self) -> None:
        self._ops: list[tuple[Any, Any, Any, Any]] = []
        self._done = False

    def record(self, call: Call) -> None:
        with _Seen(self._ops):
            call()
        self._done = True  # A graph that is captured has not run; here recording was the first run.

    @torch.no_grad()
    def replay(self) -> None:
        if self._done:
            self._done = False
            return
        for op, args, kwargs, results in self._ops:
            known = {_storage(t) for t in tree_flatten((args, kwargs))[0] if isinstance(t, Tensor)}
            again = tree_flatten(op(*args, **kwargs))[0]
            for result, new in zip(tree_flatten(results)[0], again, strict=True):
                if isinstance(result, Tensor) and _storage(result) not in known:
                    result.copy_(new)


class _Seen(TorchDispatchMode):
    def __init__(self, ops: list[tuple[Any, Any, Any, Any]]) -> None:
        super().__init__()
        self._ops = ops

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten._local_scalar_dense.default:
            raise RuntimeError("a value was read on the host")
        results = func(*args, **(kwargs or {}))
        self._ops.append((func, args, kwargs or {}, results))
        return results


class CountsCalls(TorchDispatchMode):
    """Calls of the host, whatever they do."""

    calls = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        CountsCalls.calls += 1
        return func(*args, **(kwargs or {}))


class Silent(Tape):
    """A replay is one call, whatever it does."""

    def replay(self) -> None:
        before = CountsCalls.calls
        super().replay()
        CountsCalls.calls = before + 1


def _storage(tensor: Tensor) -> int:
    return tensor.untyped_storage()._cdata


def with_graphs(run: Any, recording: Callable[[], Recording], patch: pytest.MonkeyPatch) -> Any:
    """The run, as it would be on a GPU, with stand-ins for its graphs."""
    vars(run)["_eager"] = None
    patch.setattr(CapturedSteps, "recording", lambda self: recording())
    return run


def held_by_graphs(module: nn.Module) -> list[str]:
    """Parameters of which some graph is still alive: the node that sums a parameter's gradients lives as long as a
    graph refers to it. On a GPU it sums on the stream on which it was made, and a capture on another one fails."""
    found = []
    for name, parameter in module.named_parameters():
        _summing(parameter).metadata["seen"] = True
        if "seen" in _summing(parameter).metadata:
            found.append(name)
    return found


def _summing(parameter: Tensor) -> Any:
    return parameter.view_as(parameter).grad_fn.next_functions[0][0]  # type: ignore[union-attr]

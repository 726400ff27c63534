"""Stand-ins for a CUDA graph on a CPU, and searches that use them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten

from ddarts_ext.runs.graphs import Call, Recording
from ddarts_ext.search.captured import CapturedIterations


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
        # detach: the step goes on with these tensors, and what it does to them is not done again by the tape.
        self._ops.append((func, args, kwargs or {}, results))
        return results


def _storage(tensor: Tensor) -> int:
    return tensor.untyped_storage()._cdata


def with_graphs(run: Any, recording: Callable[[], Recording], patch: pytest.MonkeyPatch) -> Any:
    """The run, as it would be on a GPU, with stand-ins for its graphs."""
    vars(run)["_eager"] = None
    patch.setattr(CapturedIterations, "recording", lambda self: _drawn(self) or recording())
    return run


def _drawn(iterations: CapturedIterations) -> None:
    iterations._drawn = iterations.stepper.state.augmentation.get_state()

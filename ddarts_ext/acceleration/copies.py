"""Copies on which a replacement is proved, and the random states that a proof must not disturb."""

from __future__ import annotations

import copy
import random
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy
import torch
from torch import Tensor, nn

from ddarts_ext.acceleration.plan import HOOKS

_IMMUTABLE = (int, float, bool, str, type(None), torch.dtype, torch.device)
_TABLES = ("_parameters", "_buffers", "_modules")


@contextmanager
def undisturbed() -> Iterator[None]:
    """Restores every random state."""
    states = torch.get_rng_state(), random.getstate(), numpy.random.get_state()
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else None  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        torch.set_rng_state(states[0])
        random.setstate(states[1])
        numpy.random.set_state(states[2])
        if cuda is not None:
            torch.cuda.set_rng_state_all(cuda)


class Copy:
    """A deep copy of a module without hooks and gradients, so that a proof shows the user's hooks nothing.

    dtype: of its floating parameters and buffers. ``copy[module]`` is the copy of a module inside, or of one that an
    attribute of it holds.
    """

    def __init__(self, module: nn.Module, dtype: torch.dtype = torch.float64) -> None:
        self._memo: dict[int, Any] = {}
        self._dtype = dtype
        originals = list(module.modules())
        for inner in originals:  # all shells first: attributes may lead to any of them
            if _is_ordinary(inner):
                self._memo[id(inner)] = type(inner).__new__(type(inner))
        for inner in originals:
            if _is_ordinary(inner):
                self._fill(inner)
        self.module = self[module]

    def __getitem__(self, module: nn.Module) -> nn.Module:
        if id(module) not in self._memo:
            self._memo[id(module)] = copy.deepcopy(module, self._memo).to(self._dtype)
        made: nn.Module = self._memo[id(module)]
        return made

    def _fill(self, module: nn.Module) -> None:
        state = dict(module.__dict__)
        for name in HOOKS:
            if name in state:
                state[name] = OrderedDict()
        state["_parameters"] = {name: self._tensor(tensor) for name, tensor in module._parameters.items()}
        state["_buffers"] = {name: self._tensor(tensor) for name, tensor in module._buffers.items()}
        state["_modules"] = {name: None if child is None else self[child] for name, child in module._modules.items()}
        for name, value in state.items():
            if name not in _TABLES and type(value) not in _IMMUTABLE:
                state[name] = self._attribute(value)
        self._memo[id(module)].__dict__.update(state)

    def _attribute(self, value: Any) -> Any:
        if isinstance(value, Tensor):
            return self._tensor(value)
        if type(value) in (dict, list, set, OrderedDict) and not value:
            return type(value)()
        if type(value) is tuple and all(type(entry) in _IMMUTABLE for entry in value):
            return value
        return copy.deepcopy(value, self._memo)

    def _tensor(self, tensor: Tensor | None) -> Tensor | None:
        if tensor is None or id(tensor) in self._memo:
            return None if tensor is None else self._memo[id(tensor)]
        made = tensor.detach().to(self._dtype if tensor.is_floating_point() else tensor.dtype, copy=True)
        if type(tensor) is not Tensor and isinstance(tensor, nn.Parameter):
            made = nn.Parameter(made, requires_grad=tensor.requires_grad)
        elif tensor.is_leaf:
            made.requires_grad_(tensor.requires_grad)
        self._memo[id(tensor)] = made
        return made


def _is_ordinary(module: nn.Module) -> bool:
    """Whether nothing special happens when the module is copied."""
    cls = type(module)
    return (
        not hasattr(cls, "__deepcopy__")
        and ("_ddarts_base" in cls.__dict__ or cls.__reduce_ex__ is object.__reduce_ex__)
        and (cls.__setstate__ is nn.Module.__setstate__ or issubclass(cls, nn.Conv2d))
        and getattr(cls, "__getstate__", None) is getattr(nn.Module, "__getstate__", None)
        and not isinstance(module, torch.jit.ScriptModule)
    )


def scramble(module: nn.Module) -> None:
    """Give norms statistics and affine parameters that a wrong forward cannot hide behind."""
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for inner in module.modules():
            if not isinstance(inner, nn.BatchNorm2d):
                continue
            for tensor in (inner.running_mean, inner.running_var, inner.weight, inner.bias):
                if tensor is not None:
                    tensor.copy_(torch.rand(tensor.shape, generator=generator, dtype=torch.float64) + 0.5)

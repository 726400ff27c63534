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

_IMMUTABLE = frozenset((int, float, bool, str, type(None), torch.dtype, torch.device))
_CONTAINERS = frozenset((dict, list, set, OrderedDict))


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
        ordinary = {cls for cls in set(map(type, originals)) if _is_ordinary(cls)}
        originals = [inner for inner in originals if type(inner) in ordinary]
        for inner in originals:  # all shells first: attributes may lead to any of them
            self._memo[id(inner)] = type(inner).__new__(type(inner))
        for inner in originals:
            self._fill(inner)
        self.module = self[module]

    def __getitem__(self, module: nn.Module) -> nn.Module:
        if id(module) not in self._memo:
            self._memo[id(module)] = copy.deepcopy(module, self._memo).to(self._dtype)
        made: nn.Module = self._memo[id(module)]
        return made

    def _fill(self, module: nn.Module) -> None:
        state = self._memo[id(module)].__dict__
        for name, value in module.__dict__.items():
            kind = type(value)
            if kind in _IMMUTABLE:
                state[name] = value
            elif name in HOOKS or (kind in _CONTAINERS and not value):
                state[name] = kind()
            elif name == "_modules":
                state[name] = {key: None if child is None else self[child] for key, child in value.items()}
            elif name in ("_parameters", "_buffers"):
                state[name] = {key: self._tensor(tensor) for key, tensor in value.items()}
            else:
                state[name] = self._attribute(value)

    def _attribute(self, value: Any) -> Any:
        if isinstance(value, Tensor):
            return self._tensor(value)
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


def _is_ordinary(cls: type[nn.Module]) -> bool:
    """Whether nothing special happens when a module of the class is copied."""
    return (
        not hasattr(cls, "__deepcopy__")
        and ("_ddarts_base" in cls.__dict__ or cls.__reduce_ex__ is object.__reduce_ex__)
        and (cls.__setstate__ is nn.Module.__setstate__ or issubclass(cls, nn.Conv2d))
        and getattr(cls, "__getstate__", None) is getattr(nn.Module, "__getstate__", None)
        and not issubclass(cls, torch.jit.ScriptModule)
    )


def scramble(module: nn.Module) -> None:
    """Give norms statistics and affine parameters that a wrong forward cannot hide behind."""
    norms = [inner for inner in module.modules() if isinstance(inner, nn.BatchNorm2d)]
    tensors = [t for norm in norms for t in (norm.running_mean, norm.running_var, norm.weight, norm.bias)]
    found = [tensor for tensor in tensors if tensor is not None]
    sizes, generator = [len(tensor) for tensor in found], torch.Generator().manual_seed(5)
    values = torch.rand(sum(sizes), generator=generator, dtype=torch.float64) + 0.5
    with torch.no_grad():
        for tensor, row in zip(found, torch.split_with_sizes(values, sizes), strict=True):
            tensor.copy_(row)

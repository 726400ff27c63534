"""Arguments on which a module is proved: guessed from its structure, or seen in a run of the whole model."""

from __future__ import annotations

import copy
import inspect
import itertools
import random
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy
import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from ddarts_ext.acceleration.plan import HOOKS
from ddarts_ext.acceleration.recognise import Mixing

_BATCH, _HEIGHT, _WIDTH = 4, 10, 6  # sides differ from each other and from usual numbers of ops and edges
_ATTEMPTS = 300
Arguments = tuple[Any, ...]


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


def silent_copy(module: nn.Module) -> nn.Module:
    """A deep copy in float64 without hooks, so that a proof shows the user's hooks nothing."""
    memo: dict[int, Any] = {}
    for inner in module.modules():
        for name in HOOKS:
            if name in inner.__dict__:
                memo[id(inner.__dict__[name])] = OrderedDict()
        for parameter in inner.parameters(recurse=False):
            if parameter.grad is not None:
                memo[id(parameter.grad)] = None
    made = copy.deepcopy(module, memo).double()
    for parameter in made.parameters():
        parameter.grad = None
    return made


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


def guess(found: Mixing, method: str, scout: nn.Module, device: torch.device) -> list[Arguments]:
    """Arguments that the method of ``scout``, a copy, accepts: the likeliest, and those with each flag the other way.

    float64; a second set that was guessed rightly shows a second path through the code.
    """
    call = getattr(scout, method)
    try:
        parameters = [
            parameter
            for parameter in inspect.signature(call).parameters.values()
            if parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD)
        ]
    except (TypeError, ValueError):
        return []
    needed = [p for p in parameters if p.default is inspect.Parameter.empty]
    scout.eval()
    backwards = itertools.product(*reversed(_choices(found, len(needed), device)))  # feature maps vary first
    for combination in (attempt[::-1] for attempt in itertools.islice(backwards, _ATTEMPTS)):
        if not accepts(call, combination):
            continue
        sets = [combination]
        for i, value in enumerate(combination):
            if isinstance(value, bool):
                sets.append((*combination[:i], not value, *combination[i + 1 :]))
        for i, parameter in enumerate(parameters[len(needed) :]):
            if isinstance(parameter.default, bool) and len(parameters) == len(needed) + i + 1:
                defaults = [p.default for p in parameters[len(needed) : len(needed) + i]]
                sets.append((*combination, *defaults, not parameter.default))
        return [sets[0], *(other for other in sets[1:] if accepts(call, other))]
    return []


def accepts(call: Callable[..., Any], arguments: Arguments) -> bool:
    """Whether the call takes the arguments and returns a tensor."""
    try:
        with torch.no_grad(), undisturbed():
            result = call(*arguments)
    except Exception:
        return False
    return any(isinstance(leaf, Tensor) for leaf in pytree.tree_leaves(result))


def _choices(found: Mixing, needed: int, device: torch.device) -> list[list[Any]]:
    """For every parameter that needs a value, what it may be, likeliest first."""
    generator = torch.Generator().manual_seed(7)

    def features(channels: int, scale: int = 1) -> Tensor:
        size = (_BATCH, channels, scale * _HEIGHT, scale * _WIDTH)
        return torch.randn(size, generator=generator, dtype=torch.float64).to(device)

    def weights(*shape: int) -> Tensor:
        return (torch.rand(shape, generator=generator, dtype=torch.float64) + 0.1).to(device)

    channels = found.channels
    if len(channels) > 1:
        choices: list[list[Any]] = [[features(c), features(c, 2)] for c in channels]
    else:
        choices = [[features(channels[0] * share) for share in (1, 4, 2, 8)]]
    vector, table = weights(found.width), weights(found.edges, found.width)
    index = [row % found.width for row in range(found.edges)]
    hard = torch.zeros_like(table).scatter_(1, torch.tensor(index, device=device).view(-1, 1), 1.0)
    others = [weights(found.edges), True, 0.5, None]
    if found.kind == "cell":
        rest = [[table, hard, vector, *others], [index, weights(found.edges), True, 0.5, None]]
    else:
        rest = [[vector, table, *others], [True, weights(found.width), 0.5, None]]
    while len(choices) < needed:
        choices.append(rest.pop(0) if len(rest) > 1 else rest[0])
    return choices[:needed]


def observed(model: nn.Module, founds: Sequence[Mixing], example: Any) -> dict[tuple[nn.Module, str], list[Arguments]]:
    """The arguments of every method of ``founds`` while the model runs on the example; its state is put back after."""
    seen: dict[tuple[nn.Module, str], list[Arguments]] = {}
    buffers = [(buffer, buffer.clone()) for buffer in model.buffers()]
    named = [(found.module, name) for found in founds for name in found.methods()]
    watched = [(module, name) for module, name in named if name not in module.__dict__]
    for module, name in watched:
        module.__dict__[name] = _recorder(module, name, seen)
    try:
        with torch.no_grad(), undisturbed():
            if isinstance(example, dict):
                model(**example)
            else:
                model(*(example if isinstance(example, tuple | list) else (example,)))
    finally:
        for module, name in watched:
            del module.__dict__[name]
        with torch.no_grad():
            for buffer, before in buffers:
                buffer.copy_(before)
    return seen


def _recorder(module: nn.Module, name: str, seen: dict[tuple[nn.Module, str], list[Arguments]]) -> Callable[..., Any]:
    call = getattr(module, name)

    def record(*args: Any, **kwargs: Any) -> Any:
        if not kwargs and not seen.get((module, name)):
            seen[module, name] = [pytree.tree_map(_double, args)]
        return call(*args, **kwargs)

    return record


def _double(leaf: Any) -> Any:
    if not isinstance(leaf, Tensor):
        return leaf
    return leaf.detach().double() if leaf.is_floating_point() else leaf.detach().clone()

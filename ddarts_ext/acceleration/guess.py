"""Arguments for a method, guessed from the structure of its module."""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from ddarts_ext.acceleration.calls import Call, accepts
from ddarts_ext.acceleration.recognise import Mixing

_BATCH, _HEIGHT, _WIDTH = 2, 10, 6  # sides differ from each other and from usual numbers of ops and edges
_ATTEMPTS = 300
Parameters = Sequence[inspect.Parameter]


def guess(found: Mixing, method: str, scout: nn.Module, device: torch.device) -> tuple[list[Call], int]:
    """Calls that the method of ``scout``, a copy, accepts, and which of the :func:`trials` the first one is.

    The likeliest comes first; others that are accepted (a flag the other way) may lead another way through the code.
    """
    call = getattr(scout, method)
    scout.eval()
    for i, first in enumerate(trials(found, call, device)):
        if accepts(call, first):
            others = _others(first, _parameters(call))
            return [first, *(other for other in others if accepts(call, other))], i
    return [], 0


def trials(found: Mixing, call: Callable[..., Any], device: torch.device) -> Iterator[Call]:
    """Calls that the method may accept, likeliest first, in float64.

    Parameters without a default get a value; where that is not enough, those that are None by default get one, too.
    """
    parameters = _parameters(call)
    required = [p for p in parameters if p.default is p.empty]
    absent = [p for p in parameters if p.default is None]
    for needed in (required, [p for p in parameters if p in required or p in absent]) if absent else (required,):
        backwards = itertools.product(*reversed(_choices(found, needed, device)))  # feature maps vary first
        for attempt in itertools.islice(backwards, _ATTEMPTS):
            yield _call(needed, attempt[::-1])


def _parameters(call: Callable[..., Any]) -> list[inspect.Parameter]:
    named = inspect.signature(call).parameters.values()
    if any(p.kind is p.VAR_POSITIONAL for p in named) and all(p.default is not p.empty for p in named if p.kind < 2):
        return [inspect.Parameter("x", inspect.Parameter.POSITIONAL_ONLY)]  # whatever it gets goes to its ops
    return [p for p in named if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]


def _call(parameters: Parameters, values: Sequence[Any]) -> Call:
    """By place as long as no parameter is left out, then by name."""
    pairs = list(zip(parameters, values, strict=True))
    by_place = [value for p, value in pairs if p.kind is not p.KEYWORD_ONLY and p.default is p.empty]
    by_name = {p.name: value for p, value in pairs if p.kind is p.KEYWORD_ONLY or p.default is not p.empty}
    return Call(tuple(by_place), by_name)


def _others(first: Call, parameters: Parameters) -> Iterator[Call]:
    for i, value in enumerate(first.args):
        if isinstance(value, bool):
            yield replace(first, args=(*first.args[:i], not value, *first.args[i + 1 :]))
        elif isinstance(value, int):
            for flag in (True, False):
                yield replace(first, args=(*first.args[:i], flag, *first.args[i + 1 :]))
    for parameter in parameters:
        name, default = parameter.name, parameter.default
        if isinstance(default, bool) and parameter.kind is not parameter.POSITIONAL_ONLY:
            yield replace(first, kwargs=first.kwargs | {name: not first.kwargs.get(name, default)})


def _choices(found: Mixing, needed: Parameters, device: torch.device) -> list[list[Any]]:
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
    numbers = [2, 1, True, 0.5, None]
    if found.kind == "cell":
        lists = [[weights(edges, found.width) for edges in found.groups]] if len(found.groups) > 1 else []
        rest: list[list[Any]] = [
            [*lists, table, hard, vector, weights(found.edges), *numbers],
            [index, weights(found.edges), *numbers],
        ]
    else:
        rest = [[vector, table, *numbers], [*numbers[:2], weights(found.width), *numbers[2:]]]
    while len(choices) < len(needed):
        choices.append(rest.pop(0) if len(rest) > 1 else rest[0])
    return [_fitting(p, values) for p, values in zip(needed, choices, strict=False)]


def _fitting(parameter: inspect.Parameter, values: list[Any]) -> list[Any]:
    """Those that the parameter's annotation allows, if it names a number or a flag; all where none is left."""
    kinds: dict[Any, Callable[[Any], bool]] = {
        "bool": lambda value: isinstance(value, bool),
        "int": lambda value: isinstance(value, int) and not isinstance(value, bool),
        "float": lambda value: isinstance(value, float),
    }
    named = getattr(parameter.annotation, "__name__", parameter.annotation)
    allowed = kinds.get(named) if isinstance(named, str) else None
    return [value for value in values if allowed is None or allowed(value)] or values

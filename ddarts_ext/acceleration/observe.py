"""A run of the whole model that tells which methods it reaches, and with what arguments."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from ddarts_ext.acceleration.calls import Call, is_map
from ddarts_ext.acceleration.copies import Copy, undisturbed
from ddarts_ext.acceleration.layers import channels_of
from ddarts_ext.acceleration.recognise import methods_of

Seen = dict[tuple[nn.Module, str], Call]
_IMAGES = (4, 32, 32)  # how many, and their sides
_VALUES = 2048  # of a channel in a few images: a gain that is clear there is one with more images as well


def observed_on_few(model: nn.Module, modules: Sequence[nn.Module], example: Any) -> Seen:
    """As :func:`observed`, on fewer images than the example has; nothing where that is not enough.

    It is not where there are no more, where the model does not take fewer, or where they do not reach all modules.
    """
    given = Call((example,))
    few = given.map(_few)
    if [x.shape for x in few.tensors()] == [x.shape for x in given.tensors()]:
        return {}
    try:
        seen = observed(model, modules, few.args[0])
    except Exception:  # of whatever kind the model raises
        return {}
    return seen if {module for module, _ in seen} == set(modules) else {}


def _few(x: Tensor) -> Tensor:
    return x[: max(2, -(-_VALUES // (x.shape[2] * x.shape[3])))] if is_map(x) else x


def observed(model: nn.Module, modules: Sequence[nn.Module], example: Any) -> Seen:
    """The first call of every method of ``modules`` while the model runs on the example; its state is put back."""
    buffers = [(buffer, buffer.clone()) for buffer in model.buffers()]
    try:
        with _watched(modules) as seen, torch.no_grad(), undisturbed():
            if isinstance(example, dict):
                model(**example)
            else:
                model(*(example if isinstance(example, tuple | list) else (example,)))
    finally:
        with torch.no_grad():
            for buffer, before in buffers:
                buffer.copy_(before)
    return seen


def observed_on_images(model: nn.Module, modules: Sequence[nn.Module]) -> Seen:
    """The same on a copy of a model that takes nothing but images; nothing where it turns out not to."""
    try:
        parameters = inspect.signature(model.forward).parameters.values()
        if (
            sum(p.default is p.empty and p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD) for p in parameters)
            != 1
        ):
            return {}
        copied = Copy(model, torch.float32)
        device = next((tensor.device for tensor in model.parameters()), torch.device("cpu"))
        generator = torch.Generator().manual_seed(17)
        count, *sides = _IMAGES
        images = torch.randn((count, channels_of(model), *sides), generator=generator).to(device)
        originals = {copied[module]: module for module in modules}
        with _watched(list(originals)) as seen, torch.no_grad(), undisturbed():
            copied.module(images)
    except Exception:
        return {}
    return {(originals[module], name): call for (module, name), call in seen.items()}


@contextmanager
def _watched(modules: Sequence[nn.Module]) -> Iterator[Seen]:
    seen: Seen = {}
    methods = [(module, name) for module in modules for name in methods_of(module) if name not in module.__dict__]
    for module, name in methods:
        module.__dict__[name] = _recorder(module, name, seen)
    try:
        yield seen
    finally:
        for module, name in methods:
            del module.__dict__[name]


def _recorder(module: nn.Module, name: str, seen: Seen) -> Callable[..., Any]:
    call = getattr(module, name)

    def record(*args: Any, **kwargs: Any) -> Any:
        if (module, name) not in seen:
            seen[module, name] = Call(args, kwargs).map(_kept)
        return call(*args, **kwargs)

    return record


def _kept(tensor: Tensor) -> Tensor:
    return tensor.detach().clone(memory_format=torch.preserve_format)

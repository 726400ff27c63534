"""``accelerate`` and ``restore``: the walk through a model."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from numbers import Real
from typing import Any

import torch
from torch import nn

from ddarts_ext.acceleration.classes import unroute
from ddarts_ext.acceleration.gain import LEAST
from ddarts_ext.acceleration.recognise import Recogniser
from ddarts_ext.acceleration.report import Report
from ddarts_ext.acceleration.walk import Walk


def accelerate(model: nn.Module, example_input: Any = None, strict: bool = False, least_gain: float = LEAST) -> Report:
    """Route the mixed ops and cells inside ``model`` through the kernels, in place; :func:`restore` undoes it.

    They are found by structure, and each is proved before it is kept: on copies in float64 the old and the new forward
    must agree in outputs, all gradients, running statistics and random state, in train and eval mode. One that does not
    stays as it was, and the report says why. Parameters, buffers, ``state_dict``, hooks and the user's own forward code
    stay: only what the ops return is summed differently.

    The first module of a class is proved in full and timed, one with other settings without gradients in eval mode, and
    one that differs in channels alone by a forward. What is not at least ``least_gain`` times as fast as before is left
    as it was. A second call takes what is new.

    example_input: what the model takes (a tensor, a tuple of arguments, or a dict of named ones). The modules are then
    proved, and timed, on what they get from it instead of on guessed arguments, and only in the methods that it
    reaches; the model's buffers and random states are put back after the run.
    strict: raise ValueError, and leave the model as it was, unless everything that looks replaceable was replaced.
    least_gain: 0 keeps whatever is proved, without timing it.

    Returns a :class:`Report`. Raises TypeError for a model that is no module, ValueError for an example_input that the
    model does not take and for a least_gain below 0.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"accelerate: model must be a torch.nn.Module, got {type(model).__name__}")
    if not isinstance(least_gain, Real) or not least_gain >= 0:
        raise ValueError(f"accelerate: least_gain must be a number >= 0, got {least_gain!r}")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # probes are too small to share
    try:
        with unwatched_by_the_collector():
            walk = Walk(model, example_input, least_gain, threads)
            report = walk.run()
    finally:
        torch.set_num_threads(threads)
    if strict and (report.left or not (report.replaced or report.already)):
        for module in walk.accepted:
            _undo(module)
        raise ValueError(f"accelerate: model must be replaceable as a whole with strict=True, got {report}")
    return report


def restore(model: nn.Module) -> nn.Module:
    """Undo :func:`accelerate`; returns the model, whose parameters and buffers are left as they are now."""
    if not isinstance(model, nn.Module):
        raise TypeError(f"restore: model must be a torch.nn.Module, got {type(model).__name__}")
    _undo(model)
    return model


@contextmanager
def unwatched_by_the_collector() -> Iterator[None]:
    """Copies make so many objects that looking for garbage among all that exist would take most of the time."""
    frozen = gc.get_freeze_count() > 0
    if not frozen:
        gc.freeze()
    try:
        yield
    finally:
        if not frozen:
            gc.unfreeze()


def _undo(module: nn.Module) -> None:
    ops = [op for inner in module.modules() for found in Recogniser().of(inner) if found.adapter for op in found.ops]
    for inner in (*ops, *module.modules()):
        unroute(inner)

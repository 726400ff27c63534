"""Torch's functions on sums that are not taken yet: what is linear in them only notes terms."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ddarts_ext.acceleration.deferred import HANDLERS, Deferred
from ddarts_ext.acceleration.mixture import Accumulated, Mixture


def binary(*functions: Callable[..., Any]) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Registers a handler of two operands and no options."""

    def register(handler: Callable[..., Any]) -> Callable[..., Any]:
        def handle(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            return handler(*args) if len(args) == 2 and not kwargs else NotImplemented

        HANDLERS.update(dict.fromkeys(functions, handle))
        return handler

    return register


@binary(Tensor.mul, Tensor.multiply, torch.mul, torch.multiply, Tensor.__rmul__)
def _mul(a: Any, b: Any) -> Any:
    if isinstance(a, Deferred):
        return a * b
    return b * a if isinstance(b, Deferred) else NotImplemented


@binary(Tensor.div, Tensor.divide, Tensor.true_divide, torch.div, torch.divide, torch.true_divide)
def _div(a: Any, b: Any) -> Any:
    return a / b if isinstance(a, Deferred) else NotImplemented


def _added(args: tuple[Any, ...], kwargs: dict[str, Any], sign: int = 1) -> Any:
    if len(args) != 2 or not _mixed(*args) or kwargs.keys() - {"alpha"}:
        return NotImplemented
    (a, b), alpha = args, kwargs.get("alpha", 1)
    if alpha != 1:
        b = b.scaled(alpha) if isinstance(b, Mixture) else b * alpha
    if isinstance(a, Mixture):
        return a.plus(b, sign)
    return (b if sign > 0 else b.scaled(-1)).plus(a) if b.open() else NotImplemented


def _accumulated(args: tuple[Any, ...], kwargs: dict[str, Any], sign: int = 1) -> Any:
    """``out += mixture``: a tensor that nothing else is known to see, and that no gradient flows through."""
    if len(args) != 2 or kwargs or not isinstance(args[1], Mixture):
        return NotImplemented
    out, added = args
    if type(out) is not Tensor or not added.open() or not added.alike(out) or out.requires_grad or out._is_view():
        return NotImplemented
    return Accumulated(out, added if sign > 0 else added.scaled(-1))


def _minus(handler: Callable[..., Any]) -> Callable[..., Any]:
    return lambda args, kwargs: handler(args, kwargs, -1)


HANDLERS |= dict.fromkeys((Tensor.add, torch.add), _added)
HANDLERS |= dict.fromkeys((Tensor.sub, Tensor.subtract, torch.sub, torch.subtract), _minus(_added))
HANDLERS |= {Tensor.add_: _accumulated, Tensor.sub_: _minus(_accumulated)}
HANDLERS |= dict.fromkeys(
    (Tensor.neg, Tensor.negative, torch.neg, torch.negative, Tensor.__neg__),
    lambda args, kwargs: args[0].scaled(-1) if isinstance(args[0], Mixture) and not kwargs else NotImplemented,
)


def _mixed(a: Any, b: Any) -> bool:
    return isinstance(a, Mixture) or isinstance(b, Mixture)

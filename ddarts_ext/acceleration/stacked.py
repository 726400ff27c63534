"""Sums that are written as a stack of outputs, multiplied by weights and summed over the stack."""

from __future__ import annotations

import functools
import operator
from typing import Any

import torch
from torch import Tensor

from ddarts_ext.acceleration.deferred import HANDLERS, Deferred, plain
from ddarts_ext.acceleration.mixture import Mixture


class Stacked(Deferred):
    """``torch.stack(mixtures, axis)`` of K mixtures [N,C,H,W]."""

    __slots__ = ("_value", "axis", "mixtures")

    def __init__(self, mixtures: list[Mixture], axis: int) -> None:
        self.mixtures, self.axis = mixtures, axis
        self._value: Tensor | None = None

    def value(self) -> Tensor:
        """The stack as a tensor, made once."""
        if self._value is None:
            self._value = torch.stack([mixture.value() for mixture in self.mixtures], self.axis)
        return self._value

    @property
    def shape(self) -> torch.Size:
        sizes = list(self.mixtures[0].shape)
        return torch.Size([*sizes[: self.axis], len(self.mixtures), *sizes[self.axis :]])

    def size(self, dim: int | None = None) -> Any:
        return self.shape if dim is None else self.shape[dim]

    def dim(self) -> int:
        return 5

    def __len__(self) -> int:
        return self.shape[0]

    def scaled(self, factor: Any, over: bool = False) -> Any:
        """Times, or over, a factor of its own for every mixture, or one for all."""
        factor = plain(factor)
        count = len(self.mixtures)
        if isinstance(factor, int | float):
            factors: list[Any] = [factor] * count
        elif isinstance(factor, Tensor) and self._along(factor):
            factors = list(factor.reshape(-1).unbind(0)) if factor.numel() == count else [factor.reshape(())] * count
        else:
            return self.value() / factor if over else self.value() * factor
        pairs = zip(self.mixtures, factors, strict=True)
        changed = [m.scaled(None, over=f) if over else m.scaled(f) for m, f in pairs]
        if all(isinstance(mixture, Mixture) for mixture in changed):
            return Stacked(changed, self.axis)
        return torch.stack(plain(changed), self.axis)

    def _along(self, factor: Tensor) -> bool:
        """Whether the factor broadcasts along the stack only."""
        if factor.dim() > 5:
            return False
        sizes = [*[1] * (5 - factor.dim()), *factor.shape]
        return all(size == 1 or (d == self.axis and size == len(self.mixtures)) for d, size in enumerate(sizes))

    def summed(self, dim: Any, mean: bool = False) -> Any:
        """The sum, or the mean, over ``dim``: of the mixtures if it is the stack's, else NotImplemented."""
        dim = dim[0] if isinstance(dim, tuple | list) and len(dim) == 1 else dim
        if not isinstance(dim, int) or dim % 5 != self.axis:
            return NotImplemented
        total = functools.reduce(operator.add, self.mixtures)
        return total / len(self.mixtures) if mean else total

    def sum(self, *args: Any, **kwargs: Any) -> Any:
        return torch.sum(self, *args, **kwargs)  # type: ignore[call-overload]

    def mean(self, *args: Any, **kwargs: Any) -> Any:
        return torch.mean(self, *args, **kwargs)  # type: ignore[call-overload]

    def mul(self, other: Any) -> Any:
        return self.scaled(other)

    def div(self, other: Any) -> Any:
        return self.scaled(other, over=True)

    __mul__ = __rmul__ = multiply = mul
    __truediv__ = div


def _stack(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    options = dict(zip(("tensors", "dim"), args, strict=False)) | kwargs
    tensors, dim = options.pop("tensors", ()), options.pop("dim", 0)
    alike = isinstance(tensors, tuple | list) and all(
        isinstance(one, Mixture) and one.open() and one.shape == tensors[0].shape for one in tensors
    )
    return Stacked(list(tensors), dim % 5) if alike and tensors and not options else NotImplemented


def _reduction(mean: bool) -> Any:
    def handle(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        options = dict(zip(("input", "dim"), args, strict=False)) | kwargs
        stacked, dim = options.pop("input", None), options.pop("dim", None)
        if len(args) > 2 or options or not isinstance(stacked, Stacked):
            return NotImplemented
        return stacked.summed(dim, mean)

    return handle


def _einsum(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """``k,kbchw->bchw`` and the like, with any letters and in either order."""
    operands = args[1] if len(args) == 2 and isinstance(args[1], tuple | list) else args[1:]
    if kwargs or len(operands) != 2 or not isinstance(args[0], str):
        return NotImplemented
    inputs, arrow, output = args[0].replace(" ", "").replace("...", "....").partition("->")
    terms = dict(zip(inputs.split(","), operands, strict=False))
    names = sorted(terms, key=len)
    if not arrow or len(names) != 2 or len(names[0]) != 1 or not isinstance(terms[names[1]], Stacked):
        return NotImplemented
    letter, stack = names
    stacked, weights = terms[stack], plain(terms[letter])
    if len(stack) != 5 or stack.replace(letter, "") != output or stack.find(letter) != stacked.axis:
        return NotImplemented
    return _weighted(stacked, weights)


def _tensordot(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    options = dict(zip(("a", "b", "dims", "out"), args, strict=False)) | kwargs
    weights, stacked, dims = options.get("a"), options.get("b"), options.get("dims", 2)
    first = dims == 1 or dims in (([0], [0]), [[0], [0]], ((0,), (0,)))
    if options.get("out") is not None or not first or not isinstance(stacked, Stacked) or stacked.axis != 0:
        return NotImplemented
    return _weighted(stacked, plain(weights))


def _weighted(stacked: Stacked, weights: Any) -> Any:
    if not isinstance(weights, Tensor) or tuple(weights.shape) != (len(stacked.mixtures),):
        return NotImplemented
    pairs = zip(stacked.mixtures, weights.unbind(0), strict=True)
    return functools.reduce(operator.add, [mixture * weight for mixture, weight in pairs])


HANDLERS |= {torch.stack: _stack, torch.einsum: _einsum, torch.tensordot: _tensordot}
HANDLERS |= dict.fromkeys((torch.sum, Tensor.sum), _reduction(mean=False))
HANDLERS |= dict.fromkeys((torch.mean, Tensor.mean), _reduction(mean=True))

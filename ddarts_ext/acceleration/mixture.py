"""Weighted sums that are not taken yet.

Inside an accelerated module every op returns a :class:`Mixture` instead of a tensor. The user's own code multiplies it
by weights and adds it to others, which only notes terms; as soon as anything else is asked of it, it becomes a tensor,
by one ``mixed_sum`` over all of its terms with their batch norms folded in.
"""

from __future__ import annotations

import weakref
from typing import Any

import torch
from torch import Tensor

from ddarts_ext.acceleration.branch import Branch, Pass
from ddarts_ext.acceleration.deferred import Deferred, plain
from ddarts_ext.acceleration.sums import Weight, take


class Mixture(Deferred):
    """sum of weight * branch, plus numbers."""

    __slots__ = ("_value", "branches", "numbers", "shared", "weights")

    def __init__(self, shared: Pass, branches: list[Branch], weights: list[Weight], numbers: list[Weight]) -> None:
        self.shared, self.branches, self.weights, self.numbers = shared, branches, weights, numbers
        self._value: Tensor | None = None

    def value(self) -> Tensor:
        """The sum as a tensor, taken once."""
        if self._value is None:
            self._value = self._sum(self.branches, self.weights)
        return self._value

    def open(self) -> bool:
        """Whether terms may still be noted."""
        return self._value is None

    def _sum(self, branches: list[Branch], weights: list[Weight]) -> Tensor:
        out = take(self.shared, branches, weights)
        for number in self.numbers:
            out = out if number is None else out + number
        return out

    @property
    def shape(self) -> torch.Size:
        return self.branches[0].shape

    @property
    def device(self) -> torch.device:
        return self.branches[0].source.device

    @property
    def ndim(self) -> int:
        return len(self.shape)

    def size(self, dim: int | None = None) -> Any:
        return self.shape if dim is None else self.shape[dim]

    def dim(self) -> int:
        return len(self.shape)

    def scaled(self, factor: Any, over: Any = None) -> Any:
        """self * factor, or self / over: noted where that is one number, else taken."""
        factor, over = plain(factor), plain(over)
        operand = factor if over is None else over
        if not self.open() or not _is_number(operand) or (over is not None and type(over) in (int, float) and not over):
            return self.value() * factor if over is None else self.value() / over
        if isinstance(operand, Tensor):
            operand = operand.reshape(()) if operand.dim() else operand
            dtype = self.branches[0].source.dtype
            if not operand.is_floating_point() or dtype == torch.float64:  # factors must not round each other
                operand = operand.to(dtype)
        change = _times if over is None else _over
        numbers = [change(number, operand) for number in self.numbers]
        return Mixture(self.shared, self.branches, [change(weight, operand) for weight in self.weights], numbers)

    def plus(self, other: Any, sign: int = 1) -> Any:
        """self + sign * other: noted where other is a mixture, a number or a tensor of the same shape, else taken."""
        if isinstance(other, Mixture):
            if self.open() and other.open() and self.shape == other.shape:
                other = other if sign > 0 else other.scaled(-1)
                return Mixture(
                    self.shared,
                    self.branches + other.branches,
                    self.weights + other.weights,
                    self.numbers + other.numbers,
                )
            return self.value() + other.value() if sign > 0 else self.value() - other.value()
        other = plain(other)
        if not self.open():
            return self.value() + other if sign > 0 else self.value() - other
        if isinstance(other, int | float):
            numbers = self.numbers if other == 0 else [*self.numbers, sign * other]
            return Mixture(self.shared, self.branches, self.weights, numbers)
        if _is_number(other) and other.dim() == 0:
            numbers = [*self.numbers, other if sign > 0 else -other]
            return Mixture(self.shared, self.branches, self.weights, numbers)
        if self.alike(other):
            weights = [*self.weights, None if sign > 0 else -1.0]
            return Mixture(self.shared, [*self.branches, Branch(self.shared, other, other)], weights, self.numbers)
        return self.value() + other if sign > 0 else self.value() - other

    def alike(self, other: Any) -> bool:
        """Whether ``other`` is a tensor that can be a term of the sum."""
        return type(other) is Tensor and other.shape == self.shape and other.dtype == self.branches[0].source.dtype

    def __neg__(self) -> Any:
        return self.scaled(-1)

    def __mul__(self, other: Any) -> Any:
        return self.scaled(other)

    def __truediv__(self, other: Any) -> Any:
        return self.scaled(None, over=other)

    def __add__(self, other: Any) -> Any:
        return self.plus(other)

    def __sub__(self, other: Any) -> Any:
        return self.plus(other, -1)

    def __rsub__(self, other: Any) -> Any:
        return self.scaled(-1).plus(other) if self.open() else plain(other) - self.value()

    __rmul__ = __mul__
    __radd__ = __add__


class Accumulated(Mixture):
    """What ``out += mixture`` leaves under the name of ``out``, a tensor.

    Once the name is all that led to the tensor, the sum is an ordinary one with the tensor as a term. While somebody
    else holds the tensor it must change in place, at the latest when the sum is asked for or dropped.
    """

    __slots__ = ("__weakref__", "_target")

    def __init__(self, target: Tensor, added: Mixture) -> None:
        alias = target.detach()
        branch = Branch(added.shared, alias, alias)
        super().__init__(added.shared, [branch, *added.branches], [None, *added.weights], added.numbers)
        self._target = weakref.ref(target)

    def open(self) -> bool:
        target = self._target()
        if target is not None and self._value is None:
            self._value = target.add_(self._sum(self.branches[1:], self.weights[1:]))
        return super().open()

    def value(self) -> Tensor:
        self.open()
        return super().value()

    def __del__(self) -> None:
        self.open()


def _times(weight: Weight, factor: Any) -> Any:
    return factor if weight is None else weight * factor


def _over(weight: Weight, divisor: Any) -> Any:
    return (1.0 if weight is None else weight) / divisor


def _is_number(value: Any) -> bool:
    """Whether ``value`` multiplies or adds to all entries alike."""
    if isinstance(value, Tensor):
        return value.numel() == 1 and value.dim() <= 4 and not value.is_complex()
    return isinstance(value, int | float)

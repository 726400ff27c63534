"""Weighted sums that are not taken yet.

Inside an accelerated module every op returns a :class:`Mixture` instead of a tensor. The user's own code multiplies it
by weights and adds it to others, which only notes terms; as soon as anything else is asked of it, it becomes a tensor,
by one ``mixed_sum`` over all of its terms with their batch norms folded in.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from ddarts_ext import ops
from ddarts_ext.acceleration import norms
from ddarts_ext.acceleration.branch import Branch, Pass

Weight: TypeAlias = "Tensor | float | None"
"""None stands for 1."""


class Mixture:
    """sum of weight * branch, plus numbers."""

    __slots__ = ("_value", "branches", "numbers", "shared", "weights")

    def __init__(self, shared: Pass, branches: list[Branch], weights: list[Weight], numbers: list[Weight]) -> None:
        self.shared, self.branches, self.weights, self.numbers = shared, branches, weights, numbers
        self._value: Tensor | None = None

    def value(self) -> Tensor:
        """The sum as a tensor, taken once."""
        if self._value is None:
            out = take(self.shared, self.branches, self.weights)
            for number in self.numbers:
                out = out if number is None else out + number
            self._value = out
        return self._value

    @property
    def shape(self) -> torch.Size:
        return self.branches[0].shape

    def size(self, dim: int | None = None) -> Any:
        return self.shape if dim is None else self.shape[dim]

    def dim(self) -> int:
        return len(self.shape)

    def scaled(self, factor: Any) -> Any:
        """self * factor: noted where the factor is one number, else taken."""
        if self._value is not None or not _is_number(factor):
            return self.value() * plain(factor)
        if isinstance(factor, Tensor) and factor.dim():
            factor = factor.reshape(())
        weights = [factor if weight is None else weight * factor for weight in self.weights]
        return Mixture(self.shared, self.branches, weights, [_times(number, factor) for number in self.numbers])

    def plus(self, other: Any) -> Any:
        """self + other: noted where other is a mixture, a number or a tensor of the same shape, else taken."""
        if isinstance(other, Mixture):
            if self._value is None and other._value is None and self.shape == other.shape:
                return Mixture(
                    self.shared,
                    self.branches + other.branches,
                    self.weights + other.weights,
                    self.numbers + other.numbers,
                )
            return self.value() + other.value()
        if self._value is not None:
            return self._value + other
        if isinstance(other, int | float):
            numbers = self.numbers if other == 0 else [*self.numbers, other]
            return Mixture(self.shared, self.branches, self.weights, numbers)
        if _is_number(other) and other.dim() == 0:
            return Mixture(self.shared, self.branches, self.weights, [*self.numbers, other])
        if type(other) is Tensor and other.shape == self.shape and other.dtype == self.branches[0].source.dtype:
            branch = Branch(self.shared, other, other)
            return Mixture(self.shared, [*self.branches, branch], [*self.weights, None], self.numbers)
        return self.value() + other

    __mul__ = __rmul__ = scaled
    __add__ = __radd__ = plus

    @classmethod
    def __torch_function__(
        cls, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if not kwargs and len(args) == 2:
            if func in _MULTIPLY:
                a, b = args
                return a.scaled(b) if isinstance(a, Mixture) else b.scaled(a)
            if func in _ADD:
                a, b = args
                return a.plus(b) if isinstance(a, Mixture) else b.plus(a)
        return func(*plain(args), **plain(kwargs or {}))

    def __getattr__(self, name: str) -> Any:
        return getattr(self.value(), name)


_MULTIPLY = (Tensor.mul, Tensor.__mul__, Tensor.__rmul__, torch.mul, torch.multiply, Tensor.multiply)
_ADD = (Tensor.add, Tensor.__add__, Tensor.__radd__, torch.add)


def _delegate(name: str) -> Callable[..., Any]:
    def method(self: Mixture, *args: Any) -> Any:
        return getattr(self.value(), name)(*plain(args))

    return method


_DELEGATED = (
    "sub rsub truediv rtruediv floordiv mod pow rpow matmul rmatmul neg pos abs getitem setitem len iter bool float "
    "int lt le gt ge eq ne invert and or xor contains"
)
for _name in _DELEGATED.split():
    setattr(Mixture, f"__{_name}__", _delegate(f"__{_name}__"))
Mixture.__hash__ = object.__hash__  # type: ignore[method-assign]


def plain(tree: Any) -> Any:
    """The tree with every mixture taken."""
    if isinstance(tree, Mixture):
        return tree.value()
    if isinstance(tree, tuple | list | dict):
        return pytree.tree_map(lambda leaf: leaf.value() if isinstance(leaf, Mixture) else leaf, tree)
    return tree


def take(shared: Pass, branches: list[Branch], weights: list[Weight]) -> Tensor:
    """The weighted sum, by one ``mixed_sum``; norms that it cannot fold in beside the others are applied first."""
    if len(branches) == 1 and weights[0] is None:
        return branches[0].plain()
    sources = {id(branch.source) for branch in branches if branch.raw is not None}
    # Zeros count where nothing else connects their input with the sum: its gradient is 0 then, not None.
    for branch in branches:
        if branch.raw is None and id(branch.source) not in sources:
            sources.add(id(branch.source))
            branch.plain()
    present = [k for k, branch in enumerate(branches) if branch.raw is not None]
    found = [branches[k] for k in present]
    lead = next((branch.norm for branch in found if branch.norm is not None), None)
    normalised = {
        branch: branch.norm for branch in found if lead and branch.norm is not None and _alike(branch.norm, lead)
    }
    flags = [branch in normalised for branch in found]
    tensors = [
        branch.raw if flag and branch.raw is not None else branch.plain()
        for branch, flag in zip(found, flags, strict=True)
    ]
    table = _table(weights, present, tensors[0])
    shared.sums += len(tensors) > 1
    if lead is None:
        return ops.mixed_sum(tensors, table).out
    mean = rstd = None
    of_batch = norms.uses_batch(lead)
    if not of_batch:
        batch_norms = [normalised.get(branch, lead) for branch in found]
        mean = torch.stack([norm.running_mean for norm in batch_norms if norm.running_mean is not None]).unsqueeze(0)
        variance = torch.stack([norm.running_var for norm in batch_norms if norm.running_var is not None])
        rstd = (variance + lead.eps).rsqrt().unsqueeze(0)
    result = ops.mixed_sum(tensors, table, normalize=flags, mean=mean, rstd=rstd, eps=lead.eps)
    if of_batch:
        _record(shared, found, normalised, result)
    else:
        for branch in normalised:
            shared.waiting.pop(branch, None)
    return result.out


def _record(shared: Pass, found: list[Branch], normalised: dict[Branch, nn.BatchNorm2d], result: ops.MixedSum) -> None:
    """Follow the statistics, once for a branch that is used several times."""
    rows = [k for k, branch in enumerate(found) if branch in normalised and branch.first_use()]
    if not rows:
        return
    mean, rstd = result.mean[0], result.rstd[0]
    if len(rows) < len(found):
        index = _index(tuple(rows), str(mean.device))
        mean, rstd = mean.index_select(0, index), rstd.index_select(0, index)
    values = result.out.numel() // max(1, result.out.shape[1])
    shared.running.record([normalised[found[k]] for k in rows], mean, rstd, values)


def _alike(norm: nn.BatchNorm2d, lead: nn.BatchNorm2d) -> bool:
    return norm.eps == lead.eps and norms.uses_batch(norm) == norms.uses_batch(lead)


def _table(weights: list[Weight], present: list[int], like: Tensor) -> Tensor:
    """The weights of the present branches, [K]. Weights of absent ones get a zero gradient, not none."""
    tensor = next((weight for weight in weights if isinstance(weight, Tensor)), None)
    if tensor is None:
        numbers = [1.0 if weight is None else weight for k, weight in enumerate(weights) if k in set(present)]
        if all(number == 1.0 for number in numbers):
            return like.new_ones(len(numbers))
        return torch.tensor(numbers, dtype=like.dtype, device=like.device)
    dtype = tensor.dtype if tensor.is_floating_point() else like.dtype
    rows = [_scalar(weight, dtype, tensor.device) for weight in weights]
    table = torch.stack(rows).to(like.device)
    if len(present) < len(weights):
        table = table.index_select(0, _index(tuple(present), str(like.device)))
    return table


def _scalar(weight: Weight, dtype: torch.dtype, device: torch.device) -> Tensor:
    if isinstance(weight, Tensor):
        return weight if weight.dtype == dtype and weight.device == device else weight.to(device, dtype)
    return torch.full((), 1.0 if weight is None else weight, dtype=dtype, device=device)


@lru_cache(maxsize=1024)
def _index(rows: tuple[int, ...], device: str) -> Tensor:
    return torch.tensor(rows, dtype=torch.long, device=device)


def _is_number(value: Any) -> bool:
    """Whether ``value`` multiplies or adds to all entries alike."""
    if isinstance(value, Tensor):
        return value.numel() == 1 and value.dim() <= 4 and not value.is_complex()
    return isinstance(value, int | float)


def _times(number: Weight, factor: Weight) -> Weight:
    return (1.0 if number is None else number) * (1.0 if factor is None else factor)

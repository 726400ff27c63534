"""Arguments on which a method is proved."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from ddarts_ext.acceleration.copies import undisturbed

_SIDE = 8  # that a feature map is cut down to
_BATCH = 2
_DEPTH = 3  # of attributes of attributes in which tensors are looked for


@dataclass(frozen=True)
class Call:
    """The arguments of one call."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any] = field(default_factory=dict)

    def map(self, change: Callable[[Tensor], Any]) -> Call:
        """With every tensor changed, also those that are attributes of other objects (the data of an edge)."""
        return Call(_mapped(self.args, change), _mapped(self.kwargs, change))

    def tensors(self) -> list[Tensor]:
        found: list[Tensor] = []

        def note(tensor: Tensor) -> Tensor:
            found.append(tensor)
            return tensor

        self.map(note)
        return found


def _mapped(tree: Any, change: Callable[[Tensor], Any], depth: int = _DEPTH) -> Any:
    def leaf(value: Any) -> Any:
        if isinstance(value, Tensor):
            return change(value)
        state = getattr(value, "__dict__", None)
        if not depth or not isinstance(state, dict) or isinstance(value, nn.Module | type) or callable(value):
            return value
        try:
            made = copy.copy(value)
            made.__dict__.update(_mapped(dict(state), change, depth - 1))
        except Exception:  # an object that is not what it is made of
            return value
        return made

    return pytree.tree_map(leaf, tree)


def double(tensor: Tensor) -> Tensor:
    return tensor.detach().double() if tensor.is_floating_point() else tensor.detach().clone()


def is_map(tensor: Tensor) -> bool:
    """Whether a tensor is a batch of feature maps."""
    return tensor.dim() == 4 and tensor.is_floating_point() and min(tensor.shape[2:]) > 1


def accepts(call: Callable[..., Any], given: Call) -> bool:
    """Whether the call takes the arguments and returns tensors, all of them finite."""
    try:
        with torch.no_grad(), undisturbed():
            result = call(*given.args, **given.kwargs)
    except Exception:
        return False
    leaves = [leaf for leaf in pytree.tree_leaves(result) if isinstance(leaf, Tensor)]
    return bool(leaves) and all(bool(leaf.isfinite().all()) for leaf in leaves)


def cut(given: Call) -> Iterator[Call]:
    """Smaller versions of the arguments: fewer images of smaller sides, fewer images, all of them."""
    maps = [tensor for tensor in given.tensors() if is_map(tensor)]
    batch = min((len(x) for x in maps), default=0)
    sides = [side for x in maps for side in x.shape[2:]]
    factor = max(1, min(sides, default=1) // _SIDE)
    factors = [factor, 1] if factor > 1 and all(side % factor == 0 for side in sides) else [1]
    for by in factors:

        def smaller(x: Tensor, by: int = by) -> Tensor:
            if x.dim() != 4 or len(x) != batch:
                return x
            height, width = (max(1, side // by) for side in x.shape[2:])
            return x[:_BATCH, :, :height, :width].clone(memory_format=torch.preserve_format)

        if batch > _BATCH or by > 1:
            yield given.map(smaller)
    yield given

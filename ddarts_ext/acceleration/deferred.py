"""Values that are not computed yet.

Inside an accelerated module ops return such values instead of tensors. Functions and operators that have a handler
work on them as they are; whatever else is asked of one, it becomes a tensor.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor
from torch.utils import _pytree as pytree

Handler = Callable[[tuple[Any, ...], dict[str, Any]], Any]
HANDLERS: dict[Callable[..., Any], Handler] = {}
"""By the torch function that they stand for; one returns NotImplemented where it needs tensors."""


class Deferred:
    """Base of such values. ``isinstance(value, Tensor)`` holds, as code that sums ops of several kinds asks for it."""

    __slots__ = ()

    def value(self) -> Tensor:
        """The tensor, computed once."""
        raise NotImplementedError

    @property  # type: ignore[misc]
    def __class__(self) -> type:
        return Tensor

    @classmethod
    def __torch_function__(
        cls, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        handler = HANDLERS.get(func)
        if handler is not None:
            result = handler(args, kwargs or {})
            if result is not NotImplemented:
                return result
        return func(*plain(args), **plain(kwargs or {}))

    def __getattr__(self, name: str) -> Any:
        return getattr(self.value(), name)


def _delegate(name: str) -> Callable[..., Any]:
    def method(self: Deferred, *args: Any) -> Any:
        return getattr(self.value(), name)(*plain(args))

    return method


_DELEGATED = (
    "add radd sub rsub mul rmul truediv rtruediv floordiv rfloordiv mod rmod pow rpow matmul rmatmul neg pos abs "
    "getitem setitem len iter bool float int index complex lt le gt ge eq ne invert and rand or ror xor rxor contains"
)
for _name in _DELEGATED.split():
    setattr(Deferred, f"__{_name}__", _delegate(f"__{_name}__"))
Deferred.__hash__ = object.__hash__  # type: ignore[method-assign]


def plain(tree: Any) -> Any:
    """The tree with every deferred value computed."""
    if isinstance(tree, Deferred):
        return tree.value()
    if isinstance(tree, tuple | list | dict):
        return pytree.tree_map(lambda leaf: leaf.value() if isinstance(leaf, Deferred) else leaf, tree)
    return tree

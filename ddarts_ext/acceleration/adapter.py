"""For code bases that hold their ops in a way that cannot be found by looking: say where they are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from torch import nn

from ddarts_ext.acceleration.adapters import SHIPPED


class Adapter(Protocol):
    """What a user implements to have modules of a kind of its own accelerated; see ``docs/drop-in.md``."""

    def primitives(self, module: nn.Module) -> Sequence[nn.Module] | None:
        """The ops that ``module`` mixes, in any kind of container, or None where it is not of this kind."""

    def probe(self, module: nn.Module) -> Sequence[Any] | None:
        """Arguments for ``module.forward`` on which it is proved, or None to have them guessed."""


_adapters: list[Adapter] = []


def register_adapter(adapter: Adapter) -> Adapter:
    """Ask ``adapter`` about every module from now on. Returns it.

    Raises TypeError for an object without the methods of :class:`Adapter`.
    """
    for method in ("primitives", "probe"):
        if not callable(getattr(adapter, method, None)):
            raise TypeError(f"register_adapter: adapter must have a method {method}, got {type(adapter).__name__}")
    _adapters.append(adapter)
    return adapter


def unregister_adapter(adapter: Adapter) -> None:
    """Do not ask ``adapter`` any more."""
    _adapters.remove(adapter)


def adapted(module: nn.Module) -> tuple[Adapter, list[nn.Module]] | None:
    """The adapter that knows the module, and its ops; the one registered last goes first, those that ship go last."""
    for adapter in (*reversed(_adapters), *SHIPPED):
        found = adapter.primitives(module)
        if found is not None:
            return adapter, list(found)
    return None

"""How a module's calls are routed: its class becomes a subclass of itself, and goes back on restore.

The subclass has the name of the user's class and overrides ``__call__`` (ops) or the proved methods (cells and mixed
ops). Parameters, buffers, children, hooks and ``state_dict`` stay where they are; the one new attribute is a plain
object of settings, whose cached part (references to modules) is dropped by copies and rebuilt for whoever owns it, so
that copies, pickles and replicas of ``DataParallel`` never run another module's layers.
"""

from __future__ import annotations

import copyreg
import functools
import types
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from torch import nn

from ddarts_ext.acceleration.deferred import plain
from ddarts_ext.acceleration.plan import OpPlan, any_hooks, build, hooks_of
from ddarts_ext.acceleration.scope import Learned, compiling, current, routed

_SETTINGS = "_ddarts_acceleration"


class OpSettings:
    """variant: how the op is read (see ``plan.VARIANTS``), or "raw" where it runs as it is."""

    def __init__(self, variant: str) -> None:
        self.variant = variant
        self._owner: nn.Module | None = None
        self._plan: OpPlan | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        return OpSettings, (self.variant,)

    def plan(self, owner: nn.Module) -> OpPlan | None:
        """The plan of the op, or None where it must run as it is."""
        if self.variant == "raw":
            return None
        if self._owner is not owner:
            if self._owner is not None:  # a replica that shares its original's attributes
                fresh = owner.__dict__[_SETTINGS] = OpSettings(self.variant)
                return fresh.plan(owner)
            self._owner, self._plan = owner, build(owner, self.variant)
        return self._plan


class ScopeSettings:
    """methods: which are routed. convert: whether contiguous feature maps become channels-last inside. inner: whether
    the module was proved as a part of a larger one, and only there returns sums that are not taken yet."""

    def __init__(self, methods: tuple[str, ...], convert: bool, inner: bool = False) -> None:
        self.methods, self.convert, self.inner = methods, convert, inner
        self.fused = 0
        """Sums of the outputs of several ops in the last pass."""
        self._owner: nn.Module | None = None
        self._learned: dict[str, Learned] = {}
        self._bystanders: list[Any] = []

    def __reduce__(self) -> tuple[Any, ...]:
        return ScopeSettings, (self.methods, self.convert, self.inner)

    def of(self, owner: nn.Module) -> ScopeSettings:
        """These settings, or for a replica its own."""
        if self._owner is owner:
            return self
        if self._owner is not None:
            fresh = owner.__dict__[_SETTINGS] = ScopeSettings(self.methods, self.convert, self.inner)
            return fresh.of(owner)
        self._owner = owner
        self._bystanders = [table for module in _bystanders(owner) for table in hooks_of(module)]
        return self

    def learned(self, method: str) -> Learned:
        return self._learned.setdefault(method, Learned())

    def watched(self) -> bool:
        """Whether a hook would see a sum that is not taken yet."""
        return any_hooks(self._bystanders)


def _bystanders(module: nn.Module) -> Iterator[nn.Module]:
    """Modules inside that are called with what the ops return, but are not routed themselves."""
    for child in module._modules.values():
        if child is None:
            continue
        if not is_routed(child):
            yield child
            yield from _bystanders(child)
        elif isinstance(child.__dict__.get(_SETTINGS), ScopeSettings):
            yield from _bystanders(child)


def is_routed(module: nn.Module) -> bool:
    return "_ddarts_base" in type(module).__dict__


def route(module: nn.Module, settings: OpSettings | ScopeSettings) -> None:
    """Exchange the module's class. TypeError where Python does not allow it."""
    methods = settings.methods if isinstance(settings, ScopeSettings) else ()
    module.__class__ = _subclass(type(module), methods)  # type: ignore[arg-type]
    module.__dict__[_SETTINGS] = settings


def unroute(module: nn.Module) -> None:
    """Put the class back."""
    if is_routed(module):
        module.__class__ = type(module).__dict__["_ddarts_base"]
        module.__dict__.pop(_SETTINGS, None)


def settings_of(module: nn.Module) -> Any:
    return module.__dict__.get(_SETTINGS)


@functools.cache
def _subclass(base: type[nn.Module], methods: tuple[str, ...]) -> type[nn.Module]:
    names: dict[str, Any] = {
        "__module__": base.__module__,
        "__qualname__": base.__qualname__,
        "__doc__": base.__doc__,
        "__reduce_ex__": partial_method(_reduce, base, methods),
        "_ddarts_base": base,
        "__call__": partial_method(_call_scope if methods else _call_op, base),
    }
    names |= {name: functools.wraps(getattr(base, name))(partial_method(_method, base, name)) for name in methods}
    return types.new_class(base.__name__, (base,), exec_body=lambda body: body.update(names))


def partial_method(function: Callable[..., Any], *leading: Any) -> Callable[..., Any]:
    """A method that calls ``function(*leading, self, ...)``."""

    def method(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
        return function(*leading, self, *args, **kwargs)

    return method


def _call_op(base: type[nn.Module], self: nn.Module, *args: Any, **kwargs: Any) -> Any:
    scope = current()
    if scope is None:
        return base.__call__(self, *args, **kwargs)
    if args and not any_hooks(hooks_of(self)):
        plan = self.__dict__[_SETTINGS].plan(self)
        mixture = None if plan is None else scope.op(plan, args[0])
        if mixture is not None:
            return mixture
    return scope.term(base.__call__(self, *plain(args), **plain(kwargs)))


def _call_scope(base: type[nn.Module], self: nn.Module, *args: Any, **kwargs: Any) -> Any:
    if current() is not None and any_hooks(hooks_of(self)):
        return plain(base.__call__(self, *plain(args), **plain(kwargs)))
    return base.__call__(self, *args, **kwargs)


def _method(base: type[nn.Module], name: str, self: nn.Module, *args: Any, **kwargs: Any) -> Any:
    call = partial(getattr(base, name), self)
    if current() is not None:  # part of a larger scope, which takes what this leaves open, unless hooks want to see it
        result = call(*args, **kwargs)
        return plain(result) if any_hooks(hooks_of(self)) else result
    if compiling():
        return call(*args, **kwargs)
    settings: ScopeSettings = self.__dict__[_SETTINGS].of(self)
    if settings.inner or settings.watched():
        return call(*args, **kwargs)
    result, scope = routed(settings.learned(name), settings.convert, call, args, kwargs)
    settings.fused = scope.sums
    return result


def _reduce(base: type[nn.Module], methods: tuple[str, ...], self: nn.Module, protocol: Any) -> Any:
    reduced = base.__reduce_ex__(self, protocol)
    if not isinstance(reduced, tuple) or reduced[0] is not copyreg.__newobj__:  # type: ignore[attr-defined]
        return reduced
    return (_rebuilt, (base, methods, *reduced[1][1:]), *reduced[2:])


def _rebuilt(base: type[nn.Module], methods: tuple[str, ...], *args: Any) -> nn.Module:
    cls = _subclass(base, methods)  # type: ignore[arg-type]
    return cls.__new__(cls, *args)

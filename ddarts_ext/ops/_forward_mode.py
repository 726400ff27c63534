"""Derivatives other than those of ``backward``: forward mode (``torch.autograd.forward_ad``) and ``torch.func``.

The ops have no forward-mode formula. Where a tangent comes in, or a transform of ``torch.func`` differentiates, the
op's reference in plain torch runs in its place, which torch differentiates in every mode; what has no gradient
(statistics, argmax) has no tangent either. ``torch.func.vmap`` and ``torch.jit.trace`` cannot do all ops: then the op
says so.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch._C._functorch import TransformType
from torch._functorch.pyfunctorch import retrieve_all_functorch_interpreters
from torch.autograd import forward_ad


def has_tangent(args: Sequence[Any]) -> bool:
    """Whether forward mode is on and one of the tensors carries a tangent."""
    if forward_ad._current_level < 0:
        return False
    return any(forward_ad.unpack_dual(x).tangent is not None for x in tensors_of(args))  # type: ignore[no-untyped-call]


def is_mapped() -> bool:
    """Whether ``vmap`` is one of the transforms that are active."""
    return any(interpreter.key() == TransformType.Vmap for interpreter in retrieve_all_functorch_interpreters())


def check_transforms(op: str, has_lists: bool) -> None:
    """NotImplementedError where ``vmap`` cannot batch the op: torch loops over one without lists, under vmap alone."""
    if not is_mapped():
        return
    others = any(interpreter.key() != TransformType.Vmap for interpreter in retrieve_all_functorch_interpreters())
    if others or has_lists:
        raise NotImplementedError(f"{op}: torch.func.vmap cannot batch this op; put the mapped axis into the batch")


def check_trace(op: str, args: Sequence[Any]) -> None:
    """NotImplementedError where ``torch.jit.trace`` records a call that it cannot: one with a list of flags."""
    if torch._C._get_tracing_state() and any(isinstance(x, list) and x and isinstance(x[0], bool) for x in args):
        raise NotImplementedError(f"{op}: torch.jit.trace cannot record this op; use torch.compile or torch.export")


def check_composed(op: str, *args: Any) -> None:
    """The same for an op that is made of others here, so that it is named as it was called."""
    if torch.compiler.is_compiling():
        return
    if torch._C._are_functorch_transforms_active():
        check_transforms(op, True)
    check_trace(op, [list(value) for value in args])


def through_reference(
    reference: Callable[..., Any], setup_context: Callable[..., None] | None, args: Sequence[Any]
) -> Any:
    """What the reference returns, its outputs without a gradient detached (from tangents as well)."""
    result = reference(*args)
    if setup_context is None:
        return result
    context = _Context()
    setup_context(ctx=context, inputs=tuple(args), output=result)
    constants = {id(tensor) for tensor in context.constants}

    def freed(value: Any) -> Any:
        if isinstance(value, Tensor):
            return value.detach() if id(value) in constants else value
        return type(value)(freed(entry) for entry in value)

    return freed(result)


def without_gradient(overload: Any, reference: Callable[..., Any]) -> Callable[..., Any]:
    """An op whose results have no gradient, as eager code should call it."""

    def eager(*args: Any) -> Any:
        if torch.compiler.is_compiling():
            return overload(*args)
        if torch._C._are_functorch_transforms_active():
            check_transforms(overload._opname, True)
            return reference(*args).detach()
        check_trace(overload._opname, args)
        return overload(*args)

    return eager


class _Context:
    """Takes what ``setup_context`` says of an op's outputs, and keeps which have no gradient."""

    def __init__(self) -> None:
        self.constants: tuple[Tensor, ...] = ()

    def mark_non_differentiable(self, *tensors: Tensor) -> None:
        self.constants = tensors

    def save_for_backward(self, *tensors: Tensor) -> None:
        """Nothing is saved: the reference's own graph is."""

    def set_materialize_grads(self, value: bool) -> None:
        """Gradients of the reference are torch's affair."""


def tensors_of(args: Sequence[Any]) -> Iterator[Tensor]:
    """The tensors among an op's arguments, those of its lists included."""
    for value in args:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, (list, tuple)):
            yield from (entry for entry in value if isinstance(entry, Tensor))

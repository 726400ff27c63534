"""Autograd of the ops: what ``torch.library.register_autograd`` does, with lists of tensors flattened by the schema.

torch's own walks all arguments and results of an op with lists of tensors as trees, on every call and again in
backward: measured 0.3 ms a call forward and as much backward, a fifth of the CPU time of a whole search step. Here a
list costs a slice.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch._library.utils import fill_defaults

_SINGLE = -1


def register_autograd(
    library: torch.library.Library,
    overload: Any,
    backward: Callable[..., Any],
    setup_context: Callable[..., None] | None,
) -> None:
    """Register ``backward`` and ``setup_context``, both as ``torch.library.register_autograd`` takes them."""
    schema = overload._schema
    takes_list = [_is_tensor_list(argument) for argument in schema.arguments]
    gives_list = [_is_tensor_list(value) for value in schema.returns]
    one_result = len(schema.returns) == 1

    def below(keyset: Any, args: Sequence[Any]) -> Any:
        with torch._C._AutoDispatchBelowAutograd():
            return overload.redispatch(keyset & torch._C._after_autograd_keyset, *args)

    def forward(ctx: Any, keyset: Any, sizes: tuple[int, ...], *flat: Any) -> tuple[Any, ...]:
        args = _nest(flat, sizes)
        result = below(keyset, args)
        if setup_context is not None:
            if len(args) < len(schema.arguments):  # the dispatcher leaves out what equals its default
                args = list(fill_defaults(schema, tuple(args), {})[0])  # type: ignore[no-untyped-call]
            setup_context(ctx=ctx, inputs=tuple(args), output=result)
        results = (result,) if one_result else result
        ctx._argument_sizes, ctx._result_sizes = sizes, _sizes(results, gives_list)
        return tuple(_flatten(results, ctx._result_sizes))

    def differentiate(ctx: Any, *grads: Any) -> tuple[Any, ...]:
        needs = ctx.needs_input_grad
        ctx.needs_input_grad = tuple(_nest(needs[2:], ctx._argument_sizes))
        try:
            found = backward(ctx, *_nest(grads, ctx._result_sizes))
        finally:
            ctx.needs_input_grad = needs
        return None, None, *_flatten(found if isinstance(found, tuple) else (found,), ctx._argument_sizes)

    node: Any = type(
        f"{overload._opname}_autograd",
        (torch.autograd.Function,),
        {"forward": staticmethod(forward), "backward": staticmethod(differentiate)},
    )

    def autograd(keyset: Any, *args: Any) -> Any:
        if not (torch._C.is_grad_enabled() and torch._C._any_requires_grad(*args)):
            return below(keyset, args)
        sizes = _sizes(args, takes_list)
        outputs = node.apply(keyset, sizes, *_flatten(args, sizes))
        results = tuple(_nest(outputs, _sizes_of_results(outputs, gives_list)))
        return results[0] if one_result else results

    library.impl(overload._opname, autograd, "Autograd", with_keyset=True)  # type: ignore[no-untyped-call]


def gradient_op(op: Callable[..., Any]) -> Callable[..., Any]:
    """The op, called straight at its kernel where nobody will differentiate what it returns."""

    def call(*args: Any) -> Any:
        if torch.is_grad_enabled():
            return op(*args)
        with torch._C._AutoDispatchBelowAutograd():
            return op(*args)

    return call


def _is_tensor_list(value: Any) -> bool:
    return str(value.type).removeprefix("Optional[") in ("List[Tensor]", "List[Tensor]]", "List[Optional[Tensor]]")


def _sizes(values: Sequence[Any], is_list: Sequence[bool]) -> tuple[int, ...]:
    """The length of every list of tensors, ``_SINGLE`` for anything else."""
    return tuple(
        len(value) if many and value is not None else _SINGLE
        for value, many in zip(values, is_list[: len(values)], strict=True)
    )


def _sizes_of_results(outputs: Sequence[Any], is_list: Sequence[bool]) -> tuple[int, ...]:
    """As :func:`_sizes` from the flat results; an op returns at most one list, which has what the others leave."""
    length = len(outputs) - (len(is_list) - 1)
    return tuple(length if many else _SINGLE for many in is_list)


def _flatten(values: Sequence[Any], sizes: Sequence[int]) -> list[Any]:
    flat: list[Any] = []
    for value, size in zip(values, sizes, strict=True):
        if size == _SINGLE:
            flat.append(value)
        elif value is None:
            flat.extend([None] * size)
        else:
            flat.extend(value)
    return flat


def _nest(flat: Sequence[Any], sizes: Sequence[int]) -> list[Any]:
    values: list[Any] = []
    start = 0
    for size in sizes:
        if size == _SINGLE:
            values.append(flat[start])
            start += 1
        else:
            values.append(list(flat[start : start + size]))
            start += size
    return values

"""Autograd of the ops: what ``torch.library.register_autograd`` does, with lists of tensors flattened by the schema.

torch's own walks all arguments and results of an op with lists of tensors as trees, on every call and again in
backward: measured 0.3 ms a call forward and as much backward, a fifth of the CPU time of a whole search step. Here a
list costs a slice.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch._library.utils import fill_defaults

from ddarts_ext.ops import _forward_mode


def register_autograd(
    library: torch.library.Library,
    overload: Any,
    backward: Callable[..., Any],
    setup_context: Callable[..., None] | None,
    reference: Callable[..., Any],
) -> Callable[..., Any]:
    """Register ``backward`` and ``setup_context``, both as ``torch.library.register_autograd`` takes them.

    Forward-mode derivatives, and the transforms of ``torch.func`` that differentiate, run ``reference`` instead.

    Returns the op as eager code should call it: what the dispatcher would come to, without its way through Python and
    back. It takes all arguments by position. Where something else has to see the call (a compiler, functorch, a mode, a
    tensor that overrides torch's functions), it is the overload itself.
    """
    schema = overload._schema
    # Asked once: every question makes an object for every argument.
    argument_lists, result_lists = _places_of_lists(schema.arguments), _places_of_lists(schema.returns)
    argument_count, one_result = len(schema.arguments), len(schema.returns) == 1
    call = overload._op

    def below(keyset: Any, args: Sequence[Any]) -> Any:
        with torch._C._AutoDispatchBelowAutograd():
            if keyset is None:
                return call(*args)
            return overload.redispatch(keyset & torch._C._after_autograd_keyset, *args)

    def forward(ctx: Any, given: _Call, *flat: Any) -> tuple[Any, ...]:
        args = given.args
        result = given.result = below(given.keyset, args)
        if len(args) < argument_count:  # the dispatcher leaves out what equals its default
            args = fill_defaults(schema, tuple(args), {})[0]  # type: ignore[no-untyped-call]
        if setup_context is not None:
            setup_context(ctx, args, result)
        outputs = (result,) if one_result else result
        given.result_sizes = _sizes(outputs, result_lists)
        if result_lists:
            outputs = tuple(_flatten(outputs, result_lists, given.result_sizes))
        # Results without a gradient are the last ones, and nobody but the caller has to see them: a node has dozens.
        constants = ctx.non_differentiable
        given.constants = len(constants) if constants and constants[0] is outputs[-len(constants)] else 0
        if given.constants:
            ctx.non_differentiable = None
            outputs = outputs[: -given.constants]
        ctx._sizes = given.argument_sizes, given.result_sizes, given.constants
        given.outputs = outputs
        return outputs

    def differentiate(ctx: Any, *grads: Any) -> tuple[Any, ...]:
        argument_sizes, result_sizes, constants = ctx._sizes
        needs = ctx.needs_input_grad
        ctx.needs_input_grad = _nest(needs[1:], argument_lists, argument_sizes) if argument_lists else needs[1:]
        grads += (None,) * constants
        try:
            found = backward(ctx, *(_nest(grads, result_lists, result_sizes) if result_lists else grads))
        finally:
            ctx.needs_input_grad = needs
        if not isinstance(found, tuple):
            found = (found,)
        if argument_lists:
            found = _flatten(found, argument_lists, argument_sizes)
        return None, *found[: len(needs) - 1]

    node: Any = type(
        f"{overload._opname}_autograd",
        (torch.autograd.Function,),
        {"forward": staticmethod(forward), "backward": staticmethod(differentiate)},
    )

    # What Function.apply comes to without functorch, for which it looks at every argument: half of its time.
    apply_without_functorch = super(torch.autograd.Function, node).apply

    def recorded(apply: Callable[..., Any], keyset: Any, args: Sequence[Any]) -> Any:
        given = _Call(keyset, args)
        if argument_lists:
            given.argument_sizes = _sizes(args, argument_lists)
            outputs = apply(given, *_flatten(args, argument_lists, given.argument_sizes))
        else:
            outputs = apply(given, *args)
        if all(map(operator.is_, outputs, given.outputs)):  # the node is written into the very tensors
            return given.result
        results = (given.result,) if one_result else given.result
        flat = _flatten(results, result_lists, given.result_sizes)
        flat[: len(outputs)] = outputs
        results = tuple(_nest(flat, result_lists, given.result_sizes))
        return results[0] if one_result else results

    def traced(args: Sequence[Any]) -> Any:
        return _forward_mode.through_reference(reference, setup_context, args)

    def autograd(keyset: Any, *args: Any) -> Any:
        if _forward_mode.has_tangent(args):
            return traced(args)
        if torch._C.is_grad_enabled() and torch._C._any_requires_grad(*args):
            if torch._C._are_functorch_transforms_active():
                raise NotImplementedError(f"{overload._opname}: torch.func needs the public function, not the raw op")
            return recorded(node.apply, keyset, args)
        return below(keyset, args)

    def eager(*args: Any) -> Any:
        if torch.compiler.is_compiling():
            return overload(*args)
        if torch._C._are_functorch_transforms_active():
            _forward_mode.check_transforms(overload._opname, bool(argument_lists))
            return overload(*args) if _forward_mode.is_mapped() else traced(args)
        if _forward_mode.has_tangent(args):
            return traced(args)
        tracing = torch._C._get_tracing_state()
        if tracing:
            _forward_mode.check_trace(overload._opname, args)
        if not (torch._C.is_grad_enabled() and torch._C._any_requires_grad(*args)):
            return overload(*args) if tracing else below(None, args)
        if tracing or torch._C._len_torch_dispatch_stack() or _overrides_functions(args, argument_lists):
            return overload(*args)
        return recorded(apply_without_functorch, None, args)

    library.impl(overload._opname, autograd, "Autograd", with_keyset=True)  # type: ignore[no-untyped-call]
    return eager


class _Call:
    """A recorded call: how it was dispatched, what the op returned, and what of that has a gradient.

    argument_sizes, result_sizes: of the lists. constants: how many of the results, the last ones, have no gradient.
    """

    __slots__ = ("args", "argument_sizes", "constants", "keyset", "outputs", "result", "result_sizes")

    def __init__(self, keyset: Any, args: Sequence[Any]) -> None:
        self.keyset, self.args = keyset, args
        self.argument_sizes: Sequence[int] = ()
        self.result_sizes: Sequence[int] = ()
        self.result: Any = None
        self.outputs: Sequence[Any] = ()
        self.constants = 0


def _overrides_functions(args: Sequence[Any], lists: Sequence[int]) -> bool:
    """Whether a mode, an argument or an entry of one of its lists has a ``__torch_function__``."""
    overrides = torch.overrides.has_torch_function
    return overrides(args) or any(overrides(args[place]) for place in lists if args[place] is not None)


def _places_of_lists(values: Sequence[Any]) -> list[int]:
    """Which of a schema's arguments or returns are lists of tensors."""
    kinds = ("List[Tensor]", "List[Tensor]]", "List[Optional[Tensor]]")
    return [i for i, value in enumerate(values) if str(value.type).removeprefix("Optional[") in kinds]


def _sizes(values: Sequence[Any], lists: Sequence[int]) -> list[int]:
    """The length of every list of tensors; -1 for a list that was not given."""
    return [-1 if values[place] is None else len(values[place]) for place in lists]


def _flatten(values: Sequence[Any], lists: Sequence[int], sizes: Sequence[int]) -> list[Any]:
    """The values with their lists of tensors spliced in; None stands for a list of Nones."""
    flat = list(values)
    for place, size in zip(reversed(lists), reversed(sizes), strict=True):
        if size >= 0:
            flat[place : place + 1] = [None] * size if flat[place] is None else flat[place]
    return flat


def _nest(flat: Sequence[Any], lists: Sequence[int], sizes: Sequence[int]) -> list[Any]:
    """The reverse of :func:`_flatten`."""
    values = list(flat)
    for place, size in zip(lists, sizes, strict=True):
        if size >= 0:
            values[place : place + size] = [values[place : place + size]]
    return values

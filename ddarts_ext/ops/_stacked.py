"""1x1 convolutions of an image in one batched product of the library, with weights that lie side by side.

Off the CPU a product for every filter is a launch for every filter; here a batch of filters is one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ddarts_ext.ops import _checks, _forward_mode

_MOST_PARTS, _FEWEST_ROWS = 64, 512
"""Into how many parts the rows of a weight gradient are cut, and how many a part has at least."""


def stacks(*tensors: Tensor) -> bool:
    """Whether the functions below may take the tensors: eager code, and no transform that sees it."""
    return not (
        torch.compiler.is_compiling()
        or torch._C._are_functorch_transforms_active()
        or torch._C._get_tracing_state()
        or _forward_mode.has_tangent(tensors)
        or torch.overrides.has_torch_function(tensors)
    )


def stacked(weights: Sequence[Tensor]) -> Tensor:
    """F weights [Co, ...] as [F, Co, ...]: a copy, unless they lie side by side."""
    found: Tensor = _Stack.apply(*weights)  # type: ignore[no-untyped-call]
    return found


def joined(weights: Sequence[Tensor]) -> Tensor:
    """F weights [Co, ...] as [F * Co, ...]: a copy, unless they lie side by side, in channels-last or contiguous."""
    found: Tensor = _Join.apply(*weights)  # type: ignore[no-untyped-call]
    return found


def shared_products(rows: Tensor, weights: Tensor) -> tuple[Tensor, ...]:
    """``rows @ weights[f].T`` for all f, each on its own: [M, C], [F, Co, C] -> F times [M, Co].

    Under autocast both are cast as by ``linear``.
    """
    device = rows.device.type
    if _checks.autocasts(device) and rows.dtype != torch.float64:
        rows, weights = (tensor.to(torch.get_autocast_dtype(device)) for tensor in (rows, weights))
    found: tuple[Tensor, ...] = _SharedProducts.apply(rows, weights)  # type: ignore[no-untyped-call]
    return found


def side_by_side(tensors: Sequence[Tensor]) -> bool:
    """Whether dense tensors of one size fill one piece of memory, in order and without gaps."""
    (memory, begin), length = place_of(tensors[0]), tensors[0].numel()
    return all(place_of(tensor) == (memory, begin + f * length) for f, tensor in enumerate(tensors))


Place = tuple[int, int]


def place_of(tensor: Tensor) -> Place:
    """Which memory a tensor lies in, and where it begins there, in values."""
    return int(tensor.untyped_storage()._cdata), int(tensor.storage_offset())


class _Stack(torch.autograd.Function):
    """F tensors of one shape -> [F, ...]; the gradients are slices of one."""

    @staticmethod
    def forward(ctx: Any, *tensors: Tensor) -> Tensor:
        if all(tensor.is_contiguous() for tensor in tensors) and side_by_side(tensors):
            first = tensors[0]
            return first.as_strided((len(tensors), *first.shape), (first.numel(), *first.stride()))
        return torch.stack(tensors)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, ...]:
        return grad.unbind(0)


class _Join(torch.autograd.Function):
    """F tensors [Co, ...] of one shape -> [F * Co, ...]; the gradients are slices of one."""

    @staticmethod
    def forward(ctx: Any, *tensors: Tensor) -> Tensor:
        first = tensors[0]
        ctx.rows = first.shape[0]
        layouts = (torch.contiguous_format, *([torch.channels_last] if first.dim() == 4 else []))
        alike = any(all(tensor.is_contiguous(memory_format=layout) for tensor in tensors) for layout in layouts)
        if alike and side_by_side(tensors):
            return first.as_strided(
                (len(tensors) * ctx.rows, *first.shape[1:]), (first[0].numel(), *first.stride()[1:])
            )
        return torch.cat(tensors)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, ...]:
        return torch.split(grad, ctx.rows)


class _SharedProducts(torch.autograd.Function):
    """rows [M, C], weights [F, Co, C] -> F times [M, Co]. Backwards the filters lie inside the rows, so that the
    gradient of the rows is one product over all of them."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, weights: Tensor) -> tuple[Tensor, ...]:
        ctx.save_for_backward(rows, weights)
        return torch.bmm(rows.expand(weights.shape[0], *rows.shape), weights.transpose(1, 2)).unbind(0)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor | None]:
        rows, weights = ctx.saved_tensors
        filters, outputs, inputs = weights.shape
        grad = torch.stack(grads, 1).flatten(1) if filters > 1 else grads[0]
        d_rows = grad @ weights.view(filters * outputs, inputs) if ctx.needs_input_grad[0] else None
        if not ctx.needs_input_grad[1]:
            return d_rows, None
        return d_rows, _weight_gradient(grad[None], rows[None]).view(filters, outputs, inputs)


def _weight_gradient(grad: Tensor, rows: Tensor) -> Tensor:
    """``grad[f].T @ rows[f]`` for all f: [F, M, Co], [F, M, C] -> [F, Co, C].

    A product of so few columns is one block of a GPU that walks all rows; so the rows are cut, and the parts summed.
    """
    filters, count, _ = rows.shape
    parts = count & -count  # the largest power of two that divides it
    while parts > 1 and (parts > _MOST_PARTS or count // parts < _FEWEST_ROWS):
        parts //= 2
    if parts < 2:
        return torch.bmm(grad.transpose(1, 2), rows)
    # Rows that do not lie one after another cannot be cut without a copy.
    cut = [x.contiguous().view(filters * parts, count // parts, x.shape[2]) for x in (grad, rows)]
    found = torch.bmm(cut[0].transpose(1, 2), cut[1])
    return found.view(filters, parts, *found.shape[1:]).sum(1)

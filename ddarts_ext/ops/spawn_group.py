"""``spawn_group``: one more group in the batch, whose newest cell is removed, written once beside the groups so far."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ddarts_ext.ops._checks import check_4d, check_flags, check_same_device, check_shape, integer, memory_format_of
from ddarts_ext.ops._library import define_op

_OP = "spawn_group"
MOST_COPIES, MOST_STRIDE = 1 << 16, 1 << 31


def spawn_group(
    groups: Tensor | None, source: Tensor, *, copies: int = 1, stride: int = 1, zero: bool = False
) -> Tensor:
    """Appends one group to a batch of groups (marginal contributions of D-DARTS, all cells in one pass).

    The new group stands in for the output of a removed cell: ``copies`` channel-copies of source[:, :, ::s, ::s]
    (the bypass: what the cell read, in the shape of what it would have written), or zeros.

    groups: [g*B, C*copies, ceil(H/stride), ceil(W/stride)], the groups so far; None or an empty batch for none.
    source: [B,C,H,W]; with ``zero`` only its shape matters.

    Returns [(g+1)*B, C*copies, ceil(H/stride), ceil(W/stride)] in the promoted dtype and in the layout of ``source``
    (channels-last or contiguous). Gradients: of groups the first g*B samples, of source the sum over its copies at the
    positions that were read (none with ``zero``). Everything equals
    ``torch.cat([groups, source[:, :, ::s, ::s].repeat(1, copies, 1, 1)])``.
    """
    check_4d(_OP, "source", source)
    copies, stride = integer(_OP, "copies", copies), integer(_OP, "stride", stride)
    for name, value, most in (("copies", copies, MOST_COPIES), ("stride", stride, MOST_STRIDE)):
        if not 1 <= value <= most:
            raise ValueError(f"{_OP}: {name} must be an integer from 1 to {most}, got {value!r}")
    check_flags(_OP, zero=zero)
    if groups is not None:
        check_4d(_OP, "groups", groups)
        check_same_device(_OP, "groups", groups, source.device)
        batch = source.shape[0]
        if groups.shape[0] and (batch == 0 or groups.shape[0] % batch):
            raise ValueError(f"{_OP}: groups must have a batch that is a multiple of {batch}, got {groups.shape[0]}")
        check_shape(_OP, "groups", groups, [groups.shape[0], *_shape(source, copies, stride)], "[g*B,C*copies,H/s,W/s]")
        if groups.dtype != source.dtype:
            dtype = torch.promote_types(groups.dtype, source.dtype)
            groups, source = groups.to(dtype), source.to(dtype)
    result: Tensor = _forward(groups, source, copies, stride, zero)
    return result


def spawn_group_reference(groups: Tensor | None, source: Tensor, copies: int, stride: int, zero: bool) -> Tensor:
    """The same by slicing, repeating and concatenating."""
    group = source[:, :, ::stride, ::stride].repeat(1, copies, 1, 1)
    if zero:
        group = torch.zeros_like(group)
    # The copy also keeps the output from sharing memory with an input.
    joined = group.clone() if groups is None else torch.cat([groups, group])
    return joined.contiguous(memory_format=memory_format_of(source))


def _shape(source: Tensor, copies: int, stride: int) -> tuple[int, int, int]:
    _, channels, height, width = source.shape
    return channels * copies, -(-height // stride), -(-width // stride)


def _fake(groups: Tensor | None, source: Tensor, copies: int, stride: int, zero: bool) -> Tensor:
    batch = source.shape[0] + (0 if groups is None else groups.shape[0])
    shape = (batch, *_shape(source, copies, stride))
    return torch.empty(shape, dtype=source.dtype, device=source.device, memory_format=memory_format_of(source))


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    groups, source, ctx.copies, ctx.stride, ctx.zero = inputs
    ctx.size = tuple(source.shape[2:])
    ctx.before = 0 if groups is None else groups.shape[0]
    ctx.has_groups = groups is not None


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    grad_groups = grad[: ctx.before] if ctx.has_groups and ctx.needs_input_grad[0] else None
    grad_source = None
    if ctx.needs_input_grad[1] and not ctx.zero:
        own = grad[ctx.before :]
        if ctx.copies == 1 and ctx.stride == 1:
            grad_source = own
        else:
            grad_source = torch.ops.ddarts_ext.spawn_group_backward(own, *ctx.size, ctx.copies, ctx.stride)
    return grad_groups, grad_source, None, None, None


def spawn_group_backward_reference(grad: Tensor, height: int, width: int, copies: int, stride: int) -> Tensor:
    """Gradient [B,C,H,W] of the source from that of the spawned group: copies summed, zeros where nothing was read."""
    batch, channels = grad.shape[0], grad.shape[1] // copies
    format_ = memory_format_of(grad)
    result = torch.empty((batch, channels, height, width), dtype=grad.dtype, device=grad.device, memory_format=format_)
    parts = grad.reshape(batch, copies, channels, *grad.shape[2:])
    result.zero_()[:, :, ::stride, ::stride] = parts.sum(1)
    return result


def _backward_fake(grad: Tensor, height: int, width: int, copies: int, stride: int) -> Tensor:
    shape = (grad.shape[0], grad.shape[1] // copies, height, width)
    return torch.empty(shape, dtype=grad.dtype, device=grad.device, memory_format=memory_format_of(grad))


def _backward_setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    _, _, _, ctx.copies, ctx.stride = inputs


def _double_backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    # The backward is linear: its transpose is the forward without other groups.
    return torch.ops.ddarts_ext.spawn_group(None, grad, ctx.copies, ctx.stride, False), None, None, None, None


define_op(
    "spawn_group_backward(Tensor grad, SymInt height, SymInt width, int copies, int stride) -> Tensor",
    reference=spawn_group_backward_reference,
    fake=_backward_fake,
    backward=_double_backward,
    setup_context=_backward_setup_context,
)
_forward = define_op(
    "spawn_group(Tensor? groups, Tensor source, int copies, int stride, bool zero) -> Tensor",
    reference=spawn_group_reference,
    fake=_fake,
    backward=_backward,
    setup_context=_setup_context,
)

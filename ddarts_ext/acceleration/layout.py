"""Channels-last inside, the caller's layout outside.

The kernels and the 1x1 convolutions are fastest in channels-last on a CPU. A contiguous tensor that enters is
converted, and what leaves is handed back contiguous. It remembers its channels-last twin, so that the next cell does
not convert it again; gradients pass through every change of layout without a copy.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

_TWIN = "_ddarts_twin"


class _Twin(torch.autograd.Function):
    """The values of ``twin``, the gradient of ``x``, which is equal to it."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, twin: Tensor) -> Tensor:
        return twin.detach()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        return grad, None


def wants_channels_last(x: Any) -> bool:
    """Whether ``x`` is a contiguous [N,C,H,W] on the CPU that is not channels-last as well."""
    return (
        isinstance(x, Tensor)
        and x.dim() == 4
        and x.device.type == "cpu"
        and x.is_floating_point()
        and x.is_contiguous()
        and not x.is_contiguous(memory_format=torch.channels_last)
    )


def channels_last(x: Tensor) -> Tensor:
    """``x`` in channels-last: its twin where it has a fresh one, else a copy, remembered unless ``x`` is a leaf.

    (The data of a leaf, such as a static input, may be replaced without a trace.)
    """
    remembered = getattr(x, _TWIN, None)
    if remembered is None or remembered[1] != (x._version, remembered[0]._version):
        if x.grad_fn is None:
            return x.contiguous(memory_format=torch.channels_last)
        _remember(x, x.detach().contiguous(memory_format=torch.channels_last))
    return _Twin.apply(x, getattr(x, _TWIN)[0])  # type: ignore[no-any-return, no-untyped-call]


def contiguous(x: Tensor) -> Tensor:
    """``x`` contiguous; it remembers ``x`` as its twin."""
    if x.dim() != 4 or x.is_contiguous():
        return x
    out = x.contiguous()
    if x.is_contiguous(memory_format=torch.channels_last):
        _remember(out, x.detach())
    return out


def _remember(x: Tensor, twin: Tensor) -> None:
    setattr(x, _TWIN, (twin, (x._version, twin._version)))

"""Convolutions and factorised reductions of one state where every launch counts: those of a kind run as one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol, cast

import torch
from torch import Tensor, nn

from ddarts_ext import ops
from ddarts_ext.nn.pointwise import conv2d, in_channels_last
from ddarts_ext.ops import _stacked
from ddarts_ext.ops.relu_pointwise_conv2d import WIDEST


class Convolution(Protocol):
    """What is read of a convolution."""

    @property
    def weight(self) -> Tensor: ...
    @property
    def stride(self) -> int: ...
    def acting(self, name: str) -> Tensor | None: ...


class Reduction(Protocol):
    """What is read of a factorised reduction."""

    @property
    def even(self) -> Tensor: ...
    @property
    def odd(self) -> Tensor: ...
    def acting(self, name: str) -> Tensor | None: ...
    def parameters(self) -> Iterator[Tensor]: ...


def _off_the_cpu(x: Tensor) -> bool:
    # On a CPU there is a kernel for each.
    return x.device.type != "cpu"


def rectifies(x: Tensor, parameters: Iterable[Tensor]) -> bool:
    """Whether convolutions of a state like x, all of one kind, run as one."""
    return _off_the_cpu(x) and in_channels_last(x) and _stacked.stacks(x, *parameters)


def pointwise(members: Sequence[Convolution], x: Tensor) -> list[Tensor]:
    """ReLU and the 1x1 convolutions of x, a channels-last image, at stride 1 and without biases."""
    n, channels, h, w = x.shape
    outputs = sum(op.weight.shape[0] for op in members)
    if channels <= WIDEST[0] and outputs <= WIDEST[1]:
        weight = _stacked.stacked([op.weight for op in members]).flatten(0, 1)
        return list(torch.split(ops.relu_pointwise_conv2d(x, [weight], stride=1), outputs // len(members), 1))
    rows = x.relu().permute(0, 2, 3, 1).reshape(n * h * w, channels)
    found = _stacked.shared_products(rows, _stacked.stacked([op.weight for op in members]).flatten(2))
    return [out.view(n, h, w, -1).permute(0, 3, 1, 2) for out in found]


def convolved(members: Sequence[Convolution], x: Tensor) -> list[Tensor]:
    """The square convolutions of x, a rectified channels-last image, all of one size and without biases, as channels of
    one image: one call of the library."""
    weight = _stacked.joined([op.weight for op in members])
    stride, pad = members[0].stride, weight.shape[-1] // 2
    out = conv2d(x, weight, None, (stride, stride), (pad, pad))
    return list(torch.split(out, weight.shape[0] // len(members), 1))


def weights_of_reductions(members: Sequence[Reduction]) -> list[nn.Parameter]:
    """The weights that :func:`reduced` stacks."""
    return [cast(nn.Parameter, weight) for weight in [op.even for op in members] + [op.odd for op in members]]


def reduces(members: Sequence[Reduction], x: Tensor) -> bool:
    """Whether :func:`reduced` serves the ops on a state like x, and is faster than one by one."""
    if not (_off_the_cpu(x) and in_channels_last(x) and _stacked.stacks(x, *members[0].parameters())):
        return False
    return all(op.acting("even_bias") is None for op in members)


def reduced(members: Sequence[Reduction], x: Tensor) -> list[Tensor]:
    """The outputs of all members before their norm, [N, C, H/2, W/2] in channels-last: one call of their op."""
    weights = _stacked.stacked(weights_of_reductions(members))
    half, inputs = weights.shape[1:3]
    even, odd = weights.view(2, len(members) * half, inputs, 1, 1).unbind(0)
    out = ops.relu_pointwise_conv2d(x, [even, odd], stride=2)
    n, _, h, w = out.shape
    apart = out.permute(0, 2, 3, 1).unflatten(3, (2, len(members), half))  # type: ignore[no-untyped-call]
    together = apart.permute(4, 0, 1, 2, 3, 5).reshape(len(members), n, h, w, 2 * half)
    return list(together.permute(0, 1, 4, 2, 3).unbind(0))

"""Separable and dilated convolutions of one state where every launch counts: filters of a kind run as one.

All first stages read the state in one depthwise call, whose outputs go through one batched product for every kind of
op. What the second stages of one kernel size read then is a single image with the channels of all of them side by
side: batch norm and depthwise convolution see channels alone, and run once for all.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol, cast

from torch import Tensor, nn

from ddarts_ext import ops
from ddarts_ext.nn.forward_pass import Pass
from ddarts_ext.nn.norm import GroupedNorm, elements_per_group, given_together, record_together
from ddarts_ext.nn.pointwise import in_channels_last
from ddarts_ext.ops import _stacked


class Stage(Protocol):
    """What is read of a stage, a depthwise convolution and the 1x1 convolution after it."""

    @property
    def depthwise(self) -> Tensor: ...
    @property
    def pointwise(self) -> Tensor: ...
    @property
    def dilation(self) -> int: ...
    def acting(self, name: str) -> Tensor | None: ...


class Convolution(Protocol):
    """What is read of a separable or dilated convolution."""

    @property
    def first(self) -> Stage: ...
    @property
    def second(self) -> Stage | None: ...
    @property
    def norm(self) -> GroupedNorm | None: ...
    @property
    def stride(self) -> int: ...
    def parameters(self) -> Iterator[Tensor]: ...


class Pointwise(Protocol):
    """What is read of a 1x1 convolution."""

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


def stacks(members: Sequence[Convolution], x: Tensor) -> bool:
    """Whether :func:`run` serves the ops on a state like x, and is faster than stage by stage."""
    if not (_off_the_cpu(x) and in_channels_last(x) and _stacked.stacks(x, *members[0].parameters())):
        return False
    stages = [stage for op in members for stage in (op.first, op.second) if stage is not None]
    plain = all(op.norm is None or op.norm.weight is None for op in members)
    return plain and all(stage.acting("bias") is None for stage in stages)


def _off_the_cpu(x: Tensor) -> bool:
    # On a CPU there are kernels for whole stages.
    return x.device.type != "cpu"


def run(members: Sequence[Convolution], x: Tensor, p: Pass) -> list[Tensor]:
    """The outputs of all members before their last norm, [groups * B, C, H/stride, W/stride] in channels-last."""
    kinds = _kinds(members)
    order = [place for places in kinds.values() for place in places]
    first = ops.relu_depthwise_conv2d(
        x,
        [members[place].first.depthwise for place in order],
        dilations=[members[place].first.dilation for place in order],
        stride=members[0].stride,
        groups=p.groups,
    )
    between = dict(zip(order, first.outputs, strict=True))
    n, _, h, w = first.outputs[0].shape
    outputs: dict[int, Tensor] = {}
    for kernel, places in kinds.items():
        weights = _stacked.stacked([members[place].first.pointwise for place in places]).flatten(2)
        rows = _stacked.products(_stacked.joined([between[place] for place in places]), weights, interleaved=kernel > 0)
        if kernel > 0:
            image = _stacked.as_image(rows, (n, h, w))
            rows = _second([members[place] for place in places], image, p)
        outputs |= zip(places, _stacked.as_images(rows, (n, h, w)), strict=True)
    return [outputs[place] for place in range(len(members))]


def _kinds(members: Sequence[Convolution]) -> dict[int, list[int]]:
    """The places of the members by the kernel size of their second stage, 0 for those that have none."""
    found: dict[int, list[int]] = {}
    for place, op in enumerate(members):
        found.setdefault(0 if op.second is None else op.second.depthwise.shape[-1], []).append(place)
    return found


def _second(members: Sequence[Convolution], x: Tensor, p: Pass) -> Tensor:
    """Norm, ReLU and the second stages of members of one kernel size: [N, F*C, H, W] -> rows [F, N*H*W, C]."""
    stages = [op.second for op in members if op.second is not None]
    norms = [op.norm for op in members if op.norm is not None]
    mean, rstd = (None if table is None else table.flatten(1) for table in given_together(norms, p))
    found = ops.relu_depthwise_conv2d(
        x,
        [_stacked.stacked([stage.depthwise for stage in stages]).flatten(0, 1)],
        dilations=[1],
        normalize=True,
        mean=mean,
        rstd=rstd,
        groups=p.groups,
        eps=norms[0].eps,
    )
    shape = found.mean.shape[0], len(norms), -1
    record_together(norms, found.mean.view(shape), found.rstd.view(shape), elements_per_group(x, p.groups), p)
    weights = _stacked.stacked([stage.pointwise for stage in stages]).flatten(2)
    return _stacked.products(_stacked.as_rows(found.outputs[0], len(stages)), weights, interleaved=False)


def rectifies(x: Tensor, parameters: Iterable[Tensor]) -> bool:
    """Whether ops on a state like x share its ReLU, and 1x1 convolutions of it run as one."""
    return _off_the_cpu(x) and in_channels_last(x) and _stacked.stacks(x, *parameters)


def pointwise(members: Sequence[Pointwise], x: Tensor) -> list[Tensor]:
    """The 1x1 convolutions of x, a channels-last image, at stride 1 and without biases."""
    n, channels, h, w = x.shape
    rows = x.permute(0, 2, 3, 1).reshape(n * h * w, channels)
    found = _stacked.shared_products(rows, _stacked.stacked([op.weight for op in members]).flatten(2))
    return [out.view(n, h, w, -1).permute(0, 3, 1, 2) for out in found]


def weights_of(members: Sequence[Convolution]) -> Iterator[list[nn.Parameter]]:
    """The weights that :func:`run` stacks."""
    for kernel, places in _kinds(members).items():
        kind = [members[place] for place in places]
        yield [cast(nn.Parameter, op.first.pointwise) for op in kind]
        if kernel > 0:
            stages = [op.second for op in kind if op.second is not None]
            yield [cast(nn.Parameter, stage.depthwise) for stage in stages]
            yield [cast(nn.Parameter, stage.pointwise) for stage in stages]


def weights_of_reductions(members: Sequence[Reduction]) -> list[nn.Parameter]:
    """The weights that :func:`reduced` stacks."""
    return [cast(nn.Parameter, weight) for weight in [op.even for op in members] + [op.odd for op in members]]


def reduces(members: Sequence[Reduction], x: Tensor) -> bool:
    """Whether :func:`reduced` serves the ops on a state like x, and is faster than one by one."""
    if not (_off_the_cpu(x) and in_channels_last(x) and _stacked.stacks(x, *members[0].parameters())):
        return False
    even = x.shape[2] % 2 == 0 and x.shape[3] % 2 == 0
    return even and all(op.acting("even_bias") is None for op in members)


def reduced(members: Sequence[Reduction], x: Tensor) -> list[Tensor]:
    """The outputs of all members before their norm, [N, C, H/2, W/2] in channels-last: pixels are picked once."""
    n, _, h, w = x.shape
    rows = _stacked.diagonal(x)
    weights = _stacked.stacked(weights_of_reductions(members))
    half = weights.shape[1]
    found = _stacked.products(rows, weights.view(2, len(members) * half, -1), interleaved=False)
    together = found.view(2, -1, len(members), half).permute(2, 1, 0, 3).reshape(len(members), -1, 2 * half)
    return list(_stacked.as_images(together, (n, h // 2, w // 2)))

"""What an op is made of: a module's layers in order, grouped into the steps that the kernels serve.

A step reads a tensor and hands one on. The first step of an op may be shared with other ops that read the same input
(``family``). An affine-free batch norm at the end is not a step: the sum that takes the op's output applies it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ddarts_ext import ops
from ddarts_ext.acceleration import norms
from ddarts_ext.nn.pointwise import in_channels_last, pointwise
from ddarts_ext.ops.relu_depthwise_conv2d import KERNEL_SIZES

LAYERS = (nn.ReLU, nn.Conv2d, nn.BatchNorm2d, nn.MaxPool2d, nn.AvgPool2d, nn.Identity)


class Context(Protocol):
    """What steps need of the pass that they run in."""

    running: norms.Running

    def relu(self, x: Tensor) -> Tensor:
        """The ReLU of a tensor, taken once."""


class Step(Protocol):
    @property
    def family(self) -> tuple[object, ...] | None:
        """Steps of equal family that read one tensor run in one launch; None: by itself."""

    def run(self, x: Tensor, context: Context) -> Tensor: ...


@dataclass(frozen=True)
class Filter:
    """[affine-free norm,] ReLU, depthwise convolution."""

    conv: nn.Conv2d
    norm: nn.BatchNorm2d | None = None

    @property
    def family(self) -> tuple[object, ...] | None:
        return ("filter", self.conv.stride[0]) if self.norm is None else None

    def run(self, x: Tensor, context: Context) -> Tensor:
        if self.norm is None:
            return run_family([self], x, context)[0]
        mean, rstd = norms.given(self.norm)
        conv = self.conv
        result = ops.relu_depthwise_conv2d(
            x, [conv.weight], dilations=[conv.dilation[0]], stride=conv.stride[0], normalize=True, mean=mean, rstd=rstd,
            eps=self.norm.eps,
        )  # fmt: skip
        if mean is None:
            context.running.record([self.norm], result.mean, result.rstd, x.numel() // max(1, x.shape[1]))
        return result.outputs[0]


@dataclass(frozen=True)
class Pool:
    """3x3 pooling, padding 1 and not counted."""

    maximum: bool
    stride: int

    @property
    def family(self) -> tuple[object, ...] | None:
        return ("pool", self.stride)

    def run(self, x: Tensor, context: Context) -> Tensor:
        return run_family([self], x, context)[0]


@dataclass(frozen=True)
class Relu:
    family = None

    def run(self, x: Tensor, context: Context) -> Tensor:
        return context.relu(x)


@dataclass(frozen=True)
class Conv:
    conv: nn.Conv2d
    family = None

    def run(self, x: Tensor, context: Context) -> Tensor:
        conv = self.conv
        if conv.kernel_size == (1, 1) and conv.padding == (0, 0) and conv.groups == 1:
            rows, columns = conv.stride
            return pointwise(x[:, :, ::rows, ::columns] if rows > 1 or columns > 1 else x, conv.weight, conv.bias)
        out = F.conv2d(x, conv.weight, conv.bias, conv.stride, conv.padding, conv.dilation, conv.groups)
        return out.contiguous(memory_format=torch.channels_last) if in_channels_last(x) else out


@dataclass(frozen=True)
class Norm:
    norm: nn.BatchNorm2d
    relu: bool
    family = None

    def run(self, x: Tensor, context: Context) -> Tensor:
        return norms.normalise(x, self.norm, context.running, self.relu)


@dataclass(frozen=True)
class Halve:
    """FactorizedReduce before its norm: ReLU, two 1x1 convolutions of stride 2 on pixels one apart, side by side.

    pad: a side of odd length is padded by a zero row or column for the second.
    """

    even: nn.Conv2d
    odd: nn.Conv2d
    pad: bool
    family = None

    def run(self, x: Tensor, context: Context) -> Tensor:
        even, odd = x[:, :, ::2, ::2].relu(), x[:, :, 1::2, 1::2].relu()
        if self.pad and (x.shape[2] % 2 or x.shape[3] % 2):
            odd = F.pad(odd, (0, x.shape[3] % 2, 0, x.shape[2] % 2))
        halves = (pointwise(even, self.even.weight, self.even.bias), pointwise(odd, self.odd.weight, self.odd.bias))
        return torch.cat(halves, 1)


def run_family(steps: Sequence[Step], x: Tensor, context: Context) -> list[Tensor]:
    """The outputs of first steps of one family that read ``x``."""
    filters = [step for step in steps if isinstance(step, Filter)]
    if filters:
        return ops.relu_depthwise_conv2d(
            x,
            [step.conv.weight for step in filters],
            dilations=[step.conv.dilation[0] for step in filters],
            stride=filters[0].conv.stride[0],
        ).outputs
    pools = [step for step in steps if isinstance(step, Pool)]
    if not pools:
        return [step.run(x, context) for step in steps]
    maximum = any(pool.maximum for pool in pools)
    pooled = ops.pool3x3(x, stride=pools[0].stride, maximum=maximum, average=not all(pool.maximum for pool in pools))
    found = [pooled.maximum if pool.maximum else pooled.average for pool in pools]
    return [tensor for tensor in found if tensor is not None]


def layers_of(module: nn.Module) -> list[nn.Module] | None:
    """The leaf layers of a module in the order they are registered in; None where one is of an unknown kind."""
    if type(module) in LAYERS:
        return [module]
    children = [child for child in module._modules.values() if child is not None]
    if not children or isinstance(module, nn.ModuleList | nn.ModuleDict):
        return None
    found: list[nn.Module] = []
    for child in children:
        layers = layers_of(child)
        if layers is None:
            return None
        found += layers
    return found


def is_depthwise(layer: nn.Module) -> bool:
    """Whether ``relu_depthwise_conv2d`` serves the convolution."""
    if not isinstance(layer, nn.Conv2d) or isinstance(layer.padding, str):
        return False
    (k, k2), (s, s2), (d, d2), channels = layer.kernel_size, layer.stride, layer.dilation, layer.in_channels
    return (
        k == k2 and s == s2 and d == d2
        and k in KERNEL_SIZES and s in (1, 2) and d in (1, 2)
        and tuple(layer.padding) == (d * (k - 1) // 2,) * 2
        and layer.groups == channels == layer.out_channels
        and layer.bias is None and layer.padding_mode == "zeros"
    )  # fmt: skip


def pool_of(layer: nn.Module) -> Pool | None:
    """The pooling that ``pool3x3`` serves, or None."""
    if not isinstance(layer, nn.MaxPool2d | nn.AvgPool2d):
        return None
    sizes = [v if isinstance(v, tuple) else (v, v) for v in (layer.kernel_size, layer.stride, layer.padding)]
    if sizes[0] != (3, 3) or sizes[1] not in ((1, 1), (2, 2)) or sizes[2] != (1, 1) or layer.ceil_mode:
        return None
    if isinstance(layer, nn.MaxPool2d):
        plain = layer.dilation in (1, (1, 1)) and not layer.return_indices
        return Pool(True, sizes[1][0]) if plain else None
    plain = not layer.count_include_pad and layer.divisor_override is None
    return Pool(False, sizes[1][0]) if plain else None


def steps_of(layers: Sequence[nn.Module]) -> list[Step] | None:
    """The steps of a sequence of layers; None where a layer is used in a way that no step serves."""
    layers = [layer for layer in layers if not isinstance(layer, nn.Identity)]
    steps: list[Step] = []
    i = 0
    while i < len(layers):
        layer, rest = layers[i], layers[i + 1 : i + 3]
        norm = layer if isinstance(layer, nn.BatchNorm2d) else None
        if norm is not None and not norm.affine and len(rest) == 2 and _is_relu(rest[0]) and is_depthwise(rest[1]):
            steps.append(Filter(_conv(rest[1]), norm))
            i += 3
        elif norm is not None:
            relu = bool(rest) and _is_relu(rest[0])
            steps.append(Norm(norm, relu))
            i += 2 if relu else 1
        elif _is_relu(layer):
            if i == 0 and getattr(layer, "inplace", False):  # would change what the other ops read
                return None
            fused = bool(rest) and is_depthwise(rest[0])
            steps.append(Filter(_conv(rest[0])) if fused else Relu())
            i += 2 if fused else 1
        elif isinstance(layer, nn.Conv2d) and layer.padding_mode == "zeros":
            steps.append(Conv(layer))
            i += 1
        elif (pool := pool_of(layer)) is not None:
            steps.append(pool)
            i += 1
        else:
            return None
    return steps


def halving(layers: Sequence[nn.Module], pad: bool) -> list[Step] | None:
    """The steps of a FactorizedReduce with its norm, if its layers, in any order, are those of one."""
    convs = [layer for layer in layers if isinstance(layer, nn.Conv2d)]
    batch_norms = [layer for layer in layers if isinstance(layer, nn.BatchNorm2d)]
    others = [layer for layer in layers if not isinstance(layer, nn.Conv2d | nn.BatchNorm2d | nn.ReLU)]
    if len(convs) != 2 or len(batch_norms) != 1 or others:
        return None
    if any(conv.kernel_size != (1, 1) or conv.stride != (2, 2) or conv.groups != 1 for conv in convs):
        return None
    return [Halve(convs[0], convs[1], pad), Norm(batch_norms[0], False)]


def _is_relu(layer: nn.Module) -> bool:
    return isinstance(layer, nn.ReLU)


def _conv(layer: nn.Module) -> nn.Conv2d:
    assert isinstance(layer, nn.Conv2d)
    return layer

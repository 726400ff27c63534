"""What an op is made of: a module's layers in order, grouped into the steps that the kernels serve.

A step reads a tensor and hands one on. The first step of an op may be shared with other ops that read the same input
(``family``). An affine-free batch norm at the end is not a step: the sum that takes the op's output applies it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ddarts_ext import ops
from ddarts_ext.acceleration import norms
from ddarts_ext.nn.norm import elements_per_group
from ddarts_ext.nn.pointwise import in_channels_last, pointwise
from ddarts_ext.ops.relu_depthwise_conv2d import KERNEL_SIZES

_OF_HALVES = (nn.Conv2d, nn.BatchNorm2d, nn.ReLU, nn.ConstantPad2d, nn.Identity)
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
    """[affine-free norm,] ReLU, depthwise convolution[, 1x1 convolution]."""

    conv: nn.Conv2d
    norm: nn.BatchNorm2d | None = None
    mix: nn.Conv2d | None = None

    @property
    def family(self) -> tuple[object, ...] | None:
        mixed = None if self.mix is None else self.mix.out_channels
        return ("filter", self.conv.stride[0], mixed) if self.norm is None else None

    def run(self, x: Tensor, context: Context) -> Tensor:
        if self.norm is None:
            return run_family([self], x, context)[0]
        outputs, statistics = run_normed([self], [x])
        for found in statistics:
            context.running.record(*found)
        return outputs[0]


Statistics: TypeAlias = "tuple[list[nn.BatchNorm2d], Tensor, Tensor, int]"
"""What ``Running.record`` takes."""


def run_normed(filters: Sequence[Filter], inputs: Sequence[Tensor]) -> tuple[list[Tensor], list[Statistics]]:
    """Filters of equal :func:`normed_family` on an input each: their outputs, and what their norms have to record."""
    batch_norms = [step.norm for step in filters if step.norm is not None]
    means, rstds = zip(*(norms.given(norm) for norm in batch_norms), strict=True)
    given = means[0] is not None
    result = filter_together(
        filters,
        inputs,
        normalize=True,
        mean=torch.stack(means, 1) if given else None,
        rstd=torch.stack(rstds, 1) if given else None,
        eps=batch_norms[0].eps,
    )
    if given:
        return result.outputs, []
    values = elements_per_group(inputs[0], 1)
    rows = zip(batch_norms, result.mean.unbind(1), result.rstd.unbind(1), strict=True)
    return result.outputs, [([norm], mean, rstd, values) for norm, mean, rstd in rows]


def normed_family(step: Step, x: Tensor) -> tuple[object, ...] | None:
    """Steps of equal family run in one launch, though they read different tensors; None: by itself."""
    if not isinstance(step, Filter) or step.norm is None or step.mix is None:
        return None
    return step.conv.stride[0], step.mix.out_channels, step.norm.eps, norms.uses_batch(step.norm), x.shape, x.dtype


def filter_together(filters: Sequence[Filter], inputs: Sequence[Tensor], **norm: Any) -> ops.ReluDepthwise:
    """Filters that all have a 1x1 convolution after them, or none has, on one input or an input each, in one launch.

    Statistics are [1,I,C]. Without 1x1 convolutions there is one input.
    """
    weights = [step.conv.weight for step in filters]
    dilations, stride = [step.conv.dilation[0] for step in filters], filters[0].conv.stride[0]
    mixing = [step.mix.weight for step in filters if step.mix is not None]
    if mixing:
        return ops.relu_separable_conv2d(inputs, weights, mixing, dilations=dilations, stride=stride, **norm)
    rows: dict[str, Any] = {
        name: value.squeeze(1) if isinstance(value, Tensor) else value for name, value in norm.items()
    }
    result = ops.relu_depthwise_conv2d(inputs[0], weights, dilations=dilations, stride=stride, **rows)
    return result._replace(mean=result.mean.unsqueeze(1), rstd=result.rstd.unsqueeze(1))


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
        return filter_together(filters, [x]).outputs
    pools = [step for step in steps if isinstance(step, Pool)]
    if not pools:
        return [step.run(x, context) for step in steps]
    maximum = any(pool.maximum for pool in pools)
    pooled = ops.pool3x3(x, stride=pools[0].stride, maximum=maximum, average=not all(pool.maximum for pool in pools))
    found = [pooled.maximum if pool.maximum else pooled.average for pool in pools]
    return [tensor for tensor in found if tensor is not None]


def channels_of(module: nn.Module) -> int:
    """Channels that a module reads, as its first layer with channels says; 0 where none does."""
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d):
            return layer.in_channels
        if isinstance(layer, nn.BatchNorm2d):
            return layer.num_features
    return 0


def layers_of(module: nn.Module) -> list[nn.Module] | None:
    """The leaf layers of a module in the order they are registered in; None where one is of an unknown kind."""
    if type(module).__dict__.get("_ddarts_base", type(module)) in LAYERS:  # its class before it was routed
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


def is_mixing(layer: nn.Module) -> bool:
    """Whether ``relu_separable_conv2d`` serves the convolution after a depthwise one."""
    return (
        isinstance(layer, nn.Conv2d)
        and layer.kernel_size == (1, 1) and layer.stride == (1, 1) and tuple(layer.padding) == (0, 0)
        and layer.groups == 1 and layer.bias is None
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
            mix = _mix_at(layers, i + 3)
            steps.append(Filter(_conv(rest[1]), norm, mix))
            i += 3 if mix is None else 4
        elif norm is not None:
            relu = bool(rest) and _is_relu(rest[0])
            steps.append(Norm(norm, relu))
            i += 2 if relu else 1
        elif _is_relu(layer):
            if i == 0 and getattr(layer, "inplace", False):  # would change what the other ops read
                return None
            if rest and is_depthwise(rest[0]):
                mix = _mix_at(layers, i + 2)
                steps.append(Filter(_conv(rest[0]), None, mix))
                i += 2 if mix is None else 3
            else:
                steps.append(Relu())
                i += 1
        elif isinstance(layer, nn.Conv2d) and layer.padding_mode == "zeros":
            steps.append(Conv(layer))
            i += 1
        elif (pool := pool_of(layer)) is not None:
            steps.append(pool)
            i += 1
        else:
            return None
    return steps


def halves_of(module: nn.Module) -> tuple[nn.Conv2d, nn.Conv2d, nn.BatchNorm2d] | None:
    """The two convolutions and the norm of a FactorizedReduce, whatever its layers are held in, or None."""
    leaves: list[nn.Module] = []
    for inner in module.modules():
        if inner._modules:
            continue
        if len(leaves) > 6 or not isinstance(inner, _OF_HALVES):
            return None
        leaves.append(inner)
    convs = [layer for layer in leaves if isinstance(layer, nn.Conv2d)]
    batch_norms = [layer for layer in leaves if isinstance(layer, nn.BatchNorm2d)]
    if len(convs) != 2 or len(batch_norms) != 1:
        return None
    if any(conv.kernel_size != (1, 1) or conv.stride != (2, 2) or conv.groups != 1 for conv in convs):
        return None
    return convs[0], convs[1], batch_norms[0]


def halving(module: nn.Module, pad: bool) -> list[Step] | None:
    """The steps of a FactorizedReduce with its norm, if the module's layers, in any order, are those of one."""
    found = halves_of(module)
    return None if found is None else [Halve(found[0], found[1], pad), Norm(found[2], False)]


def _mix_at(layers: Sequence[nn.Module], i: int) -> nn.Conv2d | None:
    """The 1x1 convolution at place ``i``, if there is one that a depthwise one before it can take along."""
    return _conv(layers[i]) if i < len(layers) and is_mixing(layers[i]) else None


def _is_relu(layer: nn.Module) -> bool:
    return isinstance(layer, nn.ReLU)


def _conv(layer: nn.Module) -> nn.Conv2d:
    assert isinstance(layer, nn.Conv2d)
    return layer

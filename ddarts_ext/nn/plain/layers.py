"""The ops of all search spaces as torch's own layers; nothing but torch is imported."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import torch
from torch import Tensor, nn


def named(**layers: nn.Module) -> nn.Sequential:
    """Layers one after the other, by name."""
    return nn.Sequential(OrderedDict(layers))


def conv(channels_in: int, channels: int, kernel: Any = 1, stride: Any = 1, padding: Any = 0, **more: Any) -> nn.Conv2d:
    """A convolution without bias, as a norm follows all of them."""
    return nn.Conv2d(channels_in, channels, kernel, stride, padding, bias=False, **more)


def depthwise(channels: int, kernel: int, stride: int, dilation: int = 1) -> nn.Conv2d:
    """One filter a channel; the output has the size of the input, divided by the stride."""
    padding = dilation * (kernel // 2)
    return conv(channels, channels, kernel, stride, padding, dilation=dilation, groups=channels)


def separable(channels: int, kernel: int, stride: int) -> nn.Sequential:
    """``sep_conv``: twice ReLU, depthwise and pointwise convolution, norm; the first time with the stride."""
    return named(
        relu1=nn.ReLU(),
        depthwise1=depthwise(channels, kernel, stride),
        pointwise1=conv(channels, channels),
        norm1=nn.BatchNorm2d(channels),
        relu2=nn.ReLU(),
        depthwise2=depthwise(channels, kernel, 1),
        pointwise2=conv(channels, channels),
        norm=nn.BatchNorm2d(channels),
    )


def dilated(channels: int, kernel: int, stride: int) -> nn.Sequential:
    """``dil_conv``: ReLU, depthwise convolution of every second pixel, pointwise convolution, norm."""
    return named(
        relu=nn.ReLU(),
        depthwise1=depthwise(channels, kernel, stride, 2),
        pointwise1=conv(channels, channels),
        norm=nn.BatchNorm2d(channels),
    )


def square(channels_in: int, channels: int, kernel: int, stride: int) -> nn.Sequential:
    """``simple_conv`` and ``nor_conv``, and the preprocessing of a cell: ReLU, convolution, norm."""
    return named(
        relu=nn.ReLU(),
        conv=conv(channels_in, channels, kernel, stride, kernel // 2),
        norm=nn.BatchNorm2d(channels),
    )


def split(channels: int, kernel: int, stride: int) -> nn.Sequential:
    """``conv_7x1_1x7`` and ``conv_3x1_1x3``: ReLU, a row, a column, norm."""
    return named(
        relu=nn.ReLU(),
        row=conv(channels, channels, (1, kernel), (1, stride), (0, kernel // 2)),
        column=conv(channels, channels, (kernel, 1), (stride, 1), (kernel // 2, 0)),
        norm=nn.BatchNorm2d(channels),
    )


def bottleneck(channels: int, stride: int) -> nn.Sequential:
    """``bottleneck_1x3x1``: ReLU, 1x1, norm, 3x3, norm, 1x1 to 4C, norm, ReLU, 1x1 back to C, norm."""
    return named(
        relu=nn.ReLU(),
        enter=conv(channels, channels),
        enter_norm=nn.BatchNorm2d(channels),
        middle=conv(channels, channels, 3, stride, 1),
        middle_norm=nn.BatchNorm2d(channels),
        widen=conv(channels, 4 * channels),
        widen_norm=nn.BatchNorm2d(4 * channels),
        widen_relu=nn.ReLU(),
        leave=conv(4 * channels, channels),
        norm=nn.BatchNorm2d(channels),
    )


class FactorizedReduce(nn.Module):
    """ReLU, two 1x1 convolutions of every second pixel, one of them a pixel further right and down, norm.

    What lies beyond an odd side is zero.
    """

    def __init__(self, channels_in: int, channels: int) -> None:
        super().__init__()
        self.relu = nn.ReLU()
        self.even = conv(channels_in, channels // 2, stride=2)
        self.odd = conv(channels_in, channels // 2, stride=2)
        self.pad = nn.ZeroPad2d((0, 1, 0, 1))
        self.norm: nn.Module = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        """[N, Ci, H, W] -> [N, C, ceil(H/2), ceil(W/2)]."""
        x = self.relu(x)
        out: Tensor = self.norm(torch.cat((self.even(x), self.odd(self.pad(x)[:, :, 1:, 1:])), 1))
        return out


OWN = dict[str, Any]()
"""Ops that were registered by name: what makes the module of one, of its channels and stride."""


def make_op(name: str, channels: int, stride: int) -> nn.Module:
    """The op of that name, with ``channels`` in and out, its last norm included."""
    if name in OWN:
        return named(op=OWN[name](channels, stride), norm=nn.BatchNorm2d(channels))
    kind, _, size = name.rpartition("_")
    if name == "skip_connect":
        return nn.Identity() if stride == 1 else FactorizedReduce(channels, channels)
    if name == "bottleneck_1x3x1":
        return bottleneck(channels, stride)
    if name in ("conv_3x1_1x3", "conv_7x1_1x7"):
        return split(channels, int(size[-1]), stride)
    kernel = int(size[0])
    if kind == "max_pool":
        return nn.MaxPool2d(kernel, stride, kernel // 2)
    if kind == "avg_pool":
        return nn.AvgPool2d(kernel, stride, kernel // 2, count_include_pad=False)
    if kind in ("sep_conv", "dua_sepc"):
        return separable(channels, kernel, stride)
    if kind in ("dil_conv", "dil_sepc"):
        return dilated(channels, kernel, stride)
    if kind in ("simple_conv", "nor_conv"):
        return square(channels, channels, kernel, stride)
    raise ValueError(f"make_op: name must be that of an op, got {name!r}")

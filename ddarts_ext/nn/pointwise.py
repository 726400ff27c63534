"""Convolutions by the library, in the layout of their input."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def in_channels_last(x: Tensor) -> bool:
    """Whether [N, C, H, W] is laid out as [N, H, W, C]."""
    return x.is_contiguous(memory_format=torch.channels_last)


def pointwise(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """1x1 convolution: x [N, Ci, H, W], weight [Co, Ci, 1, 1] -> [N, Co, H, W] in the layout of x.

    In channels-last it is a matrix product over [N*H*W, Ci], twice as fast on a CPU as the convolution.
    """
    if not in_channels_last(x):
        return F.conv2d(x, weight, bias)
    return F.linear(x.permute(0, 2, 3, 1), weight.flatten(1), bias).permute(0, 3, 1, 2)


def conv2d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: tuple[int, int] = (1, 1),
    padding: tuple[int, int] = (0, 0),
) -> Tensor:
    """``F.conv2d`` whose output keeps the layout of x (in float64 on a CPU torch's does not)."""
    out = F.conv2d(x, weight, bias, stride, padding)
    return out.contiguous(memory_format=torch.channels_last) if in_channels_last(x) else out


def conv_weight(*shape: int) -> nn.Parameter:
    """A weight [Co, Ci/groups, kh, kw], initialised as ``nn.Conv2d`` does."""
    weight = nn.Parameter(torch.empty(shape))
    nn.init.kaiming_uniform_(weight, a=math.sqrt(5))
    return weight


def conv_bias(channels: int, fan_in: int) -> nn.Parameter:
    """A bias [Co], initialised as ``nn.Conv2d`` does."""
    bound = 1 / math.sqrt(fan_in)
    return nn.Parameter(torch.empty(channels).uniform_(-bound, bound))

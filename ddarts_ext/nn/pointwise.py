"""Convolutions by the library, in the layout of their input."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ddarts_ext.ops._pointwise import in_channels_last, pointwise

__all__ = ["biased", "conv2d", "conv_bias", "conv_weight", "in_channels_last", "pointwise"]


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


def biased(x: Tensor, bias: Tensor | None) -> Tensor:
    """x [N, C, H, W] with a bias [C] added, if there is one."""
    return x if bias is None else x + bias[:, None, None]

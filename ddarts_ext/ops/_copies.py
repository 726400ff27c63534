"""The copies that a CUDA op asks torch for before its kernels run: one launch each."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def dense(x: Tensor | None, dtype: torch.dtype) -> int:
    """Copies that make a contiguous tensor of this dtype."""
    if x is None or x.numel() == 0:
        return 0
    return int(x.dtype != dtype) + int(not x.is_contiguous())


def in_layout(x: Tensor | None, layout: torch.memory_format) -> int:
    """Copies that put an image into a layout."""
    return 0 if x is None or x.numel() == 0 or x.is_contiguous(memory_format=layout) else 1


def in_pieces(x: Tensor, layout: torch.memory_format) -> int:
    """The same where some of the channels of a channels-last image are read as they are."""
    if layout == torch.channels_last and x.numel():
        _, c, h, w = x.shape
        pitch = next((x.stride(axis) // step for axis, step in ((3, 1), (2, w), (0, h * w)) if x.shape[axis] > 1), c)
        strides = zip(x.shape, x.stride(), (h * w * pitch, 1, w * pitch, pitch), strict=True)
        if pitch >= c and all(size == 1 or stride == wanted for size, stride, wanted in strides):
            return 0
    return in_layout(x, layout)


def batches(count: int, most: int) -> int:
    return math.ceil(count / most)

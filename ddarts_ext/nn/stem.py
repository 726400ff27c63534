"""What comes before the first cell."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ddarts_ext.nn.forward_pass import Pass
from ddarts_ext.nn.norm import GroupedNorm
from ddarts_ext.nn.pointwise import conv2d, conv_weight

STEMS = ("cifar", "imagenet", "imagenet_stride4")


def suited_stem(size: tuple[int, int]) -> str:
    """``cifar``, which keeps the size of images, up to 64 pixels; ``imagenet`` above, so that cells see an eighth."""
    return "imagenet" if max(size) > 64 and min(size) >= 32 else "cifar"


class ConvNorm(nn.Module):
    """3x3 convolution and affine norm; ReLU before the one or after the other where asked."""

    def __init__(self, channels_in: int, channels: int, stride: int = 1) -> None:
        super().__init__()
        self.weight = conv_weight(channels, channels_in, 3, 3)
        self.norm = GroupedNorm(channels, affine=True)
        self.stride = (stride, stride)

    def forward(self, x: Tensor, p: Pass, relu: bool = False) -> Tensor:
        out: Tensor = self.norm(conv2d(x, self.weight, None, self.stride, (1, 1)), p, relu=relu)
        return out


class Stem(nn.Module):
    """Images [N, in_channels, H, W] -> (s0, s1), in channels-last.

    ``cifar``: s0 = s1 at full size, 3C channels (``multiplier`` * C). ``imagenet``: s0 at a quarter, s1 at an eighth
    of the size, C channels each; ``imagenet_stride4``: at a half and a quarter (D-DARTS, for three reductions).
    """

    def __init__(self, kind: str, in_channels: int, channels: int, multiplier: int = 3) -> None:
        super().__init__()
        if kind not in STEMS:
            raise ValueError(f"stem: must be one of {', '.join(STEMS)}, got {kind!r}")
        self.kind = kind
        if kind == "cifar":
            self.conv = ConvNorm(in_channels, multiplier * channels)
            self.channels, self.stride = multiplier * channels, 1
        else:
            second = 1 if kind == "imagenet_stride4" else 2
            self.conv = ConvNorm(in_channels, channels // 2, 2)
            self.conv0 = ConvNorm(channels // 2, channels, second)
            self.conv1 = ConvNorm(channels, channels, 2)
            self.channels, self.stride = channels, 4 * second

    @property
    def reduces(self) -> bool:
        """Whether s1 is half the size of s0, so that the first cell must halve s0."""
        return self.kind != "cifar"

    def forward(self, x: Tensor, p: Pass) -> tuple[Tensor, Tensor]:
        x = x.contiguous(memory_format=torch.channels_last)
        if self.kind == "cifar":
            s = self.conv(x, p)
            return s, s
        s0 = self.conv0(self.conv(x, p, relu=True), p)
        return s0, self.conv1(s0.relu(), p)


def check_network(name: str, *, cells: int, channels: int, classes: int, in_channels: int) -> None:
    """Raise ValueError for sizes no network has."""
    for argument, value in (("cells", cells), ("classes", classes), ("in_channels", in_channels)):
        if value < 1:
            raise ValueError(f"{name}: {argument} must be >= 1, got {value}")
    if channels < 2 or channels % 2:
        raise ValueError(f"{name}: channels must be even and >= 2, got {channels}")


def check_images(name: str, x: Tensor, in_channels: int, divisor: int) -> None:
    """Raise ValueError for images with other channels, or too small to be halved as often as the network does."""
    if x.dim() != 4 or x.shape[1] != in_channels:
        raise ValueError(f"{name}: images must be [N,{in_channels},H,W], got {list(x.shape)}")
    if min(x.shape[2:]) < divisor:
        raise ValueError(
            f"{name}: images must be at least {divisor}x{divisor} for a network that divides their sides by {divisor}, "
            f"got {x.shape[2]}x{x.shape[3]}"
        )

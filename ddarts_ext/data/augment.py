"""Augmentation of a whole batch on its device: uint8 images in, normalised float images out.

Crop and flip are one gather (the index of every output pixel is computed, then read once), so the result comes out
channels-last at no extra cost. All random numbers come from the generator that is passed in.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from ddarts_ext.runs.draws import DrawsFrom
from ddarts_ext.runs.options import declared, option
from ddarts_ext.runs.share import own, own_seed, whole

POLICIES = ("cifar10", "imagenet", "svhn")


@dataclass(frozen=True)
class Augmentation:
    """What training images go through. Sizes are in pixels; 0 and False and None switch a part off.

    crop_padding: zeros added on each side before a random crop back to the image's size.
    flip: mirror left to right with probability one half.
    cutout: side of the square set to the mean colour, its centre uniform over the pixels (DeVries and Taylor, 2017).
    autoaugment: a policy of AutoAugment (``cifar10``, ``imagenet``, ``svhn``), applied through kornia.
    """

    crop_padding: int = 0
    flip: bool = False
    cutout: int = 0
    autoaugment: str | None = option(
        None,
        "AutoAugment of the training images: cifar10, imagenet, svhn, or none where a recipe has it.",
        shown="none",
        choices=POLICIES,
    )

    def __post_init__(self) -> None:
        for name in ("crop_padding", "cutout"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int):
                raise TypeError(f"augmentation: {name} must be a whole number of pixels, got {value!r}")
            if value < 0:
                raise ValueError(f"augmentation: {name} must be 0 or more pixels, got {value}")
        if not isinstance(self.flip, bool):
            raise TypeError(f"augmentation: flip must be true or false, got {self.flip!r}")
        if self.autoaugment is not None and self.autoaugment not in POLICIES:
            raise ValueError(
                f"augmentation: autoaugment must be one of {', '.join(POLICIES)}, got {self.autoaugment!r}"
            )


OPTIONS = declared(Augmentation, "augmentation")
"""What can be said of the augmentation of a run, by name."""


def taken_from(said: dict[str, Any], default: Augmentation) -> Augmentation:
    """The augmentation in what was said of a run: ``augmentation`` as a whole, else ``default``, with the fields that
    were said by name. What it takes is removed from ``said``."""
    whole = said.pop("augmentation", default)
    if not isinstance(whole, Augmentation):
        raise TypeError(f"augmentation: augmentation must be an Augmentation, got {type(whole).__name__}")
    return replace(whole, **{name: said.pop(name) for name in OPTIONS if name in said})


def suited(size: tuple[int, int], channels: int) -> Augmentation:
    """Defaults for data of unknown content: colour images are flipped and cut out, grey ones (often signs) are not."""
    shorter = min(size)
    photographs = channels == 3
    return Augmentation(
        crop_padding=max(1, round(shorter / 8)),
        flip=photographs,
        cutout=shorter // 2 if photographs and shorter >= 24 else 0,
    )


def normalise(images: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """Pixel values from 0 to 255, uint8 or float32 [B, C, H, W], to float32: (x / 255 - mean) / std per channel, in the
    layout of the input, which is used up where it is float32."""
    scale, shift = _scale_and_shift(tuple(mean), tuple(std), images.device)
    return images.to(torch.float32).mul_(scale).sub_(shift)


@functools.lru_cache(maxsize=32)
def _scale_and_shift(mean: tuple[float, ...], std: tuple[float, ...], device: torch.device) -> tuple[Tensor, Tensor]:
    """Both [C, 1, 1], made once: a copy from the host for every batch would keep a step out of a CUDA graph."""
    with torch.inference_mode(False):
        scale = torch.tensor([1 / (255 * s) for s in std], device=device)
        shift = torch.tensor([m / s for m, s in zip(mean, std, strict=True)], device=device)
        return scale[:, None, None], shift[:, None, None]


def augment(
    images: Tensor,
    how: Augmentation,
    mean: Sequence[float],
    std: Sequence[float],
    *,
    generator: torch.Generator,
) -> Tensor:
    """Crop, flip, normalise and cut out a batch: uint8 [B, C, H, W] to float32 of the same size, channels-last.

    generator: lives on the images' device; the order of draws is fixed, so its state makes a run resumable.
    """
    if how.crop_padding or how.flip:
        images = _crop_and_flip(images, how.crop_padding, how.flip, generator)
    if how.autoaugment is not None:
        images = _autoaugment(images, how.autoaugment, generator)
    out = normalise(images, mean, std).contiguous(memory_format=torch.channels_last)
    return _cutout(out, how.cutout, generator) if how.cutout else out


def _crop_and_flip(images: Tensor, padding: int, flip: bool, generator: torch.Generator) -> Tensor:
    batch, _, height, width = images.shape
    device = images.device
    rows = torch.arange(height, device=device).expand(batch, height)
    cols = torch.arange(width, device=device).expand(batch, width)
    if flip:
        mirrored = own(torch.rand(whole(batch), 1, device=device, generator=generator)) < 0.5
        cols = torch.where(mirrored, width - 1 - cols, cols)
    if padding:
        offsets = own(torch.randint(0, 2 * padding + 1, (2, whole(batch), 1), device=device, generator=generator), 1)
        rows, cols = rows + offsets[0], cols + offsets[1]
        images = torch.nn.functional.pad(images, (padding, padding, padding, padding))
    each = torch.arange(batch, device=device)[:, None, None]
    return images.permute(0, 2, 3, 1)[each, rows[:, :, None], cols[:, None, :]].permute(0, 3, 1, 2)


def _cutout(images: Tensor, side: int, generator: torch.Generator) -> Tensor:
    batch, _, height, width = images.shape
    device = images.device
    centre = own(torch.rand(2, whole(batch), 1, device=device, generator=generator), 1)

    def covered(length: int, where: Tensor) -> Tensor:
        start = (where * length).floor() - side // 2
        position = torch.arange(length, device=device)
        return (position >= start) & (position < start + side)

    hole = covered(height, centre[0])[:, :, None] & covered(width, centre[1])[:, None, :]
    return images.masked_fill(hole[:, None], 0.0)


def _autoaugment(images: Tensor, policy: str, generator: torch.Generator) -> Tensor:
    """Every image goes through a sub-policy of its own, with its own draws (Cubuk et al., 2019)."""
    policies = _policies(policy)
    chosen = own(torch.randint(len(policies), (whole(len(images)),), generator=generator, device=generator.device))
    seed = int(torch.randint(0, 2**31, (1,), device=generator.device, generator=generator))
    out = images.to(torch.float32).div(255)
    # kornia names no generator, and would draw from the global one. Images of one sub-policy go together, as it draws
    # for each of them.
    with DrawsFrom(torch.Generator().manual_seed(own_seed(seed))):
        for number in sorted(set(chosen.tolist())):
            rows = (chosen == number).nonzero().flatten().to(images.device)
            out[rows] = policies[number](out[rows])
    return out.mul(255).round().clamp(0, 255).to(torch.uint8)


@functools.lru_cache(maxsize=len(POLICIES))
def _policies(policy: str) -> tuple[Any, ...]:
    """The sub-policies of a policy."""
    try:
        from kornia.augmentation import auto
    except ImportError as error:
        raise ValueError(
            "augmentation: autoaugment needs the package kornia (pip install 'ddarts_ext[augment]'), "
            f"which does not import here: {error}"
        ) from error
    return tuple(auto.AutoAugment(policy).children())

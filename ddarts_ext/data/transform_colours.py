"""Colours of training images, changed by kornia's functions on pixel values from 0 to 1, and RandAugment."""

from __future__ import annotations

import functools
import importlib
from typing import Any

import torch
from torch import Tensor

from ddarts_ext.runs.draws import DrawsFrom
from ddarts_ext.runs.share import own, own_seed, whole

# Eigenvalues and -vectors of the colours of ImageNet, from 0 to 1 (Krizhevsky et al., 2012; from fb.resnet.torch).
_EIGENVALUES = (0.2175, 0.0188, 0.0045)
_EIGENVECTORS = ((-0.5675, 0.7192, 0.4009), (-0.5808, -0.0045, -0.8140), (-0.5836, -0.6948, 0.4203))

# Names and ranges of RandAugment's ops as kornia has them; a range is for magnitudes from 0 to 30.
RANDAUGMENT: tuple[tuple[str, float, float], ...] = (
    ("auto_contrast", 0, 1), ("equalize", 0, 1), ("invert", 0, 1), ("rotate", -30.0, 30.0), ("posterize", 4.0, 8.0),
    ("solarize", 0.0, 1.0), ("solarize_add", 0.0, 0.43), ("color", 0.1, 1.9), ("contrast", 0.1, 1.9),
    ("brightness", 0.1, 1.9), ("sharpness", 0.1, 1.9), ("shear_x", -0.3, 0.3), ("shear_y", -0.3, 0.3),
    ("translate_x", -0.1, 0.1), ("translate_y", -0.1, 0.1),
)  # fmt: skip


def jittered(images: Tensor, jitter: tuple[float, ...], draws: torch.Generator) -> Tensor:
    """Float images [B, 3, H, W] from 0 to 1 with other brightness, contrast, saturation and hue, as torchvision's
    ColorJitter: every image has factors and an order of its own. draws: on the CPU."""
    adjust = _adjustments()
    count = len(images)
    spread = (2 * own(torch.rand(4, whole(count), generator=draws), 1) - 1) * torch.tensor(jitter)[:, None]
    factors = spread + torch.tensor([1.0, 1.0, 1.0, 0.0])[:, None]
    factors[3] *= 2 * torch.pi
    order = own(torch.rand(whole(count), 4, generator=draws)).argsort(1)
    on_device = factors.to(images.device)
    out = images.clone()
    for place in range(4):
        for kind in range(4):
            rows = (order[:, place] == kind).nonzero().flatten().to(images.device)
            if len(rows) and jitter[kind]:
                out[rows] = adjust[kind](out[rows], on_device[kind, rows]).clamp(0, 1)
    return out


def lighting_shift(count: int, std: float, draws: torch.Generator) -> Tensor:
    """float32 [count, 3]: what is added to red, green and blue: sum over components i of a_i l_i p_i, a ~ N(0, std)."""
    alpha = own(torch.randn(whole(count), 3, generator=draws)) * std
    return alpha * torch.tensor(_EIGENVALUES) @ torch.tensor(_EIGENVECTORS).T


def randaugmented(images: Tensor, ops: int, magnitude: int, draws: torch.Generator) -> Tensor:
    """Float images [B, 3, H, W] from 0 to 1 through RandAugment (1909.13719). draws: on the CPU.

    Every image goes through ops of its own, none twice; those whose turn is the same op go together.
    """
    policy = _policy(magnitude)
    order = own(torch.rand(whole(len(images)), len(policy), generator=draws)).argsort(1)[:, :ops]
    out = images
    if (seed := own_seed(draws.initial_seed())) != draws.initial_seed():
        draws = torch.Generator().manual_seed(seed)
    with DrawsFrom(draws):
        for turn in range(ops):
            before, out = out, out.clone()
            for number in sorted(set(order[:, turn].tolist())):
                rows = (order[:, turn] == number).nonzero().flatten().to(images.device)
                out[rows] = policy[number](before[rows]).clamp(0, 1)
    return out


@functools.lru_cache(maxsize=8)
def _policy(magnitude: int) -> tuple[Any, ...]:
    """RandAugment's ops one by one, each of which draws for every image what is left to chance."""
    kind = _kornia("augmentation.auto", "randaugment").RandAugment
    return tuple(kind(1, magnitude, [[op]]) for op in RANDAUGMENT)


def _adjustments() -> tuple[Any, ...]:
    """Of brightness, contrast, saturation and hue (in radians)."""
    enhance = _kornia("enhance", "jitter")
    return (
        enhance.adjust_brightness_accumulative,
        enhance.adjust_contrast_with_mean_subtraction,
        enhance.adjust_saturation_with_gray_subtraction,
        enhance.adjust_hue,
    )


def _kornia(module: str, what: str) -> Any:
    try:
        return importlib.import_module(f"kornia.{module}")
    except ImportError as error:
        raise ValueError(
            f"augmentation: {what} needs the package kornia (pip install 'ddarts_ext[augment]'), which does not import "
            f"here: {error}"
        ) from error

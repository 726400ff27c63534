"""What training images go through in some recipes beside crop, flip, cutout and AutoAugment (augment.py).

Whole batches on their device, every image with draws of its own, all from the generator that is passed in.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ddarts_ext.data.transform_colours import RANDAUGMENT, jittered, lighting_shift, randaugmented
from ddarts_ext.data.transform_crops import crop_boxes, resized
from ddarts_ext.runs.options import declared


@dataclass(frozen=True)
class Transforms:
    """In this order, before crop and flip; 0 and () switch a part off.

    resized_crop: the smallest share of the image's area; a random part of it with sides 3:4 to 4:3 is scaled back to
    the image's size (Inception's crop, 1409.4842; 0.08 in most code).
    jitter: largest change of brightness, contrast and saturation (a factor from 1 - v to 1 + v) and of hue (in turns),
    in random order.
    lighting: standard deviation of the noise along the principal components of colour (Krizhevsky et al., 2012).
    randaugment: ops that an image goes through one after the other (1909.13719), each of magnitude
    ``randaugment_magnitude`` of 30.
    erasing: probability that a rectangle of 2 % to 33 % of the area becomes the mean colour, after all else
    (1708.04896).
    """

    resized_crop: float = 0.0
    jitter: tuple[float, ...] = ()
    lighting: float = 0.0
    randaugment: int = 0
    randaugment_magnitude: int = 9
    erasing: float = 0.0

    def __post_init__(self) -> None:
        for name in ("resized_crop", "lighting", "erasing"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, (int, float)):
                raise TypeError(f"augmentation: {name} must be a number, got {value!r}")
            if not 0 <= value <= 1:
                raise ValueError(f"augmentation: {name} must be from 0 to 1, got {value!r}")
        jitter = self.jitter
        if not isinstance(jitter, (list, tuple)) or len(jitter) not in (0, 4):
            raise ValueError(f"augmentation: jitter must be 4 numbers or none, got {jitter!r}")
        object.__setattr__(self, "jitter", tuple(jitter))
        for value, most in zip(jitter, (1, 1, 1, 0.5)):  # noqa: B905  # none or four
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= most:
                raise ValueError(
                    f"augmentation: jitter must be of numbers from 0 to 1, the last to 0.5, got {jitter!r}"
                )
        for name, least, most in (("randaugment", 0, len(RANDAUGMENT)), ("randaugment_magnitude", 1, 29)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int):
                raise TypeError(f"augmentation: {name} must be a whole number, got {value!r}")
            if not least <= value <= most:
                raise ValueError(f"augmentation: {name} must be from {least} to {most}, got {value}")

    @property
    def colours(self) -> tuple[str, ...]:
        """Those parts that are in use and that only colour images can go through."""
        return tuple(name for name in ("jitter", "lighting", "randaugment") if getattr(self, name))


OPTIONS = declared(Transforms, "transforms")
"""What can be said of them in a training, by name."""


def transformed(images: Tensor, how: Transforms, generator: torch.Generator) -> Tensor:
    """uint8 [B, C, H, W] through all but erasing. generator: on the images' device."""
    if not how.resized_crop and not how.colours:
        return images
    out = images.to(torch.float32).div(255)
    if how.resized_crop:
        out = resized(out, crop_boxes(len(out), (out.shape[2], out.shape[3]), how.resized_crop, generator))
    if how.colours:
        seed = int(torch.randint(0, 2**31, (1,), device=generator.device, generator=generator))
        draws = torch.Generator().manual_seed(seed)
        if how.jitter:
            out = jittered(out, how.jitter, draws)
        if how.lighting:
            out = out.add(lighting_shift(len(out), how.lighting, draws).to(out)[:, :, None, None]).clamp(0, 1)
        if how.randaugment:
            out = randaugmented(out, how.randaugment, how.randaugment_magnitude, draws)
    return out.mul(255).round().clamp(0, 255).to(torch.uint8)

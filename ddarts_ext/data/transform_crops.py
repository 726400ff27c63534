"""Parts of images that are cut out to be scaled (RandomResizedCrop), or that are erased."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from ddarts_ext.runs import share

_RATIO = (3 / 4, 4 / 3)
_ERASED_AREA, _ERASED_RATIO = (0.02, 0.33), (0.3, 3.3)
_TRIES = 10


def _sides(
    count: int, whole: int, area: tuple[float, float], ratio: tuple[float, float], generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Heights and widths [count, tries] in whole pixels: shares of ``whole`` pixels uniform in ``area``, the logarithm
    of width by height uniform between those of ``ratio``."""
    u = share.own(torch.rand(2, share.whole(count), _TRIES, device=generator.device, generator=generator), 1)
    pixels = whole * (area[0] + (area[1] - area[0]) * u[0])
    low, high = map(math.log, ratio)
    by = (low + (high - low) * u[1]).exp()
    return (pixels / by).sqrt().round(), (pixels * by).sqrt().round()


def crop_boxes(count: int, size: tuple[int, int], least: float, generator: torch.Generator) -> Tensor:
    """float32 [count, 4]: top, left, height, width in pixels, whole numbers, as torchvision's RandomResizedCrop draws.

    The share of the area is uniform from ``least`` to 1, the logarithm of width by height uniform from that of 3/4 to
    that of 4/3; the first of ten draws that fits counts, else the largest part in the middle with sides in that range.
    """
    height, width = size
    device = generator.device
    h, w = _sides(count, height * width, (least, 1.0), _RATIO, generator)
    fits = (w > 0) & (w <= width) & (h > 0) & (h <= height)
    first = fits.int().argmax(1, keepdim=True)
    whole_w, whole_h = min(width, round(height * _RATIO[1])), min(height, round(width / _RATIO[0]))
    found = fits.any(1)
    w = torch.where(found, w.gather(1, first)[:, 0], float(whole_w))
    h = torch.where(found, h.gather(1, first)[:, 0], float(whole_h))
    place = share.own(torch.rand(2, share.whole(count), device=device, generator=generator), 1)
    top = torch.where(found, (place[0] * (height - h + 1)).floor(), ((height - h) / 2).floor())
    left = torch.where(found, (place[1] * (width - w + 1)).floor(), ((width - w) / 2).floor())
    return torch.stack([top, left, h, w], 1)


def resized(images: Tensor, boxes: Tensor) -> Tensor:
    """Those parts of float images [B, C, H, W], each scaled to H x W bilinearly: never smaller, so nothing aliases."""
    height, width = images.shape[2:]
    device = images.device

    def places(start: Tensor, length: Tensor, whole: int) -> Tensor:
        inside = (torch.arange(whole, device=device) + 0.5) * (length[:, None] / whole) - 0.5
        # Beyond the part's edge its outermost pixel counts, not the image around it.
        inside = torch.minimum(inside.clamp_min(0.0), length[:, None] - 1)
        return (start[:, None] + inside + 0.5) * (2 / whole) - 1

    y, x = places(boxes[:, 0], boxes[:, 2], height), places(boxes[:, 1], boxes[:, 3], width)
    grid = torch.stack(
        [x[:, None, :].expand(-1, height, -1), y[:, :, None].expand(-1, -1, width)], 3
    )  # [B, H, W, (x, y)]
    return F.grid_sample(images, grid.to(images.dtype), mode="bilinear", padding_mode="border", align_corners=False)


def erased(images: Tensor, probability: float, generator: torch.Generator) -> Tensor:
    """Normalised images, with this probability with a rectangle at 0; torchvision's RandomErasing, ten tries too."""
    count, _, height, width = images.shape
    device = images.device
    h, w = _sides(count, height * width, _ERASED_AREA, _ERASED_RATIO, generator)
    fits = (h < height) & (w < width)
    first = fits.int().argmax(1, keepdim=True)
    h, w = h.gather(1, first), w.gather(1, first)
    chosen = share.own(torch.rand(share.whole(count), device=device, generator=generator)) < probability
    place = share.own(torch.rand(2, share.whole(count), 1, device=device, generator=generator), 1)
    top, left = (place[0] * (height - h + 1)).floor(), (place[1] * (width - w + 1)).floor()
    rows, cols = torch.arange(height, device=device), torch.arange(width, device=device)
    hole = ((rows >= top) & (rows < top + h))[:, :, None] & ((cols >= left) & (cols < left + w))[:, None, :]
    return images.masked_fill((hole & (chosen & fits.any(1))[:, None, None])[:, None], 0.0)

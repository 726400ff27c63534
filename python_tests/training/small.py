"""Images that a small network learns in seconds, and how it is trained."""

from __future__ import annotations

from typing import Any

import torch

from ddarts_ext.data import Augmentation, Dataset, MemorySplit
from ddarts_ext.genotype import Genotype

GENOTYPE = Genotype(((("skip_connect", 2, 0), ("sep_conv_3x3", 2, 1)),) * 3, concat=(2,))  # type: ignore[arg-type]
SMALL: dict[str, Any] = {"channels": 4, "batch": 16, "lr": 0.1, "epochs": 6, "drop_path": 0.1, "device": "cpu"}


def stripes(classes: tuple[str, ...] = ("h", "v")) -> Dataset:
    """Horizontal against vertical stripes with noise."""
    generator = torch.Generator().manual_seed(0)

    def split(count: int) -> MemorySplit:
        labels = torch.arange(count) % 2
        bars = (torch.arange(8) % 2 * 120).expand(8, 8)
        images = torch.stack([bars if label else bars.T for label in labels.tolist()])
        images = images + torch.randint(0, 100, images.shape, generator=generator)
        return MemorySplit(images[:, None].to(torch.uint8), labels)

    return Dataset("stripes", split(64), split(32), classes, (8, 8), 1, (0.4,), (0.2,), Augmentation())

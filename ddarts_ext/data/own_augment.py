"""Augmentation by a function of one's own."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ddarts_ext.data.dataset import Dataset
from ddarts_ext.runs.share import own_seed

AugmentFunction = Callable[[Tensor], Tensor]
"""A batch uint8 [B, C, H, W] on the device of the run -> the same shape, uint8 or floats from 0 to 1."""


class PerImage:
    """See :func:`per_image`."""

    def __init__(self, transform: Callable[[Tensor], Any]) -> None:
        self.transform = transform
        self.__name__ = str(getattr(transform, "__name__", type(transform).__name__))

    def __call__(self, images: Tensor) -> Tensor:
        return torch.stack([self.transform(image) for image in images])


def per_image(transform: Callable[[Tensor], Any]) -> AugmentFunction:
    """An ``augment`` that takes the images of a batch through ``transform`` one by one, each with draws of its own.

    transform: uint8 [C, H, W] -> the same shape, uint8 or floats from 0 to 1; those of ``torchvision.transforms.v2``
    are such, which of a whole batch would draw once for all images.
    """
    return PerImage(transform)


class OwnAugment:
    """``function`` with all that it draws from the generators of torch, numpy and ``random`` as a run's own generator
    says, so that a run that is resumed sees what one that was not does."""

    def __init__(self, command: str, function: AugmentFunction) -> None:
        self.command, self.function = command, function

    def __call__(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Pixel values from 0 to 255, uint8 or float32."""
        seed = int(torch.randint(0, 2**31, (1,), device=generator.device, generator=generator))
        with torch.no_grad(), _seeded(own_seed(seed), images.device):
            found = self.function(images)
        if not isinstance(found, Tensor):
            raise TypeError(f"{self.command}: augment must give a tensor, got {type(found).__name__}")
        if found.shape != images.shape or not (found.dtype == torch.uint8 or found.is_floating_point()):
            raise ValueError(
                f"{self.command}: augment must give {list(images.shape)}, uint8 or floats from 0 to 1, got "
                f"{str(found.dtype).removeprefix('torch.')} {list(found.shape)}"
            )
        return found if found.dtype == torch.uint8 else found.float().mul(255)

    def tried(self, channels: int, size: tuple[int, int], device: torch.device) -> OwnAugment:
        """Itself, if it takes what a run gives it. Raises ValueError or TypeError."""
        images = torch.zeros(2, channels, *size, dtype=torch.uint8, device=device)
        try:
            self(images, torch.Generator())
        except (ValueError, TypeError) as error:
            if str(error).startswith(f"{self.command}: "):
                raise
            raise ValueError(f"{self.command}: augment must take uint8 {list(images.shape)}: {_line(error)}") from error
        except Exception as error:  # whatever a function of the caller raises
            raise ValueError(f"{self.command}: augment must take uint8 {list(images.shape)}: {_line(error)}") from error
        return self


def augmented_by(command: str, dataset: Dataset, function: AugmentFunction, device: torch.device) -> Dataset:
    """The data set whose training images go through ``function`` first. Raises ValueError or TypeError where that does
    not take what a run on ``device`` gives it."""
    own = OwnAugment(command, function).tried(dataset.channels, dataset.size, device)
    return replace(dataset, before=own)


def _line(error: Exception) -> str:
    return (str(error).splitlines() or [""])[0] or type(error).__name__


@contextmanager
def _seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Within it the global generators are at ``seed``; afterwards they are as they were."""
    states = random.getstate(), np.random.get_state()
    with torch.random.fork_rng([device] if device.type == "cuda" else [], device_type="cuda"):
        torch.manual_seed(seed)
        random.seed(seed)
        np.random.seed(seed)
        try:
            yield
        finally:
            random.setstate(states[0])
            np.random.set_state(states[1])

"""Dropout that is the same at every time step: variational masks (Gal and Ghahramani, 1512.05287)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor


@dataclass(frozen=True)
class Dropout:
    """Rates of a language model, each at least 0 and below 1.

    output: of what the cell gives, before the decoder. hidden: of the states that are multiplied by weights inside the
    cell. inputs: of what the cell reads. embedding: of the embedded words. words: of whole words of the vocabulary.
    """

    output: float = 0.0
    hidden: float = 0.0
    inputs: float = 0.0
    embedding: float = 0.0
    words: float = 0.0


class Masks(NamedTuple):
    """What is multiplied by in one pass, None where nothing is dropped: words [V,1], the others [B,H]."""

    words: Tensor | None = None
    embedding: Tensor | None = None
    inputs: Tensor | None = None
    hidden: Tensor | None = None
    output: Tensor | None = None


def mask(shape: Sequence[int], rate: float, like: Tensor, generator: torch.Generator | None) -> Tensor | None:
    """Zeros with the probability ``rate``, else 1 / (1 - rate), in dtype and on the device of ``like``; None for a rate
    of 0."""
    if not rate:
        return None
    kept = torch.rand(shape, generator=generator, dtype=like.dtype, device=like.device) + (1 - rate)
    return kept.floor_().div_(1 - rate)


def masked(x: Tensor, by: Tensor | None) -> Tensor:
    """x times a mask, or x itself."""
    return x if by is None else x * by

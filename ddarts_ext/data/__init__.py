"""Image data: ``load(name or path)`` gives a :class:`Dataset` that knows its sizes, classes and augmentation."""

from ddarts_ext.data.augment import Augmentation, augment, normalise
from ddarts_ext.data.dataset import Dataset, MemorySplit, Split
from ddarts_ext.data.decode import UnreadableImage
from ddarts_ext.data.own_augment import per_image
from ddarts_ext.data.sources import load

__all__ = [
    "Augmentation",
    "Dataset",
    "MemorySplit",
    "Split",
    "UnreadableImage",
    "augment",
    "load",
    "normalise",
    "per_image",
]

"""Some of the images of a split, as a split."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ddarts_ext.data.dataset import Dataset, Split
from ddarts_ext.data.order import canonical_order, divided


@dataclass(frozen=True, eq=False)
class Subset:
    """The images of ``split`` at ``indices`` (int64, CPU), which are read where they are."""

    split: Split
    indices: Tensor

    def __len__(self) -> int:
        return len(self.indices)

    @property
    def labels(self) -> Tensor:
        labels = self.split.labels
        return labels[self.indices.to(labels.device)]

    def keys(self) -> list[bytes]:
        """Those of the split; by their place where it has none."""
        known = getattr(self.split, "keys", None)
        indices = self.indices.tolist()
        if known is None:
            return [index.to_bytes(8, "big") for index in indices]
        found = known()
        return [found[index] for index in indices]

    def batches(self, indices: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        return self.split.batches(self.indices[indices])

    def to(self, device: torch.device) -> Subset:
        return replace(self, split=self.split.to(device))


def held_out(dataset: Dataset, fraction: float, seed: int) -> Dataset:
    """The data set for choosing: ``fraction`` of the training images, stratified, in the place of its test images.

    What is chosen by them was not chosen by the test images, which the result does not have.
    """
    train = dataset.train
    rest, held = divided(train.labels, canonical_order(train), 1.0 - fraction, seed)
    note = f"{len(held)} training images are held out for choosing"
    return replace(dataset, train=Subset(train, rest), test=Subset(train, held), note=note)

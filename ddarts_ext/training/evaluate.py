"""How good a trained network is on some images."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ddarts_ext.data import Dataset, Split, load
from ddarts_ext.data.batches import in_order, judged_together
from ddarts_ext.training.trained import TrainedNetwork

PARTS = ("test", "train", "all")


@torch.no_grad()
def accuracy(network: nn.Module, dataset: Dataset, split: Split, device: torch.device, batch: int = 256) -> float:
    """The share of the images of ``split`` whose class the network finds; it is left in evaluation mode.

    dataset: how images are normalised. The images are moved to ``device``, where the network is.
    """
    network.eval()
    images = split.to(device)
    hits = torch.zeros((), dtype=torch.long, device=device)
    for rows in in_order(torch.arange(len(split)), batch):
        for pixels, labels in images.batches(rows):
            hits += (network(dataset.normalise(pixels)).argmax(1) == labels).sum()
    return int(hits) / len(split)


@dataclass(frozen=True)
class Evaluation:
    """A network on some images. top: the share whose class is among the ``k`` most probable; loss: cross-entropy.

    confusion: int64 [K, K] on the CPU, how many images of a class (row) were taken for another (column).
    """

    classes: tuple[str, ...]
    images: int
    accuracy: float
    top: float
    k: int
    loss: float
    confusion: Tensor

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        totals, right = self.confusion.sum(1).tolist(), self.confusion.diagonal().tolist()
        return {
            "images": self.images,
            "accuracy": self.accuracy,
            f"top_{self.k}": self.top,
            "loss": self.loss,
            "classes": list(self.classes),
            "accuracy_of_class": [hits / total if total else None for hits, total in zip(right, totals, strict=True)],
            "confusion": self.confusion.tolist(),
        }

    def mistakes(self) -> list[tuple[str, str, int]]:
        """What was taken for what how often, most often first."""
        wrong = self.confusion - torch.diag(self.confusion.diagonal())
        places = [(int(wrong[i, j]), i, j) for i, j in wrong.nonzero().tolist()]
        return [(self.classes[i], self.classes[j], n) for n, i, j in sorted(places, key=lambda p: (-p[0], p[1], p[2]))]


def evaluate(trained: TrainedNetwork, data: str | Path | Dataset, part: str = "test") -> Evaluation:
    """The network on the images of ``data``, which :func:`ddarts_ext.data.load` reads; an image folder is brought to
    the size that the network takes.

    part: ``test``, the held-out images; ``train``; or ``all``. Classes are matched by their names; those of the data
    must be among those of the network. Raises ValueError, TypeError or OSError.
    """
    if part not in PARTS:
        raise ValueError(f"evaluate: part must be one of {', '.join(PARTS)}, got {part!r}")
    wanted = trained.description
    dataset = load(data, shape=(wanted.size, wanted.in_channels))
    if (dataset.size, dataset.channels) != (wanted.size, wanted.in_channels):
        raise ValueError(
            f"evaluate: images must be of {_shape(wanted.in_channels, wanted.size)} as in the training, "
            f"got {_shape(dataset.channels, dataset.size)} in {dataset.name}"
        )
    if unknown := [name for name in dataset.classes if name not in trained.classes]:
        raise ValueError(f"evaluate: classes of {dataset.name} must be among those of the network, got {unknown[0]!r}")
    places = torch.tensor([trained.classes.index(name) for name in dataset.classes], device=trained.device)
    splits = [dataset.test] if part == "test" else [dataset.train] if part == "train" else [dataset.train, dataset.test]
    return _judged(trained, [split.to(trained.device) for split in splits], places, judged_together(1, wanted.size))


def _shape(channels: int, size: tuple[int, int]) -> str:
    return f"{channels} channels and {size[0]}x{size[1]} pixels"


@torch.no_grad()
def _judged(trained: TrainedNetwork, splits: Iterable[Split], places: Tensor, batch: int) -> Evaluation:
    """places: the class of the network for each label of the data."""
    trained.eval()
    count, k = len(trained.classes), min(5, len(trained.classes))
    confusion = torch.zeros(count * count, dtype=torch.long, device=places.device)
    among = torch.zeros((), dtype=torch.long, device=places.device)
    loss = torch.zeros((), dtype=torch.float64, device=places.device)
    for split in splits:
        for rows in in_order(torch.arange(len(split)), batch):
            for pixels, labels in split.batches(rows):
                logits, right = trained(trained.normalise(pixels)).float(), places[labels]
                confusion += torch.bincount(right * count + logits.argmax(1), minlength=count * count)
                among += (logits.topk(k, 1).indices == right[:, None]).sum()
                loss += F.cross_entropy(logits, right, reduction="sum")
    table = confusion.view(count, count).cpu()
    images = int(table.sum())
    hits = int(table.diagonal().sum())
    return Evaluation(trained.classes, images, hits / images, int(among) / images, k, float(loss) / images, table)

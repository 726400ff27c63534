"""How good a trained network is on some images."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ddarts_ext.data import Dataset, Split, load
from ddarts_ext.data.batches import in_order, judged_together
from ddarts_ext.data.imagenet import class_key
from ddarts_ext.runs.losses import CLASSES, MULTI_LABEL
from ddarts_ext.runs.objective import Objective
from ddarts_ext.runs.sums import Sums
from ddarts_ext.training.evaluate_numbers import LabelsEvaluation, NumbersEvaluation
from ddarts_ext.training.trained import TrainedNetwork

PARTS = ("test", "train", "all")


@torch.no_grad()
def accuracy(
    network: nn.Module,
    dataset: Dataset,
    split: Split,
    device: torch.device,
    batch: int = 256,
    objective: Objective | None = None,
) -> float:
    """The share of the images of ``split`` whose class the network finds, or the metric of ``objective``; the network
    is left in evaluation mode.

    dataset: how images are normalised. The images are moved to ``device``, where the network is.
    """
    network.eval()
    how, images, sums = objective or Objective(), split.to(device), Sums()
    for rows in in_order(torch.arange(len(split)), batch):
        for pixels, labels in images.batches(rows):
            outputs = network(dataset.normalise(pixels))
            how.judge(sums, "all", outputs, labels, how.loss(outputs, labels))
    found = sums.means()[f"all_{how.metric_name}"]
    return float(found)  # type: ignore[arg-type]


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


def evaluate(
    trained: TrainedNetwork, data: Any, part: str = "test"
) -> Evaluation | LabelsEvaluation | NumbersEvaluation:
    """The network on the images of ``data``, which :func:`ddarts_ext.data.load` reads; an image folder is brought to
    the size that the network takes.

    part: ``test``, the held-out images; ``train``; or ``all``. Classes are matched by their names; those of the data
    must be among those of the network; numbers must be as many as its outputs. Raises ValueError, TypeError or OSError.
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
    if dataset.numbers != (wanted.task != CLASSES):
        words = {CLASSES: "classes", MULTI_LABEL: "labels of 0 and 1, several at once"}.get(wanted.task, "numbers")
        got = "numbers" if dataset.numbers else "classes"
        raise ValueError(f"evaluate: labels must be {words} as in the training, got {got} in {dataset.name}")
    splits = [dataset.test] if part == "test" else [dataset.train] if part == "train" else [dataset.train, dataset.test]
    splits = [split.to(trained.device) for split in splits]
    batch = judged_together(1, wanted.size)
    if dataset.numbers:
        if len(dataset.classes) != len(trained.classes):
            raise ValueError(
                f"evaluate: labels must be {len(trained.classes)} numbers each as in the training, got "
                f"{len(dataset.classes)} in {dataset.name}"
            )
        kind = LabelsEvaluation if wanted.task == MULTI_LABEL else NumbersEvaluation
        return kind.of(trained.classes, *_outputs(trained, splits, batch))
    known = {class_key(name): place for place, name in enumerate(trained.classes)}
    if unknown := [name for name in dataset.classes if class_key(name) not in known]:
        raise ValueError(f"evaluate: classes of {dataset.name} must be among those of the network, got {unknown[0]!r}")
    places = torch.tensor([known[class_key(name)] for name in dataset.classes], device=trained.device)
    return _judged(trained, splits, places, batch)


def _shape(channels: int, size: tuple[int, int]) -> str:
    return f"{channels} channels and {size[0]}x{size[1]} pixels"


@torch.no_grad()
def _outputs(trained: TrainedNetwork, splits: Iterable[Split], batch: int) -> tuple[Tensor, Tensor]:
    """Outputs and labels of all images, float [N, K] on the CPU."""
    trained.eval()
    found = [
        (trained(trained.normalise(pixels)).float().cpu(), labels.cpu())
        for split in splits
        for rows in in_order(torch.arange(len(split)), batch)
        for pixels, labels in split.batches(rows)
    ]
    return torch.cat([outputs for outputs, _ in found]), torch.cat([labels for _, labels in found])


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

"""How good a trained network is whose outputs are no classes: several labels at once, or numbers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class LabelsEvaluation:
    """Several labels at once. f1: mean over the images, of the labels above 1/2; label_accuracy: share of all labels
    that are right; exact_match: share of images of which all are; loss: binary cross-entropy. average_precision,
    precision, recall, support: of each label, None where no image has it, or for the precision none was told it.
    """

    classes: tuple[str, ...]
    images: int
    f1: float
    label_accuracy: float
    exact_match: float
    loss: float
    average_precision: tuple[float | None, ...]
    precision: tuple[float | None, ...]
    recall: tuple[float | None, ...]
    support: tuple[int, ...]

    @property
    def mean_average_precision(self) -> float:
        """Over the labels that some image has."""
        return float(np.mean([value for value in self.average_precision if value is not None]))

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {**vars(self), "mean_average_precision": self.mean_average_precision}

    @classmethod
    def of(cls, classes: tuple[str, ...], outputs: Tensor, labels: Tensor) -> LabelsEvaluation:
        """outputs: logits float [N, K]; labels: [N, K], on the CPU."""
        from sklearn.metrics import average_precision_score

        found, right = outputs > 0, labels > 0.5
        hits, told, support = (found & right).sum(0), found.sum(0), right.sum(0)
        of_image = found.sum(1) + right.sum(1)
        f1 = torch.where(of_image == 0, 1.0, 2.0 * (found & right).sum(1) / of_image.clamp_min(1))
        precisions = [
            float(average_precision_score(right[:, k].numpy(), outputs[:, k].numpy())) if support[k] else None
            for k in range(len(classes))
        ]
        return cls(
            classes,
            len(labels),
            float(f1.mean()),
            float((found == right).float().mean()),
            float((found == right).all(1).float().mean()),
            float(F.binary_cross_entropy_with_logits(outputs, labels)),
            tuple(precisions),
            tuple(h / t if t else None for h, t in zip(hits.tolist(), told.tolist(), strict=True)),
            tuple(h / s if s else None for h, s in zip(hits.tolist(), support.tolist(), strict=True)),
            tuple(support.tolist()),
        )


@dataclass(frozen=True)
class NumbersEvaluation:
    """Numbers. mae, rmse, r2: of each of the K; r2 is 1 - the sum of squared errors over that of the differences from
    the mean, None where a number is the same in all images. loss: mean squared error."""

    classes: tuple[str, ...]
    images: int
    loss: float
    mae: tuple[float, ...]
    rmse: tuple[float, ...]
    r2: tuple[float | None, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return dict(vars(self))

    @classmethod
    def of(cls, classes: tuple[str, ...], outputs: Tensor, labels: Tensor) -> NumbersEvaluation:
        """outputs, labels: float [N, K] on the CPU."""
        outputs, labels = outputs.double(), labels.double()
        error = outputs - labels
        spread = (labels - labels.mean(0)).square().sum(0)
        explained = 1 - error.square().sum(0) / spread
        return cls(
            classes,
            len(labels),
            float(error.square().mean()),
            tuple(error.abs().mean(0).tolist()),
            tuple(error.square().mean(0).sqrt().tolist()),
            tuple(value if whole else None for value, whole in zip(explained.tolist(), spread.tolist(), strict=True)),
        )

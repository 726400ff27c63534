"""Losses and metrics by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

LossFunction = Callable[[Tensor, Tensor], Tensor]
"""Outputs [N, K] of the network and labels, int64 [N] or float32 [N, K] -> [], the mean over the images."""
MetricFunction = Callable[[Tensor, Tensor], Tensor]
"""The same -> [N], one number for each image, or [], their mean. Its attribute ``higher_is_better``, True where it has
none, says which of two networks is the better one."""

CLASSES, MULTI_LABEL, VALUES = "classes", "multi-label", "values"
TASKS = (CLASSES, MULTI_LABEL, VALUES)
"""What labels are: one of K classes; K labels, each of which holds or does not; K numbers."""
OWN = "own"
"""The name of a function that was passed and not registered."""


def hits(outputs: Tensor, labels: Tensor) -> Tensor:
    return (outputs.argmax(1) == labels).float()


def _all_right(outputs: Tensor, labels: Tensor) -> Tensor:
    return ((outputs > 0) == (labels > 0.5)).all(1).float()


def _shares_right(outputs: Tensor, labels: Tensor) -> Tensor:
    return ((outputs > 0) == (labels > 0.5)).float().mean(1)


def _f1(outputs: Tensor, labels: Tensor) -> Tensor:
    found, right = outputs > 0, labels > 0.5
    told = (found.sum(1) + right.sum(1)).float()
    # An image without labels of which none is named is right.
    return torch.where(told == 0, 1.0, 2 * (found & right).sum(1) / told.clamp_min(1))


def _absolute(outputs: Tensor, labels: Tensor) -> Tensor:
    return (outputs - labels).abs().mean(1)


def _squares(outputs: Tensor, labels: Tensor) -> Tensor:
    return (outputs - labels).square().mean(1)


@dataclass(frozen=True)
class Known:
    """A loss or a metric by name. tasks: of which labels it is."""

    function: Callable[[Tensor, Tensor], Tensor]
    tasks: tuple[str, ...] = TASKS
    higher_is_better: bool = True


LOSSES = {
    "cross-entropy": Known(F.cross_entropy, (CLASSES,)),
    "multi-label": Known(F.binary_cross_entropy_with_logits, (MULTI_LABEL,)),
    "mse": Known(F.mse_loss, (VALUES, MULTI_LABEL)),
    "mae": Known(F.l1_loss, (VALUES, MULTI_LABEL)),
}
METRICS = {
    "accuracy": Known(hits, (CLASSES,)),
    "f1": Known(_f1, (MULTI_LABEL,)),
    "label-accuracy": Known(_shares_right, (MULTI_LABEL,)),
    "exact-match": Known(_all_right, (MULTI_LABEL,)),
    "mae": Known(_absolute, (VALUES,), False),
    "mse": Known(_squares, (VALUES,), False),
}
SHARES = ("accuracy", "f1", "label-accuracy", "exact-match")
"""Metrics that are shown in percent."""
# Said of every run.
LOSS = f"What is minimised: {', '.join(LOSSES)}."
SHOWN_LOSS = "cross-entropy; multi-label for labels of 0 and 1, several at once; mse for numbers"
METRIC = f"What judges: {', '.join(METRICS)}."
SHOWN_METRIC = "accuracy; f1 for several labels at once; mae for numbers"
CLASS_WEIGHTS = "Weights of the classes in the loss: balanced, or a list of numbers."
LOSS_OF = {CLASSES: "cross-entropy", MULTI_LABEL: "multi-label", VALUES: "mse"}
METRIC_OF = {CLASSES: "accuracy", MULTI_LABEL: "f1", VALUES: "mae"}


def register_loss(name: str, function: LossFunction) -> LossFunction:
    """Make a loss known by ``name``, to searches, trainings and their configurations; the function itself.

    function: outputs [N, K] and labels, int64 [N] or float32 [N, K] -> [], the mean over the images. A program that
    resumes such a run registers it first. Raises ValueError for a name that another loss has.
    """
    _register("register_loss", LOSSES, name, Known(function))
    return function


def register_metric(name: str, function: MetricFunction, *, higher_is_better: bool = True) -> MetricFunction:
    """Make a metric known by ``name``; the function itself.

    function: as :func:`register_loss` takes it, but it may also give [N], a number for each image.
    """
    _register("register_metric", METRICS, name, Known(function, TASKS, higher_is_better))
    return function


def _register(command: str, known: dict[str, Known], name: str, new: Known) -> None:
    if not isinstance(name, str) or not name.replace("-", "_").isidentifier() or name == OWN:
        raise ValueError(f"{command}: name must be of letters, digits, - and _, and not {OWN!r}, got {name!r}")
    if not callable(new.function):
        raise TypeError(f"{command}: function must be one of outputs and labels, got {type(new.function).__name__}")
    if name in known and known[name] != new:
        raise ValueError(f"{command}: name must be that of no other, got {name!r}")
    known[name] = new


def shown(name: str, value: float, digits: int = 1) -> str:
    """A metric as it is printed: shares in percent."""
    return f"{name} {value:.{digits}%}" if name in SHARES else f"{name} {value:.4g}"


def judged_in(part: object) -> list[tuple[str, float]]:
    """Name and value of the metric in a part of a record, as ``{"loss": ..., "accuracy": ...}``; none where there was
    none (the second order judges no alphas), or where the file that it is from holds something else."""
    named = part.items() if isinstance(part, Mapping) else ()
    return [(name, value) for name, value in named if name not in ("loss", "top5")]


def metric_in(part: Mapping[str, Any]) -> tuple[str, float]:
    """Name and value of the metric of a part that was judged."""
    return judged_in(part)[0]


def called(function: Any) -> str:
    """The name of a function; one that says nothing, or means something else in a record, is that of its kind."""
    name = str(getattr(function, "__name__", type(function).__name__))
    return "function" if name in ("loss", "top5", "<lambda>") else name

"""What a run minimises and what it judges by."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ddarts_ext.runs.losses import (
    CLASSES,
    LOSS_OF,
    LOSSES,
    METRIC_OF,
    METRICS,
    MULTI_LABEL,
    OWN,
    TASKS,
    VALUES,
    Known,
    MetricFunction,
    called,
    hits,
)
from ddarts_ext.runs.options import value_of
from ddarts_ext.runs.ranks import ALONE, Ranks
from ddarts_ext.runs.sums import Sums


@dataclass(frozen=True)
class Objective:
    """What a run minimises, and what it judges by. task: what labels are, one of :data:`TASKS`. The default is that of
    classification. weighted: the loss has weights of classes."""

    task: str = CLASSES
    loss_name: str = "cross-entropy"
    metric_name: str = "accuracy"
    loss_function: Callable[..., Tensor] = F.cross_entropy
    metric_function: MetricFunction = hits
    higher_is_better: bool = True
    weighted: bool = False

    def loss(self, outputs: Tensor, labels: Tensor, smoothing: float = 0.0) -> Tensor:
        """[], the mean over the images. smoothing: of labels, with the cross-entropy alone."""
        if smoothing:
            return self.loss_function(outputs, labels, label_smoothing=smoothing)
        if self.usual:
            return self.loss_function(outputs, labels)
        return self.loss_function(_full(outputs), labels)

    def of_groups(self, outputs: Tensor, labels: Tensor, groups: int) -> Tensor:
        """[groups], the loss of each of so many networks: outputs [groups * N, K], one network after the other, of the
        same images with labels [N] or [N, K]."""
        outputs = _full(outputs)
        if self.loss_function is F.cross_entropy:
            each = F.cross_entropy(outputs, labels.repeat(groups), reduction="none")
            return each.view(groups, -1).mean(1)
        return torch.stack([self.loss(part, labels) for part in outputs.chunk(groups)])

    def judge(self, sums: Sums, name: str, outputs: Tensor, labels: Tensor, loss: Tensor, ranks: Ranks = ALONE) -> None:
        """Add one batch's loss [], a mean, and its metric. ranks: have equal parts of the batch, of which this is one;
        all of it is added."""
        count = len(labels)
        if self.metric_function is hits:
            found = (outputs.argmax(1) == labels).sum()
        else:
            found = self.metric_function(_full(outputs), labels)
            found = found * count if found.dim() == 0 else found.sum()
        lost = loss.detach() * count
        if ranks.several:
            lost, found = ranks.total(torch.stack([lost.double(), found.detach().double()])).unbind()
            count *= ranks.world
        sums.add(f"{name}_loss", lost, count)
        sums.add(f"{name}_{self.metric_name}", found, count)

    @property
    def usual(self) -> bool:
        """Whether the loss is the cross-entropy, with or without weights of classes."""
        function = self.loss_function
        return (function.func if isinstance(function, functools.partial) else function) is F.cross_entropy

    @property
    def said(self) -> str:
        """What a person should know of it; empty for classification as usual."""
        if self == Objective():
            return ""
        weights = ", classes weighted" if self.weighted else ""
        return f"loss {self.loss_name}{weights}, judged by {self.metric_name}"


def _full(outputs: Tensor) -> Tensor:
    return outputs if outputs.dtype == torch.float64 else outputs.float()


def objective_of(
    command: str,
    labels: Tensor,
    outputs: int,
    device: torch.device,
    *,
    loss: Any = None,
    metric: Any = None,
    class_weights: Any = None,
) -> Objective:
    """The objective of a run on ``device`` whose training images have ``labels``, int64 [N] or float32 [N, K], with
    ``outputs`` numbers of the network.

    loss, metric: a name, a function, or None for what suits the labels: those that are 0 or 1 are several labels at
    once, others numbers. class_weights: a number for each class, or ``balanced``: of ``cross-entropy``, N / (K N_k); of
    ``multi-label``, of the images that have a label, those that have it not by those that have it.
    Raises ValueError or TypeError naming the argument.
    """
    kind = _task_of(labels)
    loss = LOSS_OF[kind] if loss is None else loss
    function = _found(command, "loss", LOSSES, loss, kind)
    if loss == "multi-label" and kind == VALUES:
        kind = MULTI_LABEL
        if not bool(((labels >= 0) & (labels <= 1)).all()):
            raise ValueError(
                f"{command}: labels must be from 0 to 1 with loss multi-label, got {float(labels.max()):g}"
            )
    if kind == MULTI_LABEL and loss in ("mse", "mae"):
        kind = VALUES
    metric = METRIC_OF[kind] if metric is None else metric
    judged = _found(command, "metric", METRICS, metric, kind)
    weights = _weights(command, class_weights, loss, labels, outputs)
    call = function.function.to(device) if isinstance(function.function, nn.Module) else function.function
    if weights is not None:
        name = "weight" if loss == "cross-entropy" else "pos_weight"
        call = functools.partial(call, **{name: weights.to(device)})
    sample = labels[:4].to(device)
    if loss not in LOSS_OF.values():
        _try(command, "loss", call, sample, outputs)
    if metric not in METRIC_OF.values():
        _try(command, "metric", judged.function, sample, outputs)
    names = [given if isinstance(given, str) else called(given) for given in (loss, metric)]
    better = judged.higher_is_better
    return Objective(kind, names[0], names[1], call, judged.function, better, weights is not None)


def settled(
    command: str,
    labels: Tensor,
    outputs: int,
    device: torch.device,
    settings: dict[str, Any],
    *,
    loss: Any,
    metric: Any,
) -> Objective:
    """:func:`objective_of` with the ``class_weights`` of a run's settings, which then have the names of its loss and
    metric."""
    weights = settings.get("class_weights")
    found = objective_of(command, labels, outputs, device, loss=loss, metric=metric, class_weights=weights)
    settings |= {"loss": found.loss_name, "metric": found.metric_name}
    return found


def _task_of(labels: Tensor) -> str:
    if not labels.is_floating_point():
        return CLASSES
    return MULTI_LABEL if bool(((labels == 0) | (labels == 1)).all()) else VALUES


def _found(command: str, what: str, known: Mapping[str, Known], given: Any, kind: str) -> Known:
    if not isinstance(given, str):
        if not callable(given):
            raise TypeError(f"{command}: {what} must be a name or a function, got {type(given).__name__}")
        return Known(given, TASKS, bool(getattr(given, "higher_is_better", True)))
    if given not in known:
        more = f"that register_{what} made known" if given != OWN else "passed again as a function"
        raise ValueError(f"{command}: {what} must be {', '.join(known)}, or one {more}, got {given!r}")
    # Labels of 0 and 1 may be meant as numbers, and numbers from 0 to 1 as labels that hold in part.
    kinds = (CLASSES,) if kind == CLASSES else (MULTI_LABEL, VALUES) if what == "loss" else (kind,)
    if not set(kinds) & set(known[given].tasks):
        fitting = ", ".join(name for name, one in known.items() if set(kinds) & set(one.tasks))
        labels = {CLASSES: "classes", MULTI_LABEL: "0 or 1, several at once", VALUES: "numbers"}[kind]
        raise ValueError(
            f"{command}: {what} must be {fitting} or a function for labels that are {labels}, got {given!r}"
        )
    return known[given]


def _weights(command: str, given: Any, loss: Any, labels: Tensor, outputs: int) -> Tensor | None:
    if given is None:
        return None
    if loss not in ("cross-entropy", "multi-label"):
        name = repr(loss) if isinstance(loss, str) else "a function"
        raise ValueError(
            f"{command}: class_weights must be left out with another loss than cross-entropy and "
            f"multi-label, got {name}"
        )
    given = plain_weights(given)
    if given == "balanced":
        return _balanced(command, labels, outputs)
    if not isinstance(given, tuple) or len(given) != outputs or not all(map(_positive, given)):
        raise ValueError(f"{command}: class_weights must be balanced or {outputs} numbers above 0, got {given!r}")
    return torch.tensor(given, dtype=torch.float32)


def plain_weights(given: Any) -> Any:
    """Weights of classes as config.json has them: ``balanced``, a tuple of numbers, None."""
    if isinstance(given, str) and given != "balanced":
        given = value_of("class_weights", given)
    return tuple(given) if isinstance(given, (list, tuple)) else given


def _positive(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 < value < float("inf")


def _balanced(command: str, labels: Tensor, outputs: int) -> Tensor:
    labels = labels.cpu()
    if labels.is_floating_point():
        have, count = labels.sum(0), len(labels)
        if not bool(((have > 0) & (have < count)).all()):
            index = int(((have <= 0) | (have >= count)).nonzero()[0])
            raise ValueError(
                f"{command}: class_weights must be numbers, as all images or none have label {index}, got 'balanced'"
            )
        return (count - have) / have
    counts = torch.bincount(labels, minlength=outputs)
    if not bool(counts.all()):
        raise ValueError(
            f"{command}: class_weights must be numbers, as class {int((counts == 0).nonzero()[0])} has no "
            "training image, got 'balanced'"
        )
    return len(labels) / (outputs * counts.float())


def _try(command: str, what: str, function: Callable[[Tensor, Tensor], Tensor], labels: Tensor, outputs: int) -> None:
    """Refuse a function that does not take what a run gives it, before anything is computed."""
    made = torch.zeros(len(labels), outputs, device=labels.device, requires_grad=what == "loss")
    try:
        found = function(made, labels)
    except Exception as error:  # whatever a function of the caller raises
        reason = (str(error).splitlines() or [""])[0] or type(error).__name__
        raise ValueError(
            f"{command}: {what} must take outputs {list(made.shape)} and labels {list(labels.shape)}, got the error: "
            f"{reason}"
        ) from error
    if not isinstance(found, Tensor):
        raise TypeError(f"{command}: {what} must give a tensor, got {type(found).__name__}")
    wanted = ([],) if what == "loss" else ([], [len(labels)])
    if list(found.shape) not in wanted:
        raise ValueError(
            f"{command}: {what} must give {' or '.join(map(str, wanted))} of {len(labels)} images, got "
            f"{list(found.shape)}"
        )
    if what == "loss" and not found.requires_grad:
        raise ValueError(f"{command}: loss must be differentiable in the outputs, got a tensor without gradient")

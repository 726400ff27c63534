"""Losses and metrics by name and as functions, and weights of classes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.metrics import f1_score
from sklearn.utils.class_weight import compute_class_weight
from torch import Tensor

from ddarts_ext.runs.losses import LOSSES, METRICS, register_loss, register_metric, shown
from ddarts_ext.runs.objective import Objective, objective_of
from ddarts_ext.runs.sums import Sums

CPU = torch.device("cpu")
CLASSES = torch.tensor([0, 0, 0, 1, 2, 2])
GENERATOR = torch.Generator().manual_seed(0)
OUTPUTS = torch.randn(6, 3, generator=GENERATOR)
LABELS = (torch.rand(6, 3, generator=GENERATOR) > 0.5).float()
NUMBERS = torch.randn(6, 3, generator=GENERATOR)


def of(labels: Tensor, **given: Any) -> Objective:
    return objective_of("train", labels, 3, CPU, **given)


def judged(how: Objective, labels: Tensor) -> dict[str, Any]:
    """In two batches of different sizes, as an epoch is."""
    sums = Sums()
    for rows in (slice(0, 4), slice(4, 6)):
        how.judge(sums, "x", OUTPUTS[rows], labels[rows], how.loss(OUTPUTS[rows], labels[rows]))
    return sums.means()


def test_what_suits_the_labels() -> None:
    found = [(how.task, how.loss_name, how.metric_name) for how in map(of, (CLASSES, LABELS, NUMBERS))]
    assert found == [
        ("classes", "cross-entropy", "accuracy"),
        ("multi-label", "multi-label", "f1"),
        ("values", "mse", "mae"),
    ]
    assert of(CLASSES) == Objective()
    assert not of(CLASSES).said
    assert of(LABELS).said == "loss multi-label, judged by f1"
    # 0 and 1 may be meant as numbers, and numbers from 0 to 1 as labels that hold in part.
    assert of(LABELS, loss="mse").task == "values"
    assert of(LABELS / 2, loss="multi-label").task == "multi-label"


@pytest.mark.parametrize(
    ("labels", "metric", "expected"),
    [
        (CLASSES, "accuracy", (OUTPUTS.argmax(1) == CLASSES).float().mean()),
        (LABELS, "f1", f1_score(LABELS, OUTPUTS > 0, average="samples", zero_division=1.0)),
        (LABELS, "label-accuracy", ((OUTPUTS > 0) == (LABELS > 0)).float().mean()),
        (LABELS, "exact-match", ((OUTPUTS > 0) == (LABELS > 0)).all(1).float().mean()),
        (NUMBERS, "mae", (OUTPUTS - NUMBERS).abs().mean()),
        (NUMBERS, "mse", (OUTPUTS - NUMBERS).square().mean()),
    ],
)
def test_metrics_over_batches(labels: Tensor, metric: str, expected: Any) -> None:
    found = judged(of(labels, metric=metric), labels)
    assert found[f"x_{metric}"] == pytest.approx(float(expected), rel=1e-6)
    loss = {"accuracy": F.cross_entropy, "mae": F.mse_loss, "mse": F.mse_loss}.get(
        metric, F.binary_cross_entropy_with_logits
    )
    assert found["x_loss"] == pytest.approx(float(loss(OUTPUTS, labels)), rel=1e-6)


@pytest.mark.parametrize("kind", ["usual", "weighted", "labels", "numbers", "function"])
def test_groups_of_networks_are_judged_one_by_one(kind: str) -> None:
    labels = {"labels": LABELS, "numbers": NUMBERS}.get(kind, CLASSES)
    how = of(
        labels,
        class_weights=[1, 2, 3] if kind == "weighted" else None,
        loss=(lambda x, y: F.multi_margin_loss(x, y)) if kind == "function" else None,
    )
    groups = [OUTPUTS, 2 * OUTPUTS.flip(0), OUTPUTS.roll(1, 1)]
    found = how.of_groups(torch.cat(groups), labels, 3)
    assert found.shape == (3,)
    torch.testing.assert_close(found, torch.stack([how.loss(group, labels) for group in groups]))


def test_weights_of_classes() -> None:
    given = of(CLASSES, class_weights=[1, 2, 0.5])
    expected = F.cross_entropy(OUTPUTS, CLASSES, weight=torch.tensor([1, 2, 0.5]))
    torch.testing.assert_close(given.loss(OUTPUTS, CLASSES), expected)
    torch.testing.assert_close(of(CLASSES, class_weights="[1, 2, 0.5]").loss(OUTPUTS, CLASSES), expected)
    assert "classes weighted" in given.said
    balanced = torch.tensor(
        compute_class_weight("balanced", classes=np.arange(3), y=CLASSES.numpy()), dtype=torch.float32
    )
    torch.testing.assert_close(
        of(CLASSES, class_weights="balanced").loss(OUTPUTS, CLASSES), F.cross_entropy(OUTPUTS, CLASSES, weight=balanced)
    )
    smooth = F.cross_entropy(OUTPUTS, CLASSES, weight=balanced, label_smoothing=0.1)
    torch.testing.assert_close(of(CLASSES, class_weights="balanced").loss(OUTPUTS, CLASSES, 0.1), smooth)
    positive = (6 - LABELS.sum(0)) / LABELS.sum(0)
    expected = F.binary_cross_entropy_with_logits(OUTPUTS, LABELS, pos_weight=positive)
    torch.testing.assert_close(of(LABELS, class_weights="balanced").loss(OUTPUTS, LABELS), expected)


def test_functions_and_modules() -> None:
    class Margin(torch.nn.Module):
        higher_is_better = False

        def forward(self, outputs: Tensor, labels: Tensor) -> Tensor:
            return F.multi_margin_loss(outputs, labels, reduction="none")

    how = of(CLASSES, loss=torch.nn.MultiMarginLoss(), metric=Margin())
    assert (how.loss_name, how.metric_name, how.higher_is_better) == ("MultiMarginLoss", "Margin", False)
    found = judged(how, CLASSES)
    expected = float(F.multi_margin_loss(OUTPUTS, CLASSES))
    assert (found["x_loss"], found["x_Margin"]) == (pytest.approx(expected), pytest.approx(expected))
    # A mean over the batch counts as often as the batch has images.
    found = judged(of(CLASSES, metric=F.multi_margin_loss), CLASSES)
    assert found["x_multi_margin_loss"] == pytest.approx(expected)


def test_names_that_were_registered() -> None:
    loss = register_loss("margin-1", F.multi_margin_loss)
    register_metric("cost", F.multi_margin_loss, higher_is_better=False)
    try:
        how = of(CLASSES, loss="margin-1", metric="cost")
        assert (how.loss_name, how.metric_name, how.higher_is_better) == ("margin-1", "cost", False)
        register_loss("margin-1", loss)
        with pytest.raises(ValueError, match="name must be that of no other, got 'margin-1'"):
            register_loss("margin-1", F.nll_loss)
    finally:
        del LOSSES["margin-1"], METRICS["cost"]
    with pytest.raises(ValueError, match="must be of letters"):
        register_loss("own", F.nll_loss)
    with pytest.raises(TypeError, match="function must be one of outputs and labels, got int"):
        register_metric("x", 3)  # type: ignore[arg-type]


@pytest.mark.filterwarnings("ignore:Using a target size")
@pytest.mark.parametrize(
    ("labels", "given", "error", "said"),
    [
        (CLASSES, {"loss": "mse"}, ValueError, "loss must be cross-entropy or a function for labels that are classes"),
        (LABELS, {"loss": "cross-entropy"}, ValueError, "loss must be multi-label, mse, mae or a function"),
        (NUMBERS, {"loss": "multi-label"}, ValueError, "labels must be from 0 to 1 with loss multi-label"),
        (NUMBERS, {"metric": "accuracy"}, ValueError, "metric must be mae, mse or a function for labels that are num"),
        (CLASSES, {"loss": "focal"}, ValueError, "loss must be .*, or one that register_loss made known, got 'focal'"),
        (CLASSES, {"loss": 3}, TypeError, "loss must be a name or a function, got int"),
        (CLASSES, {"loss": F.mse_loss}, ValueError, r"loss must take outputs \[4, 3\] and labels \[4\], got the error"),
        (CLASSES, {"loss": lambda x, y: x.sum(1)}, ValueError, r"loss must give \[\] of 4 images, got \[4\]"),
        (CLASSES, {"loss": lambda x, y: x.sum().detach()}, ValueError, "must be differentiable in the outputs"),
        (CLASSES, {"loss": lambda x, y: 0.5}, TypeError, "loss must give a tensor, got float"),
        (CLASSES, {"metric": lambda x, y: x}, ValueError, r"metric must give \[\] or \[4\] of 4 images, got \[4, 3\]"),
        (CLASSES, {"class_weights": [1, 2]}, ValueError, r"class_weights must be balanced or 3 numbers above 0"),
        (CLASSES, {"class_weights": "even"}, ValueError, r"must be balanced or 3 numbers above 0, got 'even'"),
        (NUMBERS, {"class_weights": "balanced"}, ValueError, "class_weights must be left out with another loss"),
        (CLASSES * 2, {"class_weights": "balanced"}, ValueError, "class 1 has no training image"),
        (LABELS * 0, {"class_weights": "balanced"}, ValueError, "all images or none have label 0"),
    ],
)
def test_what_is_refused(labels: Tensor, given: dict[str, Any], error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=f"^train: .*{said}"):
        objective_of("train", labels, 5 if labels.max() > 3 else 3, CPU, **given)


def test_shares_are_shown_in_percent() -> None:
    assert [shown("f1", 0.25), shown("mae", 0.25), shown("accuracy", 0.5, 2)] == [
        "f1 25.0%",
        "mae 0.25",
        "accuracy 50.00%",
    ]

"""On a GPU: steps of a training that are captured as CUDA graphs give what steps that are launched op by op give."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from runs.shown import Shown
from training.small import GENOTYPE, SMALL, stripes

from ddarts_ext.data import Augmentation
from ddarts_ext.training import Trainer

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


def trained(graphs: str, **settings: Any) -> tuple[list[dict[str, Any]], list[str]]:
    said = Shown()
    data = replace(stripes(), augmentation=Augmentation(crop_padding=1, flip=True, cutout=3))
    result = Trainer(
        GENOTYPE, data, **{**SMALL, "batch": 15, "device": "cuda", "graphs": graphs, "progress": said, **settings}
    ).train()
    return result.history, said.lines


@pytest.mark.parametrize(
    "settings",
    [{}, {"warmup": 2, "ema": 0.9, "nesterov": True}, {"accumulate": 2}, {"precision": "bf16"}, {"drop_path": 0.0}],
)
def test_captured_is_like_launched(settings: dict[str, Any]) -> None:
    (ours, lines), (theirs, _) = trained("on", **settings), trained("off", **settings)
    assert not any("captured" in line or "one op at a time" in line for line in lines)
    tolerance = 5e-2 if "precision" in settings else 1e-3
    # Later epochs of a small network multiply what order of sums leaves.
    for one, other in zip(ours[:3], theirs[:3], strict=True):
        assert one["train"]["loss"] == pytest.approx(other["train"]["loss"], rel=tolerance, abs=tolerance)


def test_what_is_not_captured_is_said_once() -> None:
    _, lines = trained("auto", mixup=0.2)
    said = [line for line in lines if "one op at a time" in line]
    assert said == [
        "train: steps are launched one op at a time, not as CUDA graphs, as mixup and cutmix are drawn on the host"
    ]

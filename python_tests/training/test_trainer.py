"""A trained network learns, is written as safetensors, and a run that was interrupted continues to the same weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from training.small import GENOTYPE, SMALL, stripes

from ddarts_ext.genotype import Genotype
from ddarts_ext.runs.folder import RunFolder
from ddarts_ext.runs.progress import Progress
from ddarts_ext.runs.schedule import cosine
from ddarts_ext.training.trainer import Trainer, arguments_of


class _Interrupt(Progress):
    def epoch(self, line: str) -> None:
        if "epochs" not in self.__dict__:
            self.epochs = 0
        self.epochs += 1
        if self.epochs == 2:
            raise KeyboardInterrupt


def test_training_learns_and_continues_after_an_interrupt(tmp_path: Path) -> None:
    whole = Trainer(GENOTYPE, stripes(), out=tmp_path / "whole", **SMALL).train()
    assert whole.accuracy > 0.9
    assert whole.accuracy == whole.history[-1]["test"]["accuracy"]
    with pytest.raises(KeyboardInterrupt):
        Trainer(GENOTYPE, stripes(), out=tmp_path / "cut", progress=_Interrupt(), **SMALL).train()
    assert len(RunFolder(tmp_path / "cut").history()) == 2
    again = Trainer(GENOTYPE, stripes(), out=tmp_path / "cut", resume=True, **SMALL).train()
    expected = whole.network.state_dict()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in again.network.state_dict().items())
    with safe_open(tmp_path / "whole" / "weights.safetensors", "pt") as file:  # type: ignore[no-untyped-call]
        assert set(file.keys()) == set(expected)
        assert Genotype.from_json(json.loads(file.metadata()["genotype"])) == GENOTYPE
    stored = arguments_of(RunFolder(tmp_path / "whole").config())
    assert stored["genotype"] == GENOTYPE
    assert stored["lr"] == 0.1


def test_auxiliary_head_and_smoothing_train() -> None:
    settings = {**SMALL, "epochs": 1, "auxiliary_weight": 0.4, "label_smoothing": 0.1}
    result = Trainer(GENOTYPE, stripes(), **settings).train()
    assert result.history[0]["train"]["loss"] > 0


def test_global_randomness_is_left_alone() -> None:
    torch.manual_seed(7)
    before = torch.get_rng_state()
    Trainer(GENOTYPE, stripes(), **{**SMALL, "epochs": 1}).train()
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"lr": -1.0}, ValueError, "lr must be a finite number >= 0"),
        ({"batch": 2.5}, TypeError, "batch must be a whole number"),
        ({"drop_path": 1.0}, ValueError, "drop_path and label_smoothing must be below 1"),
        ({"luck": 1}, TypeError, "setting must be one of"),
        ({"resume": True}, ValueError, "out must be the folder"),
    ],
)
def test_wrong_settings(settings: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=f"train: {message}"):
        Trainer(GENOTYPE, stripes(), **settings)


def test_cosine_ends_where_told() -> None:
    assert cosine(0.025, 0.001, 0, 50) == 0.025
    assert cosine(0.025, 0.001, 25, 50) == pytest.approx(0.013)
    assert cosine(0.1, 0.0, 50, 50) == pytest.approx(0.0)

"""Figures of every epoch go where a program wants them."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from ddarts_ext import Searcher, Trainer
from ddarts_ext.genotype import Genotype
from ddarts_ext.runs.loggers import CSVLogger, Logger, TensorBoardLogger, figures_of


class Kept:
    def __init__(self) -> None:
        self.seen: list[tuple[int, dict[str, float]]] = []
        self.closed = 0

    def log(self, epoch: int, figures: Mapping[str, float]) -> None:
        self.seen.append((epoch, dict(figures)))

    def close(self) -> None:
        self.closed += 1


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_numbers_of_a_record_by_name() -> None:
    record = {
        "epoch": 3,
        "lr": 0.5,
        "train": {"loss": 1.0, "deep": {"er": 2}},
        "alphas": [1.0],
        "on": True,
        "text": "x",
    }
    assert figures_of(record) == {"lr": 0.5, "train/loss": 1.0, "train/deep/er": 2}


def test_a_search_and_a_training_log_what_their_history_says(tmp_path: Path) -> None:
    kept, table = Kept(), CSVLogger(tmp_path / "logs" / "search.csv")
    result = Searcher("digits", "darts", epochs=2, cells=3, channels=2, batch=256, loggers=[kept, table]).search()
    assert [epoch for epoch, _ in kept.seen] == [0, 1]
    assert kept.closed == 1
    for (_, figures), record in zip(kept.seen, result.history, strict=True):
        assert figures["train/loss"] == record["train"]["loss"]
        assert figures["valid/accuracy"] == record["valid"]["accuracy"]
    assert [float(row["train/loss"]) for row in rows(table.path)] == [f["train/loss"] for _, f in kept.seen]
    other = Kept()
    trained = Trainer(Genotype.load("ResNet18"), "digits", epochs=1, channels=2, batch=512, loggers=[other]).train()
    assert other.seen[0][1]["test/accuracy"] == trained.accuracy
    assert other.closed == 1


def test_a_run_that_goes_on_goes_on_in_its_table(tmp_path: Path) -> None:
    path = tmp_path / "run.csv"
    first = CSVLogger(path)
    first.log(0, {"loss": 3.0})
    first.log(1, {"loss": 2.0})
    again = CSVLogger(path)  # resumed after epoch 0
    again.log(1, {"loss": 2.5, "new": 1.0})
    assert rows(path) == [{"epoch": "0", "loss": "3.0", "new": ""}, {"epoch": "1", "loss": "2.5", "new": "1.0"}]


def test_what_is_no_logger() -> None:
    assert isinstance(Kept(), Logger)
    wrong: Any = [len]
    with pytest.raises(TypeError, match="search: loggers must have log and close, got builtin_function_or_method"):
        Searcher("digits", loggers=wrong)


def test_tensorboard(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="tensorboard is not installed")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    logger = TensorBoardLogger(tmp_path)
    logger.log(0, {"train/loss": 2.0})
    logger.log(1, {"train/loss": 1.0})
    logger.close()
    events = EventAccumulator(str(tmp_path))
    events.Reload()
    assert [(event.step, event.value) for event in events.Scalars("train/loss")] == [(0, 2.0), (1, 1.0)]

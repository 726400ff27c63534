"""Steps of a training that are captured and replayed give what steps that Python runs give, bit by bit."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from runs.shown import Shown
from search.recordings import CalledAgain, CountsCalls, Silent, Tape, with_graphs
from training.small import GENOTYPE, SMALL, stripes

from ddarts_ext.data import Augmentation, Dataset, captured
from ddarts_ext.nn import joined
from ddarts_ext.runs.checkpoint import digest
from ddarts_ext.runs.graphs import Call, Recording
from ddarts_ext.training import Trainer, iterations, trainer
from ddarts_ext.training import step as steps

TRAINING: dict[str, Any] = {**SMALL, "epochs": 4, "drop_path": 0.3, "batch": 15}
"""Batches of 15 and one of 4."""


def images(**more: Any) -> Dataset:
    how = Augmentation(crop_padding=1, flip=True, cutout=3)
    return replace(stripes(), augmentation=replace(how, **more))


TRAININGS: dict[str, Callable[..., Trainer]] = {
    "as published": lambda **s: Trainer(GENOTYPE, images(), **{**TRAINING, "auxiliary_weight": 0.4, **s}),
    "warm-up, parts, average, best": lambda **s: Trainer(
        GENOTYPE,
        images(),
        **{**TRAINING, "warmup": 2, "accumulate": 2, "ema": 0.9, "holdout": 0.25, "nesterov": True, **s},
    ),
    "no drop path, no clip, contiguous": lambda **s: Trainer(
        GENOTYPE, images(), **{**TRAINING, "drop_path": 0.0, "clip": 0.0, "layout": "contiguous", **s}
    ),
    "crops of any size, erasing, smoothing": lambda **s: Trainer(
        GENOTYPE, images(), **{**TRAINING, "resized_crop": 0.3, "erasing": 0.5, "label_smoothing": 0.1, **s}
    ),
    "an own optimiser": lambda **s: Trainer(
        GENOTYPE,
        images(),
        **{name: value for name, value in TRAINING.items() if name != "lr"},
        optimizer=lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.5, fused=True),
        **s,
    ),
}


@pytest.fixture(autouse=True)
def as_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """The probability of drop path is a tensor and the optimiser fused, whether steps are captured or not."""
    for module in (steps, trainer):
        monkeypatch.setattr(module, "on_a_gpu", lambda device: True)


def whole(run: Trainer) -> tuple[list[dict[str, Any]], str]:
    """All that a training came to: its history, and everything that a checkpoint holds at its end."""
    runs: list[Any] = []
    begin = run._start

    def remembered() -> Any:
        runs.append(begin())
        return runs[0]

    run._start = remembered  # type: ignore[method-assign]
    result = run.train()
    return [{**record, "seconds": 0, "memory_mib": 0} for record in result.history], digest(runs[0].checkpoint())


@pytest.mark.parametrize("recording", [CalledAgain, Tape])
@pytest.mark.parametrize("name", TRAININGS)
def test_replayed_is_the_same(name: str, recording: Callable[[], Recording], monkeypatch: pytest.MonkeyPatch) -> None:
    expected = whole(TRAININGS[name]())
    calls = 0
    real = steps.Step.__call__

    def counted(self: Any, *arguments: Any) -> None:
        nonlocal calls
        calls += 1
        real(self, *arguments)

    monkeypatch.setattr(steps.Step, "__call__", counted)
    assert whole(with_graphs(TRAININGS[name](), recording, monkeypatch)) == expected
    # Two sizes of batch, each run once and recorded once, in all epochs.
    assert recording is CalledAgain or calls == 4


@pytest.mark.parametrize("end", [1, 3, 5, 8])
@pytest.mark.parametrize("name", ["as published", "warm-up, parts, average, best"])
def test_resumed_is_the_same(name: str, end: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = whole(TRAININGS[name]())
    with pytest.raises(KeyboardInterrupt):
        with_graphs(TRAININGS[name](out=tmp_path / "run", progress=Shown(end)), Tape, monkeypatch).train()
    again = TRAININGS[name](out=tmp_path / "run", resume=True)
    assert whole(with_graphs(again, Tape, monkeypatch)) == expected


def test_a_captured_run_goes_on_step_by_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """``graphs`` may change when a run is resumed."""
    expected = whole(TRAININGS["as published"]())
    with pytest.raises(KeyboardInterrupt):
        with_graphs(TRAININGS["as published"](out=tmp_path / "run", progress=Shown(7)), Tape, monkeypatch).train()
    again = TRAININGS["as published"](out=tmp_path / "run", resume=True, graphs="off")
    assert whole(with_graphs(again, Tape, monkeypatch)) == expected


def test_steps_of_all_weights_at_once_are_replayed_and_resumed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a GPU, where the optimiser has buffers of its own."""
    monkeypatch.setattr(joined, "_counts_launches", lambda x: True)
    name = "as published"
    expected = whole(TRAININGS[name]())
    assert whole(with_graphs(TRAININGS[name](), Tape, monkeypatch)) == expected
    with pytest.raises(KeyboardInterrupt):
        with_graphs(TRAININGS[name](out=tmp_path / "run", progress=Shown(6)), Tape, monkeypatch).train()
    again = TRAININGS[name](out=tmp_path / "run", resume=True)
    assert whole(with_graphs(again, Tape, monkeypatch)) == expected


@pytest.mark.parametrize("together", [False, True])
def test_a_replayed_step_is_at_most_ten_calls_of_the_host(together: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(joined, "_counts_launches", lambda x: together)
    found: list[int] = []
    real = iterations.CapturedIterations._captured

    def measured(self: Any, size: int) -> None:
        before = CountsCalls.calls
        real(self, size)
        found.append(CountsCalls.calls - before)

    monkeypatch.setattr(iterations.CapturedIterations, "_captured", measured)
    with CountsCalls():
        with_graphs(TRAININGS["as published"](), Silent, monkeypatch).train()
    assert max(found) > 100  # those that Python ran
    assert sorted(found)[len(found) // 2] <= 10


class Fails:
    def record(self, call: Call) -> None:
        raise RuntimeError("operation not permitted when stream is capturing\nand more")

    def replay(self) -> None:
        raise AssertionError


def test_what_cannot_be_captured_runs_as_python_does_and_says_so_once(monkeypatch: pytest.MonkeyPatch) -> None:
    said = Shown()
    expected = whole(TRAININGS["as published"]())
    assert whole(with_graphs(TRAININGS["as published"](progress=said), Fails, monkeypatch)) == expected
    lines = [line for line in said.lines if "captured" in line]
    assert lines == [
        "train: steps are launched one op at a time, as they could not be captured: operation not permitted when "
        "stream is capturing"
    ]
    on = TRAININGS["as published"]()
    on.config = replace(on.config, graphs="on")
    with pytest.raises(RuntimeError, match="not permitted"):
        with_graphs(on, Fails, monkeypatch).train()


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({}, "the device is cpu"),
        ({"mixup": 0.2}, "mixup and cutmix are drawn on the host"),
        ({"cutmix": 0.2}, "mixup and cutmix are drawn on the host"),
        ({"compile": True}, "the network is compiled"),
        ({"augment": lambda x: x}, "augment is a function of the caller"),
        ({"optimizer": lambda p: torch.optim.SGD(p, lr=0.1), "lr": None}, "SGD of optimizer is not made with capt"),
    ],
)
def test_what_is_not_captured_is_said_and_refused(settings: dict[str, Any], reason: str) -> None:
    run = Trainer(GENOTYPE, stripes(), **{**TRAINING, **settings})
    device = torch.device("cuda" if settings else "cpu")
    found = iterations.why_not(run.config, run.dataset, device, run._kept_eager)
    assert found is not None
    assert found.startswith(reason)
    with pytest.raises(ValueError, match="train: graphs must be auto or off, as the device is cpu, got 'on'"):
        Trainer(GENOTYPE, stripes(), **{**TRAINING, **settings, "graphs": "on"})


def test_a_training_on_a_gpu_is_captured() -> None:
    run = TRAININGS["as published"]()
    assert captured.why_no_batches(run.dataset, torch.device("cuda"), None) is None
    assert iterations.why_not(run.config, run.dataset, torch.device("cuda"), None) is None


def test_graphs_is_one_of_its_values() -> None:
    with pytest.raises(ValueError, match="train: graphs must be one of auto, on, off, got 'maybe'"):
        Trainer(GENOTYPE, stripes(), **TRAINING, graphs="maybe")
    assert "graphs" not in Trainer(GENOTYPE, stripes(), **TRAINING).config.to_json()

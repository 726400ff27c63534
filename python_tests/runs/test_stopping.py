"""Runs that stop: figures that are not finite, interrupts between steps, more epochs, other files of one data set."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from runs.small import SEARCH, outcome, ran, search, shrink, timeless, train
from torch import Tensor

from ddarts_ext.nn.supernet import Supernet
from ddarts_ext.runs import interrupts
from ddarts_ext.runs.finite import NotFiniteError
from ddarts_ext.runs.folder import RunFolder
from ddarts_ext.runs.progress import Progress
from ddarts_ext.runs.sums import Sums
from ddarts_ext.search import Searcher
from ddarts_ext.search.iterations import Iterations
from ddarts_ext.search.parts.part import Part

RUNS: dict[str, Callable[..., Any]] = {"search": search, "shrink": shrink, "train": train}


class Recorded(Progress):
    """What is said, and something to do in a certain step."""

    def __init__(self, step: int = 0, act: Callable[[], None] = lambda: None) -> None:
        self.lines: list[str] = []
        self.wanted, self.act, self.steps = step, act, 0

    def step(self) -> None:
        self.steps += 1
        if self.steps == self.wanted:
            self.act()

    def say(self, line: str) -> None:
        self.lines.append(line)


def test_the_first_step_that_is_not_finite_is_told_without_a_look_meanwhile() -> None:
    sums = Sums()
    assert sums.first_not_finite() is None
    for step in range(6):
        sums.add("loss", torch.tensor(math.inf if step == 4 else 1.0))
        sums.add("rows", torch.tensor([[1.0, math.nan if step >= 3 else 0.0], [1.0, 1.0]]))
    found = sums.first_not_finite()
    assert found is not None
    assert (found.step, found.name, found.place) == (3, "rows", (0, 1))
    again = Sums()
    again.load_state_dict(sums.state_dict(), torch.device("cpu"))
    assert again.first_not_finite() is not None


def spoilt(run: Any, epoch: int, step: int) -> Any:
    """A run whose images turn to infinity in a step."""
    steps = 3 if isinstance(run, Searcher) and not run.config.method.shrinking else 6
    count, real = 0, run.dataset.augment

    class Spoilt(type(run.dataset)):  # type: ignore[misc]
        def augment(self, *arguments: Any) -> Tensor:
            nonlocal count
            count += 1
            batches = 2 if steps == 3 else 1
            images: Tensor = real(*arguments)
            return images * math.inf if count == batches * (epoch * steps + step) else images

    run.dataset = Spoilt(**vars(run.dataset))
    if isinstance(run, Searcher):
        run.strategy.task = replace(run.strategy.task, dataset=run.dataset)
    return run


@pytest.mark.parametrize("kind", RUNS)
def test_a_loss_that_is_not_finite_stops_the_run(tmp_path: Path, kind: str) -> None:
    """In step 2 of epoch 2: the message says so, the folder holds the run as it was after epoch 1, and no result."""
    run = spoilt(RUNS[kind](tmp_path / "run"), 1, 2)
    with pytest.raises(NotFiniteError) as raised:
        ran(run)
    assert "must be finite, got nan in step 2 of epoch 2; " in str(raised.value)
    assert str(raised.value).endswith("holds the run as it was after epoch 1")
    names = {file.name for file in (tmp_path / "run").iterdir()}
    assert names == {"config.json", "history.jsonl", "checkpoint.pt", ".lock"}
    assert len(RunFolder(tmp_path / "run").history()) == 1
    again = ran(RUNS[kind](tmp_path / "run", resume=True))
    whole = ran(RUNS[kind]())
    assert all(torch.equal(a, b) for a, b in zip(outcome(again), outcome(whole), strict=True))


@pytest.mark.parametrize("kind", RUNS)
def test_a_run_that_stops_before_anything_is_saved_blocks_no_other(tmp_path: Path, kind: str) -> None:
    with pytest.raises(NotFiniteError, match="in step 2 of epoch 1; nothing of it is written"):
        ran(spoilt(RUNS[kind](tmp_path / "run"), 0, 2))
    assert not (tmp_path / "run").exists()

    class Stops(Recorded):
        def start(self, *_: Any) -> None:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ran(RUNS[kind](tmp_path / "run", progress=Stops()))
    assert (tmp_path / "run" / "config.json").exists()
    ran(RUNS[kind](tmp_path / "run", seed=5, epochs=2))


@pytest.mark.parametrize(
    ("figure", "place", "words"),
    [
        ("contributions", (1,), "the contribution of cell 1"),
        ("alpha_gradient", (1, 0, 2), "the gradient of an alpha of cell 1, edge 0, op OP"),
    ],
)
def test_a_figure_that_is_not_finite_is_told_by_cell_and_op(
    monkeypatch: pytest.MonkeyPatch, figure: str, place: tuple[int, ...], words: str
) -> None:
    real, seen = Sums.add, 0

    def add(self: Sums, name: str, value: Tensor, *more: Any, **options: Any) -> None:
        nonlocal seen
        if name == figure:
            seen += 1
            value = value.clone()
            value[place] = math.nan if seen == 2 else 0.0
        real(self, name, value, *more, **options)

    monkeypatch.setattr(Sums, "add", add)
    run = search()
    words = words.replace("OP", run._initial().space.ops[2])
    with pytest.raises(NotFiniteError, match=f"search: {words} must be finite, got nan in step 2 of epoch 1"):
        run.search()


def test_weights_that_are_not_finite_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    class Breaks(Part):
        def before_epoch(self, state: Any, epoch: int) -> None:
            buffer = next(iter(dict(state.net.named_buffers()).values()))
            buffer.fill_(math.inf)

    with pytest.raises(
        NotFiniteError, match=r"search: stem\S* must be finite, got (inf|nan) at the end of epoch 1; nothing"
    ):
        search(epochs=1, parts=[Breaks()], judge_statistics="batch", weight_lr=1e-8).search()


def test_nan_in_a_record_is_named(tmp_path: Path) -> None:
    class Adds(Part):
        def after_epoch(self, state: Any, epoch: int, record: dict[str, Any]) -> bool:
            record["mine"] = {"values": [1.0, math.inf, math.nan]}
            return False

    with pytest.raises(NotFiniteError, match=r"mine\.values\[2\] must be a number, got nan in epoch 1"):
        search(tmp_path / "run", epochs=1, parts=[Adds()]).search()
    assert not (tmp_path / "run").exists()


def test_infinite_scores_of_shrinking_read_back(tmp_path: Path) -> None:
    """IS-DARTS measures infinity of the op none."""
    result = shrink(tmp_path).search()
    text = (tmp_path / "history.jsonl").read_text()
    json.loads(text.splitlines()[0], parse_constant=lambda name: pytest.fail(f"{name} in the history"))
    read = RunFolder(tmp_path).history()
    assert timeless(read) == timeless(result.history)
    assert read[0]["scores"][0][0][0] == math.inf


def signalled() -> None:
    """As the command's handler is called, in the middle of a step or between two."""
    interrupts._received(15, None)


@pytest.mark.parametrize("kind", RUNS)
@pytest.mark.parametrize("step", [1, 3, 5])
def test_an_interrupt_keeps_the_steps_that_are_done(tmp_path: Path, kind: str, step: int) -> None:
    """Stopped after any step and resumed, also twice: what the whole run gives."""
    whole = ran(RUNS[kind](tmp_path / "whole"))
    progress = Recorded(step, signalled)
    with pytest.raises(interrupts.Interrupted):
        ran(RUNS[kind](tmp_path / "cut", progress=progress))
    assert any(f"saved after step {step if step < 4 or kind != 'search' else step - 3}" in x for x in progress.lines)
    with pytest.raises(interrupts.Interrupted):
        ran(RUNS[kind](tmp_path / "cut", resume=True, progress=Recorded(1, signalled)))
    again = Recorded()
    found = ran(RUNS[kind](tmp_path / "cut", resume=True, progress=again))
    assert any("continues within epoch" in line for line in again.lines) or kind == "search"
    assert timeless(found.history) == timeless(whole.history)
    assert all(torch.equal(a, b) for a, b in zip(outcome(found), outcome(whole), strict=True))


def test_a_signal_in_a_step_waits_for_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, calls = Supernet.forward, 0

    def forward(self: Any, *arguments: Any, **options: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 12:
            signalled()
        return real(self, *arguments, **options)

    monkeypatch.setattr(Supernet, "forward", forward)
    progress = Recorded()
    with pytest.raises(interrupts.Interrupted):
        search(tmp_path, "darts", progress=progress).search()
    assert any("saved after step" in line for line in progress.lines)


def test_what_an_interrupt_in_the_middle_of_a_step_leaves_is_not_saved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the command's handler Ctrl-C may come at any moment."""
    run, real = search(tmp_path), Iterations.prepared

    def prepared(*arguments: Any) -> Any:
        if run.keeping.folder.path.joinpath("history.jsonl").exists():
            raise KeyboardInterrupt
        return real(*arguments)

    monkeypatch.setattr(Iterations, "prepared", prepared)
    with pytest.raises(KeyboardInterrupt):
        run.search()
    saved = torch.load(tmp_path / "checkpoint.pt", weights_only=True)["content"]
    assert (saved["epoch"], saved["step"]) == (1, 0)


def test_a_save_that_would_take_long_is_left_out(tmp_path: Path) -> None:
    run = search(tmp_path, progress=Recorded(5, lambda: [setattr(run.folder, "save_seconds", 3.0), signalled()]))
    with pytest.raises(interrupts.Interrupted):
        run.search()
    assert torch.load(tmp_path / "checkpoint.pt", weights_only=True)["content"]["step"] == 0


@pytest.mark.parametrize("kind", ["search", "train"])
def test_more_epochs_can_be_added(tmp_path: Path, kind: str) -> None:
    ran(RUNS[kind](tmp_path))
    progress = Recorded()
    longer = ran(RUNS[kind](tmp_path, epochs=5, resume=True, progress=progress))
    assert [record["epoch"] for record in longer.history] == list(range(5))
    assert any("5 epochs instead of 3: from epoch 4 on the rates follow the cosine over 5" in x for x in progress.lines)
    rate = "weight_lr" if kind == "search" else "lr"
    expected = ran(RUNS[kind](epochs=5)).history
    assert [r[rate] for r in longer.history[3:]] == [r[rate] for r in expected[3:]]
    with pytest.raises(ValueError, match="epochs must be 5 or more to resume"):
        ran(RUNS[kind](tmp_path, epochs=4, resume=True))


def test_steps_of_shrinking_stay_where_they_are(tmp_path: Path) -> None:
    shrink(tmp_path).search()
    with pytest.raises(ValueError, match="epochs must be 3 to resume"):
        shrink(tmp_path, epochs=5, resume=True).search()


def test_images_are_known_by_what_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that was moved, or is named otherwise, is the same; one that was replaced is refused."""
    random = np.random.RandomState(0)
    arrays = {f"x_{part}": random.randint(0, 256, (12, 4, 4), dtype=np.uint8) for part in ("train", "test")}
    labels = {"y_train": np.arange(12) % 2, "y_test": np.arange(12) % 2}
    np.savez(tmp_path / "a.npz", **arrays, **labels)
    monkeypatch.chdir(tmp_path)
    settings = {**SEARCH, "epochs": 1}
    Searcher("a.npz", "darts", out="run", **settings).search()
    Searcher("./a.npz", "darts", out="run", resume=True, **settings).search()
    (tmp_path / "a.npz").rename(tmp_path / "b.npz")
    Searcher(tmp_path / "b.npz", "darts", out="run", resume=True, **settings).search()
    assert json.loads((tmp_path / "run" / "config.json").read_text())["source"] == str(tmp_path / "b.npz")
    arrays["x_test"] = 255 - arrays["x_test"]
    np.savez(tmp_path / "b.npz", **arrays, **labels)
    with pytest.raises(ValueError, match="data must be the images of the run: digest must be"):
        Searcher("b.npz", "darts", out="run", resume=True, **settings).search()

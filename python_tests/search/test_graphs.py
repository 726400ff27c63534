"""Steps that are captured and replayed give what steps that Python runs give, bit by bit."""

from __future__ import annotations

import copy
import gc
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from runs.shown import Shown
from runs.small import noise, outcome, search, shrink, timeless
from search.recordings import CalledAgain, CountsCalls, Silent, Tape, held_by_graphs, with_graphs

from ddarts_ext.data import Dataset, MemorySplit
from ddarts_ext.nn import joined
from ddarts_ext.ops._library import has_kernel
from ddarts_ext.runs.checkpoint import digest
from ddarts_ext.search.captured import CapturedIterations
from ddarts_ext.search.parts.part import Part
from ddarts_ext.search.step import Stepper
from ddarts_ext.search.strategy import Strategy


def tagged() -> Dataset:
    """The images of :func:`noise` with two labels each, 0 or 1."""
    data = noise()
    images = {part: getattr(data, part).images for part in ("train", "test")}
    drawn = torch.Generator().manual_seed(1)
    labels = {part: torch.randint(0, 2, (len(x), 2), generator=drawn).float() for part, x in images.items()}
    return replace(data, **{part: MemorySplit(images[part], labels[part]) for part in images})


SEARCHES: dict[str, Callable[..., Any]] = {
    "darts": lambda **s: search(method="darts", **s),
    "darts under a budget": lambda **s: search(method="darts", budget="params=600", budget_rate=5.0, **s),
    "da2s, alphas rest first": lambda **s: search(**{"method": "da2s", "steps": 2, "alpha_start": 1, **s}),
    "gdas": lambda **s: search(method="gdas", compute_unchosen=True, **s),
    "drnas": lambda **s: search(method="drnas", anchor_weight=0.01, **s),
    "reinmax, beta decay, auxiliary skip": lambda **s: search(
        method="reinmax", beta_decay_weight=5.0, auxiliary_skip=1.0, compute_unchosen=True, **s
    ),
    "oles": lambda **s: search(method="oles", op_stop_window=2, **s),
    "pdarts": lambda **s: search(method="pdarts", **s),
    "pcdarts": lambda **s: search(method="pcdarts", **{"partial_channels": 2, "channels": 4, **s}),
    "sdarts-rs": lambda **s: search(method="sdarts-rs", **s),
    "sdarts-adv": lambda **s: search(method="sdarts-adv", perturbation_steps=2, **s),
    "fairdarts": lambda **s: search(method="fairdarts", **s),
    "ddarts": lambda **s: search(zero_one_start=0.5, **s),
    "ddarts, alphas rest first": lambda **s: search(alpha_start=1, **s),
    "ddarts, contributions every 2nd step": lambda **s: search(ablation_every=2, ablation_inactive="bypass", **s),
    "ddarts, several labels, weighted": lambda **s: search(data=tagged(), class_weights="balanced", **s),
    "fairdarts, numbers and an own optimiser": lambda **s: search(
        method="fairdarts",
        data=tagged(),
        loss="mse",
        optimizer=lambda p: torch.optim.SGD(p, lr=0.02, momentum=0.5, fused=True),
        **s,
    ),
    "ddarts in bfloat16": lambda **s: search(precision="bf16", **s),
    "shrinking": lambda **s: shrink(**{"epochs": 5, "shrink_steps": 2, **s}),
    "shrinking by alphas": lambda **s: shrink(**{"epochs": 5, "shrink_steps": 2, "shrink_by": "alphas", **s}),
    "shrinking, darts": lambda **s: shrink(space="darts", **{"epochs": 4, **s}),
}


def whole(run: Any) -> tuple[list[dict[str, Any]], list[torch.Tensor], str]:
    """All that a search came to: its history, its alphas, and everything that a checkpoint holds at its end."""
    states: list[Any] = []
    begin = run._initial

    def remembered() -> Any:
        states.append(begin())
        return states[0]

    run._initial = remembered
    result = run.search()
    return timeless(result.history), outcome(result), digest(states[0].checkpoint())


def assert_same(one: Any, other: Any) -> None:
    for ours, theirs in zip(one[0], other[0], strict=True):
        assert ours == theirs
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(one[1], other[1], strict=True))
    assert one[2] == other[2]


EXPECTED: dict[str, Any] = {}


def by_python(name: str) -> Any:
    """What a search comes to whose steps Python runs, with :func:`fused_alphas`."""
    if name not in EXPECTED:
        EXPECTED[name] = whole(SEARCHES[name]())
    return EXPECTED[name]


def fused_alphas(patch: pytest.MonkeyPatch) -> None:
    """Adam as it is on a GPU, with its count of steps in a tensor: otherwise it reads that on the host."""
    real = torch.optim.Adam.__init__

    def made(self: Any, *arguments: Any, **settings: Any) -> None:
        real(self, *arguments, **{**settings, "fused": True})

    patch.setattr(torch.optim.Adam, "__init__", made)


@pytest.mark.parametrize("name", ["fairdarts", "ddarts", "shrinking"])
def test_called_again_is_the_same(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = whole(SEARCHES[name]())
    assert_same(whole(with_graphs(SEARCHES[name](), CalledAgain, monkeypatch)), expected)


@pytest.mark.parametrize("name", SEARCHES)
def test_replayed_without_python_is_the_same(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing that changes from step to step is a number or a branch of the host's: rates, counts, batches, draws."""
    if "bfloat16" in name and not has_kernel("mixed_sum", "cpu"):
        pytest.skip("the references in bfloat16 do not replay on the tape, why is not known yet")
    fused_alphas(monkeypatch)
    expected = by_python(name)
    calls = 0
    real = Stepper.weights

    def counted(self: Stepper, *arguments: Any) -> None:
        nonlocal calls
        calls += 1
        real(self, *arguments)

    monkeypatch.setattr(Stepper, "weights", counted)
    run = with_graphs(SEARCHES[name](), Tape, monkeypatch)
    assert_same(whole(run), expected)
    # Two sizes of batch, each run once and recorded once, for every network and form of step.
    networks = 1 + (
        run.config.method.shrinking.shrink_steps if run.config.method.shrinking else run.config.method.stages.count - 1
    )
    # Alphas that rest while edges move have a rate of 0, in the same step.
    forms = 2 if name == "ddarts, alphas rest first" else 1
    assert calls <= 4 * networks * forms


@pytest.mark.parametrize("steps", [1, 2, 4, 5])
@pytest.mark.parametrize("kind", ["ddarts", "da2s, alphas rest first", "gdas", "shrinking"])
def test_resumed_is_the_same(kind: str, steps: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fused_alphas(monkeypatch)
    out = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        with_graphs(SEARCHES[kind](out=out, progress=Shown(steps)), Tape, monkeypatch).search()
    assert_same(whole(with_graphs(SEARCHES[kind](out=out, resume=True), Tape, monkeypatch)), by_python(kind))


@pytest.mark.parametrize("name", ["ddarts", "fairdarts", "shrinking"])
def test_steps_of_all_weights_at_once_are_replayed_and_resumed(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a GPU, where the optimiser has buffers of its own."""
    monkeypatch.setattr(joined, "_counts_launches", lambda x: True)
    fused_alphas(monkeypatch)
    expected = whole(SEARCHES[name]())
    assert_same(whole(with_graphs(SEARCHES[name](), Tape, monkeypatch)), expected)
    out = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        with_graphs(SEARCHES[name](out=out, progress=Shown(4)), Tape, monkeypatch).search()
    assert_same(whole(with_graphs(SEARCHES[name](out=out, resume=True), Tape, monkeypatch)), expected)


@pytest.mark.parametrize("name", ["ddarts", "shrinking"])
def test_a_step_of_all_weights_at_once_is_the_step_of_one_by_one(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    ended = []
    for together in (False, True):
        monkeypatch.setattr(joined, "_counts_launches", lambda x, together=together: together)
        run = SEARCHES[name]()
        state = run._initial()
        generator = torch.Generator().manual_seed(2)
        batch = torch.randn(4, 1, 4, 4, generator=generator), torch.tensor([0, 1, 1, 0])
        Stepper(state, run.config.method, nullcontext).weights(batch, state.sums)
        ended.append([*state.net.parameters(), state.sums.means()["gradient"]])
    for one, other in zip(*ended, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", ["ddarts", "shrinking"])
def test_a_replayed_step_is_at_most_ten_calls_of_the_host(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    fused_alphas(monkeypatch)
    found: list[int] = []
    real = CapturedIterations._captured

    def measured(self: CapturedIterations, *arguments: Any) -> None:
        before = CountsCalls.calls
        real(self, *arguments)
        found.append(CountsCalls.calls - before)

    monkeypatch.setattr(CapturedIterations, "_captured", measured)
    with CountsCalls():
        with_graphs(SEARCHES[name](data=noise(44), epochs=3), Silent, monkeypatch).search()
    assert max(found) > 100  # those that Python ran
    assert sorted(found)[len(found) // 2] <= 10


@pytest.mark.parametrize("name", ["darts", "ddarts", "drnas", "sdarts-adv", "shrinking", "shrinking by alphas"])
def test_no_graph_of_the_network_outlives_what_made_it(name: str) -> None:
    """Not what is told before the first step, no step, no judging, no measure: nothing waits to be collected either."""
    run = SEARCHES[name]()
    found: list[list[str]] = []
    begin, end = run._start, run._finish_epoch

    def began() -> Any:
        state = begin()
        found.append(held_by_graphs(state.net))
        return state

    def ended(state: Any, *arguments: Any) -> None:
        found.append(held_by_graphs(state.net))
        end(state, *arguments)
        found.append(held_by_graphs(state.net))

    run._start, run._finish_epoch = began, ended
    gc.collect()
    gc.disable()
    try:
        run.search()
    finally:
        gc.enable()
    assert len(found) == 1 + 2 * run.config.method.epochs
    assert not any(found)


def test_a_graph_that_is_alive_is_seen() -> None:
    layer = torch.nn.Linear(3, 3)
    assert held_by_graphs(layer) == []
    out = layer(torch.ones(2, 3)).tanh()
    assert held_by_graphs(layer) == ["weight", "bias"]
    del out
    assert held_by_graphs(layer) == []


def test_a_step_that_cannot_be_captured_runs_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    class Fails(Tape):
        def record(self, call: Any) -> None:
            raise RuntimeError("operation not permitted when stream is capturing\nand more")

    expected = whole(SEARCHES["ddarts"]())
    progress = Shown()
    assert_same(whole(with_graphs(SEARCHES["ddarts"](progress=progress), Fails, monkeypatch)), expected)
    (said,) = [line for line in progress.lines if "captured" in line]
    assert said.endswith("could not be captured: operation not permitted when stream is capturing")
    run = with_graphs(SEARCHES["ddarts"](), Fails, monkeypatch)
    object.__setattr__(run.config, "graphs", "on")
    with pytest.raises(RuntimeError, match="not permitted"):
        run.search()


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({}, "the device is cpu"),
        ({"order": 2, "method": "darts"}, "second order"),
        ({"autoaugment": "cifar10"}, "AutoAugment"),
        ({"parts": [Part()]}, "parts"),
        ({"reference_accumulate": True}, "reference_accumulate"),
        ({"method": "da2s", "alpha_every": 2}, "alpha_every"),
        ({"method": "da2s", "alpha_images": "training"}, "alpha_images"),
    ],
)
def test_on_refuses_what_cannot_be_captured(
    settings: dict[str, Any], reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if settings:
        real = Strategy.why_eager

        def on_a_gpu(self: Strategy, parts: Any) -> str | None:
            there = copy.copy(self)
            there.task = replace(self.task, device=torch.device("cuda"))
            return real(there, parts)

        monkeypatch.setattr(Strategy, "why_eager", on_a_gpu)
    with pytest.raises(ValueError, match=f"search: graphs must be auto or off, as .*{reason}"):
        search(graphs="on", **settings)


def test_only_every_kth_epoch_is_judged_and_the_last() -> None:
    every, some = search(epochs=4).search(), search(epochs=4, judge_every=3).search()
    assert ["valid" in record for record in some.history] == [False, False, True, True]
    assert torch.equal(every.alphas, some.alphas)
    assert some.history[-1]["valid"] == every.history[-1]["valid"]
    with pytest.raises(ValueError, match="search: judge_every must be >= 1, got 0"):
        search(judge_every=0)


def test_a_search_that_a_part_ends_is_judged_at_its_end() -> None:
    class Stops(Part):
        def after_epoch(self, state: Any, epoch: int, record: dict[str, Any]) -> bool:
            return epoch == 1

    found = [search(epochs=4, judge_every=k, parts=[Stops()]).search().history[-1] for k in (1, 3)]
    assert found[0]["valid"] == found[1]["valid"]
    assert found[0]["discretisation"] == found[1]["discretisation"]

"""A run is its seed's alone: not another thread's, not what the caller has switched, and nothing global is moved."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from runs.small import outcome, ran, search, shrink, train

from ddarts_ext.genotype import Genotype
from ddarts_ext.nn.network import build_network
from ddarts_ext.runs.device import repeatable
from ddarts_ext.runs.draws import DrawsFrom

RUNS: dict[str, Callable[[], Any]] = {"search": search, "shrink": shrink, "train": train}


def same(ours: Any, theirs: Any) -> bool:
    return all(torch.equal(a, b) for a, b in zip(outcome(ours), outcome(theirs), strict=True))


def test_a_generator_of_ones_own_initialises_as_the_global_one() -> None:
    def network() -> dict[str, torch.Tensor]:
        return dict(build_network(Genotype.load("DARTS_V2"), 8, 10, 3, True).state_dict())

    torch.manual_seed(3)
    expected = network()
    before = torch.get_rng_state()
    with DrawsFrom(torch.Generator().manual_seed(3)):
        found = network()
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(tensor, found[name]) for name, tensor in expected.items())


@pytest.mark.parametrize("kind", RUNS)
def test_threads_give_what_they_give_alone(kind: str) -> None:
    """Two runs at once, while a third thread draws and seeds; the global generator is the third one's alone."""
    expected = ran(RUNS[kind]())
    found: list[Any] = [None, None]
    ended = threading.Event()

    def work(place: int) -> None:
        found[place] = ran(RUNS[kind]())

    def disturb() -> None:
        while not ended.is_set():
            torch.manual_seed(1)
            torch.randn(3)

    threads = [threading.Thread(target=work, args=(place,)) for place in range(2)]
    other = threading.Thread(target=disturb)
    for thread in (other, *threads):
        thread.start()
    for thread in threads:
        thread.join()
    ended.set()
    other.join()
    assert all(same(result, expected) for result in found)


@contextmanager
def deterministic() -> Iterator[None]:
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(False)


@contextmanager
def nothing() -> Iterator[None]:
    before = torch.get_rng_state()
    yield
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("kind", RUNS)
@pytest.mark.parametrize(
    "state",
    [
        nothing,
        torch.no_grad,
        torch.inference_mode,
        deterministic,
        lambda: torch.autocast("cpu", torch.bfloat16),
    ],
)
def test_what_the_caller_has_switched_changes_nothing(kind: str, state: Callable[[], Any]) -> None:
    expected = ran(RUNS[kind]())
    with state():
        found = ran(RUNS[kind]())
    assert same(found, expected)


@pytest.mark.parametrize("kind", RUNS)
def test_another_default_dtype_or_device_is_refused(kind: str) -> None:
    torch.set_default_dtype(torch.float64)
    try:
        with pytest.raises(ValueError, match=r": torch's default dtype must be torch.float32, got torch.float64"):
            ran(RUNS[kind]())
    finally:
        torch.set_default_dtype(torch.float32)
    run = RUNS[kind]()
    with torch.device("meta"), pytest.raises(ValueError, match="default device must be cpu, got meta"):
        ran(run)


def test_deterministic_algorithms_last_as_long_as_anybody_wants_them() -> None:
    first, second = repeatable(True), repeatable(True)
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert torch.are_deterministic_algorithms_enabled()
    second.__exit__(None, None, None)
    assert not torch.are_deterministic_algorithms_enabled()

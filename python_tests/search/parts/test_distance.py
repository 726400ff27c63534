"""The distance over a search, and the rule that ends it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from ddarts_ext import spaces
from ddarts_ext.data import Augmentation, Dataset, MemorySplit
from ddarts_ext.distance import architecture_distance
from ddarts_ext.genotype import Gene, Genotype
from ddarts_ext.runs.progress import Progress
from ddarts_ext.search import methods
from ddarts_ext.search.parts.distance import DistancePart
from ddarts_ext.search.searcher import Searcher
from ddarts_ext.search.start import initial_state
from ddarts_ext.search.state import SearchState

START = Genotype(((Gene("skip_connect", 2, 0),), (Gene("max_pool_3x3", 2, 1),)), concat=(2,), reductions=())
SMALL: dict[str, Any] = {"channels": 2, "batch": 4, "device": "cpu"}


def noise() -> Dataset:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (8, 1, 4, 4), generator=generator, dtype=torch.uint8)
    part = MemorySplit(images, torch.arange(8) % 2)
    return Dataset("noise", part, part, ("even", "odd"), (4, 4), 1, (0.5,), (0.25,), Augmentation())


def state_of(method: str = "dartopti", **options: Any) -> SearchState:
    searcher = Searcher(noise(), method, **SMALL, **options)
    return initial_state(searcher.config, searcher.dataset, torch.device("cpu"))


def put(state: SearchState, row: int, op: str, alpha: float) -> None:
    """Give an op of the first edge of a cell another alpha."""
    with torch.no_grad():
        state.architecture.table[row, 0, spaces.get("dartopti").op_index(op)] = alpha


def test_distances_to_the_start_and_to_the_epoch_before() -> None:
    state = state_of(start=START)
    part = DistancePart()
    part.before_epoch(state, 0)
    assert part.start is not None
    assert [set(cell) for cell in part.start.cells] == [set(cell) for cell in START.cells]
    records: list[dict[str, Any]] = [{}, {}, {}]
    put(state, 0, "sep_conv_3x3", 5.0)
    assert not part.after_epoch(state, 0, records[0])
    moved = Genotype(((*START.genes[0], Gene("sep_conv_3x3", 2, 0)), START.genes[1]), concat=(2,), reductions=())
    expected = architecture_distance(START, moved)
    assert records[0]["distance"] == {"start": pytest.approx(expected), "previous": pytest.approx(expected)}
    part.after_epoch(state, 1, records[1])
    assert records[1]["distance"] == {"start": pytest.approx(expected), "previous": 0.0}
    put(state, 0, "sep_conv_3x3", 0.0)
    part.after_epoch(state, 2, records[2])
    assert records[2]["distance"] == {"start": 0.0, "previous": pytest.approx(expected)}


def test_published_rule_stops_at_epoch_14_at_the_earliest() -> None:
    """Distances count from index 10 on, five epochs after the pre-training, and the newest is compared with four."""
    state = state_of(start=START)
    part = DistancePart.of(methods.get("dartopti"))
    stopped = []
    for epoch in range(20):
        part.before_epoch(state, epoch)
        record: dict[str, Any] = {}
        if part.after_epoch(state, epoch, record):
            stopped.append(epoch)
        assert ("settled" in record["distance"]) == (epoch >= 10)
    assert stopped[0] == 14


def test_a_change_restarts_the_wait() -> None:
    state = state_of(start=START)
    part = DistancePart(stop=True, first=0)
    stopped = []
    for epoch in range(10):
        part.before_epoch(state, epoch)
        if epoch == 3:
            put(state, 1, "dil_conv_5x5", 9.0)
        if part.after_epoch(state, epoch, {}):
            stopped.append(epoch)
    assert stopped == [7, 8, 9]


class Interrupt(Progress):
    def __init__(self, after: int) -> None:
        self.left = after

    def epoch(self, line: str) -> None:
        self.left -= 1
        if not self.left:
            raise KeyboardInterrupt


def test_resumed_search_has_the_same_distances_and_the_same_stop(tmp_path: Path) -> None:
    settings = {**SMALL, "start": START, "epochs": 12, "alpha_start": 1, "stop_after": 1, "stop_window": 3}
    whole = Searcher(noise(), "dartopti", **settings, out=tmp_path / "whole").search()
    for after in (2, 2):
        with pytest.raises(KeyboardInterrupt):
            Searcher(
                noise(), "dartopti", **settings, out=tmp_path / "cut", resume=True, progress=Interrupt(after)
            ).search()
    resumed = Searcher(noise(), "dartopti", **settings, out=tmp_path / "cut", resume=True).search()
    assert len(whole.history) == 6
    assert whole.history[-1]["distance"]["settled"]
    assert [record["distance"] for record in resumed.history] == [record["distance"] for record in whole.history]
    assert torch.equal(resumed.alphas, whole.alphas)
    # A search that has stopped stays stopped.
    again = Searcher(noise(), "dartopti", **settings, out=tmp_path / "cut", resume=True).search()
    assert len(again.history) == 6


def test_any_search_can_use_it() -> None:
    """Without a start the empty architecture is the start, as no op has reached the threshold."""
    sizes = {**SMALL, "cells": 2, "steps": 1, "epochs": 2}
    tracked = Searcher(noise(), "ddarts", track_distance=True, alpha_lr=3.0, **sizes).search()
    empty = Genotype(((), ()), concat=(2,))
    expected = architecture_distance(empty, tracked.genotypes["edge"])
    assert tracked.history[-1]["distance"]["start"] == pytest.approx(expected)
    plain = Searcher(noise(), "ddarts", alpha_lr=3.0, **sizes).search()
    assert "distance" not in plain.history[-1]
    assert torch.equal(plain.alphas, tracked.alphas)
    stopped = Searcher(
        noise(),
        "darts",
        alpha_start=0,
        early_stop=True,
        stop_after=0,
        stop_window=1,
        alpha_lr=0.0,
        **{**sizes, "epochs": 9},
    ).search()
    assert len(stopped.history) == 2


def test_a_search_without_alphas_has_no_distance() -> None:
    with pytest.raises(ValueError, match="early_stop and track_distance must be left out with method isdarts"):
        Searcher(noise(), "isdarts", early_stop=True, cells=3, channels=2, device="cpu")


def test_scores_must_have_the_ops_of_the_space() -> None:
    with pytest.raises(ValueError, match="scores: must be one of median, mean or a file, got 'best'"):
        Searcher(noise(), "dartopti", start=START, distance_scores="best", **SMALL)
    part = DistancePart(scores={"skip_connect": 1.0})
    with pytest.raises(ValueError, match="distance_scores must have all ops of the space, got none for avg_pool_3x3"):
        part.before_epoch(state_of(start=START), 0)

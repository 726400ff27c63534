"""A search on a part of the training images."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from runs.small import SEARCH, noise

from ddarts_ext.data import MemorySplit
from ddarts_ext.search import Searcher


def quarter(out: Path | None = None, **settings: Any) -> Searcher:
    """Of 120 images, of which 30 are of class 1."""
    data = noise(120)
    assert isinstance(data.train, MemorySplit)
    data = replace(data, train=MemorySplit(data.train.images, (torch.arange(120) % 4 == 0).long()))
    return Searcher(data, "fairdarts", out=out, **{**SEARCH, "search_fraction": 0.2, **settings})


def test_the_part_has_every_class_in_its_share() -> None:
    searcher = quarter()
    weights, alphas = searcher.strategy.divided
    seen = torch.cat([weights, alphas])
    assert len(seen.unique()) == len(seen) == 24
    assert [int(n) for n in torch.bincount(searcher.dataset.train.labels[seen])] == [18, 6]
    assert len(weights) == len(alphas)


def test_it_follows_from_the_seed() -> None:
    assert torch.equal(quarter().order, quarter().order)
    assert not torch.equal(quarter().order, quarter(seed=1).order)


def test_a_run_keeps_its_part(tmp_path: Path) -> None:
    result = quarter(tmp_path / "run", epochs=1).search()
    assert len(result.history) == 1
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert config["search_fraction"] == 0.2
    assert {name: part["images"] for name, part in config["division"].items()} == {"weights": 12, "alphas": 12}
    with pytest.raises(ValueError, match=r"search: search_fraction must be 0\.2 to resume"):
        quarter(tmp_path / "run", search_fraction=0.3, resume=True).search()


def test_without_it_nothing_is_said_of_it() -> None:
    assert "search_fraction" not in quarter(search_fraction=1.0).config.to_json()
    assert len(quarter(search_fraction=1.0).order) == 120


@pytest.mark.parametrize("value", [0, 1.5, -0.1, float("nan")])
def test_other_shares_are_refused(value: float) -> None:
    with pytest.raises(ValueError, match="search: search_fraction must be above 0 and at most 1, got"):
        quarter(search_fraction=value)


def test_it_is_a_number() -> None:
    with pytest.raises(TypeError, match="search: search_fraction must be a number, got 'half'"):
        quarter(search_fraction="half")

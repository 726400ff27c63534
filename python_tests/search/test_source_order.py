"""A class-sorted folder, a class-sorted array and the same images shuffled give one search."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from runs.shown import Shown

from ddarts_ext.search.searcher import Searcher
from ddarts_ext.search.shrinking.shrinker import Shrinker

SMALL: dict[str, Any] = {"cells": 3, "channels": 2, "steps": 1, "batch": 8, "epochs": 2, "device": "cpu"}


def sorted_images() -> tuple[np.ndarray, np.ndarray]:
    """Three classes of grey 6x6 images that differ in their level, class by class."""
    random = np.random.RandomState(0)
    labels = np.repeat(np.arange(3), 16)
    noise = random.randint(0, 60, (48, 6, 6))
    return (noise + 80 * labels[:, None, None]).clip(0, 255).astype(np.uint8), labels


def save(path: Path, images: np.ndarray, labels: np.ndarray) -> Path:
    np.savez(path, x_train=images, y_train=labels, x_test=images[::4], y_test=labels[::4])
    return path


@pytest.fixture
def sources(tmp_path: Path) -> dict[str, Path]:
    image = pytest.importorskip("PIL.Image")
    images, labels = sorted_images()
    shuffle = np.random.RandomState(1).permutation(48)
    for part, step in (("train", 1), ("test", 4)):
        for number, (pixels, label) in enumerate(zip(images[::step], labels[::step], strict=True)):
            folder = tmp_path / "folder" / part / str(label)
            folder.mkdir(parents=True, exist_ok=True)
            image.fromarray(pixels).save(folder / f"{number:03}.png")
    return {
        "folder": tmp_path / "folder",
        "sorted": save(tmp_path / "sorted.npz", images, labels),
        "shuffled": save(tmp_path / "shuffled.npz", images[shuffle], labels[shuffle]),
    }


@pytest.mark.parametrize("method", ["ddarts", "darts"])
def test_one_search_whatever_the_order(sources: dict[str, Path], method: str) -> None:
    found = {}
    for name, source in sources.items():
        searcher = Searcher(source, method, **SMALL, seed=5)
        weights, alphas = (searcher.dataset.train.labels[part] for part in searcher.strategy.divided)
        # Both parts have all classes: each has half of every class.
        assert np.bincount(weights).tolist() == np.bincount(alphas).tolist() == [8, 8, 8]
        found[name] = searcher.search()
    first = found["folder"]
    for other in found.values():
        assert other.genotype == first.genotype
        assert other.history[-1]["valid"] == first.history[-1]["valid"]


def test_shrinking_too(sources: dict[str, Path]) -> None:
    settings: dict[str, Any] = {"cells": 3, "channels": 2, "batch": 8, "epochs": 2, "device": "cpu"}
    steps = {"shrink_steps": 1, "shrink_interval": 1, "measure_curve": 0}
    found = [Shrinker(source, **settings, **steps).search().genotype for source in sources.values()]
    assert found[0] == found[1] == found[2]


def test_the_order_of_the_source_is_an_option_that_says_so(sources: dict[str, Path]) -> None:
    said = Shown()
    settings: dict[str, Any] = {"cells": 3, "channels": 2, "batch": 8, "epochs": 2, "device": "cpu", "progress": said}
    searcher = Shrinker(sources["sorted"], **settings, shuffle=False, shrink_steps=1, shrink_interval=1)
    rows = searcher.strategy.rows(searcher._initial())
    assert torch.cat([part.flatten() for part in rows]).tolist() == list(range(48))
    assert any("shuffle=false" in line for line in said.lines)


def test_accuracy_far_below_chance_is_said(tmp_path: Path) -> None:
    """A record of validation by labels that do not fit."""
    images, labels = sorted_images()
    many = save(tmp_path / "many.npz", np.tile(images, (20, 1, 1)), np.tile(labels, 20))
    strategy = Searcher(many, "darts", **SMALL).strategy
    assert strategy.warning({"valid": {"accuracy": 0.3, "loss": 1.1}}) is None
    warning = strategy.warning({"valid": {"accuracy": 0.05, "loss": 9.0}})
    assert warning is not None
    assert "5.00% is far below chance (33.33%)" in warning

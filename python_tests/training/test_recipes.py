"""What a recipe sets, and when it is chosen by itself."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from ddarts_ext.data import Augmentation, Dataset, MemorySplit
from ddarts_ext.training.config import resolve
from ddarts_ext.training.recipes import recipe_for


def images(side: int, channels: int = 3) -> Dataset:
    split = MemorySplit(torch.zeros(4, channels, side, side, dtype=torch.uint8), torch.arange(4) % 2)
    how = Augmentation(crop_padding=4, flip=True, cutout=16)
    mean = (0.5,) * channels
    return Dataset("images", split, split, ("a", "b"), (side, side), channels, mean, mean, how)


def test_the_recipe_of_ddarts() -> None:
    found = resolve(images(32), {"recipe": "ddarts"})
    assert (found.batch, found.lr, found.epochs) == (128, 0.025, 600)
    assert found.augmentation == Augmentation(crop_padding=4, flip=True, cutout=16, autoaugment="cifar10")
    assert resolve(images(96), {"recipe": "ddarts"}).augmentation.autoaugment == "imagenet"
    assert resolve(images(32, 1), {"recipe": "ddarts"}).augmentation.autoaugment is None
    assert resolve(images(32), {}).augmentation.autoaugment is None
    assert resolve(images(32), {"recipe": "ddarts", "batch": 32}).batch == 32
    with pytest.raises(ValueError, match="recipe must be one of darts, ddarts, got 'mine'"):
        resolve(images(32), {"recipe": "mine"})


def test_fields_of_the_augmentation_are_settings() -> None:
    found = resolve(images(32), {"autoaugment": "svhn", "cutout": 0}).augmentation
    assert found == Augmentation(crop_padding=4, flip=True, cutout=0, autoaugment="svhn")
    with pytest.raises(TypeError, match="cutout must be a whole number of pixels, got 'x'"):
        resolve(images(32), {"cutout": "x"})


@pytest.mark.parametrize(("config", "recipe"), [({"method": {"name": "ddarts"}}, "ddarts"), ({"method": {}}, "darts")])
def test_a_run_of_ddarts_is_trained_by_its_recipe(tmp_path: Path, config: dict[str, Any], recipe: str) -> None:
    pytest.importorskip("kornia")
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert recipe_for(tmp_path) == recipe
    assert recipe_for("DARTS_V2") == recipe_for(tmp_path / "none") == "darts"

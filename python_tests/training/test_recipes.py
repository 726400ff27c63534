"""What a recipe sets, and when it is chosen by itself."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from ddarts_ext.data import Augmentation, Dataset, MemorySplit
from ddarts_ext.genotype import Genotype
from ddarts_ext.training import Trainer
from ddarts_ext.training.config import resolve
from ddarts_ext.training.rates import rate
from ddarts_ext.training.recipes import NAMES, recipe_for


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
    with pytest.raises(ValueError, match=r"^train: recipe must be one of darts, ddarts, .*, modern, got 'mine'$"):
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


def cosine(lr: float, epochs: int) -> Callable[[int], float]:
    return lambda e: lr * 0.5 * (1 + math.cos(math.pi * e / epochs))


def warmed(lr: float, warmup: int, epochs: int) -> Callable[[int], float]:
    """The scheduler of AutoDL at the first step of an epoch: its cosine over ``epochs`` begins after the warm-up."""
    return lambda e: lr * e / warmup if e < warmup else cosine(lr, epochs)(e - warmup)


PUBLISHED: dict[str, tuple[int, Callable[[int], float]]] = {
    "darts": (600, cosine(0.025, 600)),
    "ddarts": (600, cosine(0.025, 600)),
    "darts-cifar10": (600, cosine(0.025, 600)),
    "darts-cifar100": (600, cosine(0.025, 600)),
    "ddarts-cifar10": (600, cosine(0.025, 600)),
    "ddarts-cifar100": (600, cosine(0.025, 600)),
    "isdarts-cifar10": (600, warmed(0.025, 5, 595)),
    "nasbench201": (200, cosine(0.1, 200)),
    "darts-imagenet": (250, lambda e: 0.1 * 0.97**e),
    "ddarts-imagenet": (250, cosine(0.1, 250)),
    "isdarts-imagenet": (250, warmed(0.1, 5, 245)),
    "quick": (30, cosine(0.05, 30)),
    "few": (60, cosine(0.025, 60)),
    "modern": (300, warmed(0.0625, 5, 295)),
}


@pytest.mark.parametrize("name", NAMES)
def test_the_rate_of_every_epoch(name: str) -> None:
    epochs, formula = PUBLISHED[name]
    config = resolve(images(32), {"recipe": name})
    assert config.epochs == epochs
    for epoch in range(epochs):
        assert rate(config, epoch) == pytest.approx(formula(epoch), rel=1e-12, abs=1e-15)


@pytest.mark.parametrize("name", ["isdarts-cifar10", "isdarts-imagenet"])
def test_warm_up_rises_with_every_step(name: str) -> None:
    config = resolve(images(32), {"recipe": name})
    for epoch in range(5):
        for step in range(7):
            assert rate(config, epoch, step / 7) == pytest.approx(config.lr * (epoch + step / 7) / 5, rel=1e-12)
    assert rate(config, 5, 6 / 7) == config.lr
    # AutoDL's scheduler is at lr_min for the last 5 epochs, where this cosine has a thousandth of lr at most.
    assert rate(config, config.epochs - 5) < 1.1e-3 * config.lr


def test_rates_within_a_training_are_those_of_the_recipe(tmp_path: Path) -> None:
    from training.small import GENOTYPE, SMALL, stripes

    settings = {**SMALL, "epochs": 4, "schedule": "exponential", "gamma": 0.5, "warmup": 1}
    history = Trainer(GENOTYPE, stripes(), **settings).train().history
    assert [record["lr"] for record in history] == pytest.approx([0.075, 0.1, 0.05, 0.025])


CIFAR = {"channels": 36, "epochs": 600, "batch": 96, "lr": 0.025, "lr_min": 0.0, "momentum": 0.9, "weight_decay": 3e-4}
CIFAR |= {"clip": 5.0, "auxiliary_weight": 0.4, "drop_path": 0.2, "label_smoothing": 0.0, "nesterov": False}
IMAGENET = {"channels": 48, "epochs": 250, "batch": 128, "lr": 0.1, "momentum": 0.9, "weight_decay": 3e-5, "clip": 5.0}
IMAGENET |= {"auxiliary_weight": 0.4, "drop_path": 0.0, "label_smoothing": 0.1, "nesterov": False}
CROPS = {"crop_padding": 4, "flip": True, "cutout": 16, "autoaugment": None, "resized_crop": 0.0, "jitter": ()}
RESIZED = {"crop_padding": 0, "flip": True, "cutout": 0, "resized_crop": 0.08, "jitter": (0.4, 0.4, 0.4, 0.2)}
TABLE: dict[str, dict[str, Any]] = {
    "darts-cifar10": {**CIFAR, **CROPS},
    "darts-cifar100": {**CIFAR, **CROPS},
    "ddarts-cifar10": {**CIFAR, **CROPS, "batch": 128, "autoaugment": "cifar10"},
    "ddarts-cifar100": {**CIFAR, **CROPS, "batch": 128, "autoaugment": "cifar10"},
    "isdarts-cifar10": {**CIFAR, **CROPS, "nesterov": True, "warmup": 5, "clip": 0.0},
    "nasbench201": {
        "channels": 16, "epochs": 200, "batch": 256, "lr": 0.1, "momentum": 0.9, "weight_decay": 5e-4, "clip": 0.0,
        "auxiliary_weight": 0.0, "drop_path": 0.0, "nesterov": True, **CROPS, "cutout": 0,
    },
    "darts-imagenet": {**IMAGENET, **RESIZED, "lighting": 0.0, "autoaugment": None},
    "ddarts-imagenet": {**IMAGENET, **RESIZED, "lighting": 0.0, "autoaugment": "imagenet"},
    "isdarts-imagenet": {**IMAGENET, **RESIZED, "lighting": 0.1, "nesterov": True, "clip": 0.0, "autoaugment": None},
}  # fmt: skip


@pytest.mark.parametrize("name", TABLE)
def test_what_a_recipe_sets_is_what_was_published(name: str) -> None:
    found = resolve(images(32), {"recipe": name})
    values = {**vars(found), **vars(found.augmentation), **vars(found.transforms)}
    assert {key: values[key] for key in TABLE[name]} == TABLE[name]
    for unused in ("ema", "mixup", "cutmix", "randaugment", "erasing"):
        assert not values[unused]
    assert found.accumulate == 1


def test_modern_sets_what_the_others_do_not() -> None:
    found = resolve(images(32), {"recipe": "modern"})
    assert (found.ema, found.mixup, found.cutmix, found.label_smoothing) == (0.999, 0.2, 1.0, 0.1)
    assert (found.transforms.randaugment, found.transforms.erasing) == (2, 0.1)


def test_small_images_get_quick_unless_a_publication_is_named() -> None:
    assert resolve(images(8, 1), {}).epochs == resolve(images(8, 1), {"recipe": "darts"}).epochs == 30
    assert resolve(images(8, 1), {"recipe": "darts-cifar10"}).epochs == 600
    assert resolve(images(32), {"recipe": "quick"}).channels == 16
    few = resolve(images(32), {"recipe": "few"})
    assert (few.channels, few.batch, few.auxiliary_weight, few.drop_path) == (16, 16, 0.0, 0.0)
    assert resolve(images(8, 1), {"recipe": "few"}).batch == 16
    for name in ("darts-imagenet", "modern", "ddarts-cifar10"):
        with pytest.raises(ValueError, match=r"train: \w+ must be off .* got images of 1"):
            resolve(images(8, 1), {"recipe": name})


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"warmup": 600}, "train: warmup must be below the 600 epochs, got 600"),
        ({"ema": 1.0}, "train: ema must be below 1, got 1.0"),
        ({"nesterov": True, "momentum": 0.0}, "train: momentum must be above 0 with nesterov"),
        ({"schedule": "step"}, "train: schedule must be one of cosine, exponential, got 'step'"),
        ({"layout": "rows"}, "train: layout must be one of channels_last, contiguous, got 'rows'"),
        ({"accumulate": 0}, "train: accumulate must be >= 1, got 0"),
        ({"holdout": 1}, "train: holdout must be between 0 and 1, got 1"),
        ({"holdout": 0.1, "keep": "last"}, "train: keep must be 'best' or not said with holdout 0.1, got 'last'"),
        ({"jitter": [0.4]}, "augmentation: jitter must be 4 numbers or none"),
        ({"jitter": [0, 0, 0, 0.6]}, "augmentation: jitter must be of numbers from 0 to 1, the last to 0.5"),
        ({"resized_crop": 2}, "augmentation: resized_crop must be from 0 to 1, got 2"),
        ({"randaugment": 16}, "augmentation: randaugment must be from 0 to 15, got 16"),
    ],
)
def test_wrong_settings_are_one_line(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message) as found:
        resolve(images(32), settings)
    assert "\n" not in str(found.value)


def test_wrong_kinds_are_one_line() -> None:
    for settings in ({"nesterov": 1}, {"lr": "high"}, {"randaugment": 1.5}, {"erasing": True}, {"compile": "yes"}):
        with pytest.raises(TypeError, match=f"{next(iter(settings))} must be "):
            resolve(images(32), settings)


def test_holdout_is_a_part_to_choose_by() -> None:
    found = resolve(images(32), {"holdout": 0.25})
    assert (found.keep, found.held_back) == ("best", 0.25)
    assert resolve(images(32), {}).keep == "last"


PAIR = Genotype.from_darts([("sep_conv_3x3", 2, 0), ("skip_connect", 2, 1)], [("max_pool_3x3", 2, 0)], 8, concat=[2])


def search_run(folder: Path, method: str, genotype: Genotype) -> Path:
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"command": "search", "method": {"name": method}}))
    genotype.save(folder / "genotype.json")
    return folder


def trainer(source: Any, recipe: str | None, **settings: Any) -> Trainer:
    return Trainer(source, images(32), recipe=recipe, device="cpu", **{"channels": 2, **settings})


def test_a_search_result_is_trained_at_the_published_depth(tmp_path: Path) -> None:
    run = search_run(tmp_path / "search", "darts", PAIR)
    found = trainer(run, "darts-cifar10")
    assert found.genotype.layers == 20
    assert found.genotype.reduction_cells == (6, 13)
    said = (
        "train: 20 cells, as published for darts-cifar10, derived from the 8 that were searched (cells=8 trains those)"
    )
    assert said in found.lines
    assert trainer(run, "darts-imagenet").genotype.layers == 14
    assert trainer(run, "ddarts-cifar10").genotype.layers == 14
    assert trainer(run, "isdarts-cifar10").genotype.layers == 20
    assert trainer(run, None).genotype.layers == 20
    eight = trainer(run, "darts-cifar10", cells=8)
    assert eight.genotype.layers == 8
    assert not any("cells" in line for line in eight.lines[-1:] if line.startswith("train: 20"))
    assert trainer(run, "quick").genotype.layers == 8
    assert trainer(search_run(tmp_path / "opti", "dartopti", PAIR), "darts-cifar10").genotype.layers == 8


def test_other_genotypes_keep_their_depth_and_it_is_said() -> None:
    found = trainer(PAIR, "darts-cifar10")
    assert found.genotype.layers == 8
    assert "train: 8 cells, as the genotype has; darts-cifar10 as published has 20 (cells=20)" in found.lines
    assert trainer("DARTS_V2", "darts-cifar10").lines[1:] == [
        "train: set otherwise than by the recipe: channels 2 (recipe: 36)"
    ]
    nb201 = Genotype.from_nb201("|nor_conv_3x3~0|+|none~0|skip_connect~1|+|none~0|none~1|nor_conv_1x1~2|")
    assert trainer(nb201, None).config.recipe == "nasbench201"
    assert recipe_for("x", nb201) == "nasbench201"


def test_a_recipe_says_what_it_sets_from_where_and_what_was_set_otherwise() -> None:
    lines = trainer("DARTS_V2", "ddarts-cifar10", batch=32, autoaugment="none").lines
    first, second = lines[0], lines[1]
    assert first.startswith("train: recipe ddarts-cifar10: channels 36, epochs 600, lr 0.025, ")
    assert "batch 128 (D-DARTS, 2108.09306" in first
    assert "batch 96" not in first
    assert "autoaugment cifar10 (D-DARTS, utils.py" in first
    changed = "channels 2 (recipe: 36), batch 32 (recipe: 128), autoaugment none (recipe: cifar10)"
    assert second == f"train: set otherwise than by the recipe: {changed}"


@pytest.mark.parametrize("name", NAMES)
def test_every_number_has_a_source(name: str) -> None:
    from ddarts_ext.training.recipe_table import RECIPES
    from ddarts_ext.training.recipes import said_of, settings_of

    assert all(numbers.source for numbers in RECIPES[name].numbers)
    (line,) = said_of(name, images(32), {})
    for key in settings_of(name, images(32)):
        assert f"{key} " in line

"""The recipes: what each sets, and where every number is from. This table is the one place that says it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Numbers:
    """Settings of one source; what a later one of a recipe sets too, it replaces."""

    source: str
    settings: Mapping[str, Any]


@dataclass(frozen=True)
class Recipe:
    """A way of training. cells: depth of the network that is trained of a searched one; None leaves it as it is.

    own_images: the augmentation is what this recipe says and not that of the data set. fits_small: images that are
    small get the settings of ``quick`` instead, as long as nobody asks for the recipe of a publication.
    """

    numbers: tuple[Numbers, ...]
    cells: int | None = None
    own_images: bool = True
    fits_small: bool = False


_CROP: dict[str, Any] = {"crop_padding": 4, "flip": True, "cutout": 16}
_DARTS_CIFAR = Numbers(
    "DARTS, 1806.09055, section 3.3 and cnn/train.py of its code",
    {
        "channels": 36, "epochs": 600, "batch": 96, "lr": 0.025, "lr_min": 0.0, "schedule": "cosine", "momentum": 0.9,
        "weight_decay": 3e-4, "clip": 5.0, "auxiliary_weight": 0.4, "drop_path": 0.2, "label_smoothing": 0.0,
    },
)  # fmt: skip
_DARTS_IMAGES = Numbers("DARTS, cnn/utils.py: crop, flip, cutout", _CROP)
_AS_CIFAR10 = Numbers("the paper trains on CIFAR-10; on CIFAR-100 the same settings are in use", {})
_DDARTS_BATCH = Numbers("D-DARTS, 2108.09306, section 4 and train.py of its code", {"batch": 128})
_DDARTS_CIFAR = (
    _DARTS_CIFAR, _DARTS_IMAGES, _DDARTS_BATCH,
    Numbers("D-DARTS, utils.py: after crop and flip", {"autoaugment": "cifar10"}),
)  # fmt: skip

# Of pixel values from 0 to 1. Warm-up is linear from 0, step by step.
_IMAGENET_IMAGES: dict[str, Any] = {
    "resized_crop": 0.08, "flip": True, "jitter": (0.4, 0.4, 0.4, 0.2), "crop_padding": 0, "cutout": 0,
}  # fmt: skip
_DARTS_IMAGENET = Numbers(
    "DARTS, 1806.09055, section 3.3 and cnn/train_imagenet.py of its code",
    {
        "channels": 48, "epochs": 250, "batch": 128, "lr": 0.1, "schedule": "exponential", "gamma": 0.97,
        "momentum": 0.9, "weight_decay": 3e-5, "clip": 5.0, "auxiliary_weight": 0.4, "drop_path": 0.0,
        "label_smoothing": 0.1,
    },
)  # fmt: skip
_DARTS_IMAGENET_IMAGES = Numbers("DARTS, cnn/train_imagenet.py: crop to 8..100 % of the area, flip, jitter",
                                 _IMAGENET_IMAGES)  # fmt: skip

_QUICK = Numbers(
    "chosen here, for minutes on a CPU",
    {"channels": 16, "epochs": 30, "batch": 64, "lr": 0.05, "auxiliary_weight": 0.0, "drop_path": 0.0},
)
_FEW = Numbers(
    "chosen here, for some hundred images: published batches make epochs of a step or two",
    {"channels": 16, "epochs": 60, "batch": 16, "auxiliary_weight": 0.0, "drop_path": 0.0},
)

RECIPES: dict[str, Recipe] = {
    "darts": Recipe((_DARTS_CIFAR,), 20, own_images=False, fits_small=True),
    "ddarts": Recipe((_DARTS_CIFAR, _DDARTS_BATCH), 14, own_images=False, fits_small=True),
    "darts-cifar10": Recipe((_DARTS_CIFAR, _DARTS_IMAGES), 20),
    "darts-cifar100": Recipe((_DARTS_CIFAR, _DARTS_IMAGES, _AS_CIFAR10), 20),
    "ddarts-cifar10": Recipe(_DDARTS_CIFAR, 14),
    "ddarts-cifar100": Recipe(_DDARTS_CIFAR, 14),
    "isdarts-cifar10": Recipe(
        (
            _DARTS_CIFAR,
            _DARTS_IMAGES,
            Numbers(
                "IS-DARTS, 2312.12648, section 4 and basic-main.py of its code: 595 epochs by the cosine after 5 of "
                "warm-up, no clipping",
                {"nesterov": True, "warmup": 5, "clip": 0.0},
            ),
        ),
        20,
    ),
    "nasbench201": Recipe(
        (
            Numbers(
                "NAS-Bench-201, 2001.00326, table 1 and nas-benchmark/CIFAR.config of its code",
                {
                    "channels": 16, "epochs": 200, "batch": 256, "lr": 0.1, "lr_min": 0.0, "schedule": "cosine",
                    "momentum": 0.9, "nesterov": True, "weight_decay": 5e-4, "clip": 0.0, "auxiliary_weight": 0.0,
                    "drop_path": 0.0, "label_smoothing": 0.0,
                },
            ),
            Numbers("the same: crop and flip", {"crop_padding": 4, "flip": True, "cutout": 0}),
        )
    ),
    "darts-imagenet": Recipe((_DARTS_IMAGENET, _DARTS_IMAGENET_IMAGES), 14),
    "ddarts-imagenet": Recipe(
        (
            _DARTS_IMAGENET,
            _DARTS_IMAGENET_IMAGES,
            Numbers(
                "D-DARTS, train.py and utils.py of its code, which has a cosine for every data set",
                {"schedule": "cosine", "lr_min": 0.0, "autoaugment": "imagenet"},
            ),
        ),
        14,
    ),
    "isdarts-imagenet": Recipe(
        (
            _DARTS_IMAGENET,
            _DARTS_IMAGENET_IMAGES,
            Numbers(
                "IS-DARTS, 2312.12648, section 4, and the configuration that its code names: 245 epochs by the cosine "
                "after 5 of warm-up, no clipping",
                {"schedule": "cosine", "lr_min": 0.0, "nesterov": True, "warmup": 5, "clip": 0.0},
            ),
            Numbers("IS-DARTS, get_dataset_with_transform.py; components of Krizhevsky et al., 2012",
                    {"lighting": 0.1}),
        ),
        14,
    ),
    "quick": Recipe((_DARTS_CIFAR, _QUICK), own_images=False),
    "few": Recipe((_DARTS_CIFAR, _FEW), own_images=False),
    "modern": Recipe(
        (
            Numbers(
                "chosen here; the network's part as in DARTS",
                {
                    "channels": 36, "epochs": 300, "batch": 128, "weight_decay": 3e-4, "clip": 5.0,
                    "auxiliary_weight": 0.4, "drop_path": 0.2, "momentum": 0.9, "nesterov": True,
                },
            ),
            Numbers(
                "torchvision's recipe of 2021 for ResNet50, its rate of 0.5 for 1024 images taken for 128",
                {
                    "lr": 0.0625, "lr_min": 0.0, "schedule": "cosine", "warmup": 5, "label_smoothing": 0.1,
                    "mixup": 0.2, "cutmix": 1.0, "erasing": 0.1,
                },
            ),
            Numbers("RandAugment, 1909.13719: 2 ops of magnitude 9", {"randaugment": 2, "randaugment_magnitude": 9}),
            Numbers("chosen here: an average over some 1,000 steps", {"ema": 0.999}),
        ),
        20,
        own_images=False,
    ),
}  # fmt: skip

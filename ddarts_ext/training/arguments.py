"""The arguments of the Trainer, as type checkers read them. Written by scripts/write_arguments.py."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, TypedDict

from ddarts_ext.data import Augmentation
from ddarts_ext.data.transforms import Transforms


class TrainArguments(TypedDict, total=False):
    """What a training may be told beside what the constructor names."""

    recipe: (
        Literal[
            "darts",
            "ddarts",
            "darts-cifar10",
            "darts-cifar100",
            "ddarts-cifar10",
            "ddarts-cifar100",
            "isdarts-cifar10",
            "nasbench201",
            "darts-imagenet",
            "ddarts-imagenet",
            "isdarts-imagenet",
            "quick",
            "few",
            "modern",
        ]
        | None
    )
    channels: int | None
    epochs: int | None
    batch: int | None
    lr: float | None
    lr_min: float | None
    momentum: float | None
    weight_decay: float | None
    clip: float | None
    auxiliary_weight: float | None
    drop_path: float | None
    label_smoothing: float | None
    image_size: int | None
    stem: Literal["cifar", "imagenet", "imagenet_stride4"] | None
    seed: int | None
    precision: Literal["float32", "bf16"] | None
    deterministic: bool | None
    keep: Literal["last", "best"] | None
    held_back: float | None
    schedule: Literal["cosine", "exponential"] | None
    gamma: float | None
    warmup: int | None
    nesterov: bool | None
    accumulate: int | None
    ema: float | None
    mixup: float | None
    cutmix: float | None
    layout: Literal["channels_last", "contiguous"] | None
    compile: bool | None
    graphs: Literal["auto", "on", "off"] | None
    sync_norms: bool | None
    class_weights: Sequence[float] | Literal["balanced"] | None
    augmentation: Augmentation
    transforms: Transforms
    holdout: float | None
    crop_padding: int | None
    flip: bool | None
    cutout: int | None
    autoaugment: Literal["cifar10", "imagenet", "svhn", "none"] | None
    resized_crop: float | None
    jitter: Sequence[float] | None
    lighting: float | None
    randaugment: int | None
    randaugment_magnitude: int | None
    erasing: float | None
    bptt: int | None
    dropout_output: float | None
    dropout_hidden: float | None
    dropout_inputs: float | None
    dropout_embedding: float | None
    dropout_words: float | None
    slowness_penalty: float | None
    activation_penalty: float | None
    asgd_after: int | None

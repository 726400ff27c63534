"""Settings of one training run: the published ones, or what suits small images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, get_type_hints

from ddarts_ext.data import Augmentation, Dataset
from ddarts_ext.data.augment import OPTIONS as AUGMENTATION_OPTIONS
from ddarts_ext.data.augment import taken_from
from ddarts_ext.nn.stem import STEMS, suited_stem
from ddarts_ext.runs.device import PRECISIONS
from ddarts_ext.runs.options import IMAGE_SIZE, SHOWN_SIZE, SHOWN_STEM, STEM, Option, declared, option
from ddarts_ext.training.recipes import RECIPES, settings_of

KEEP = ("last", "best")
MAY_CHANGE = ("device", "source", "data")
"""Fields of config.json that a resumed run may have otherwise: its images are known by what they are."""


@dataclass(frozen=True)
class TrainConfig:
    """How a network with a given genotype is trained. Defaults: DARTS, 1806.09055, section 3.3, for CIFAR.

    lr falls by a cosine per epoch to lr_min. auxiliary_weight: of the auxiliary head's loss; 0 leaves the head out.
    drop_path: probability in the last epoch; it rises linearly from 0. clip: largest global norm of the gradient.
    label_smoothing: in training alone. keep: ``best`` keeps the weights of the epoch that is best on a part of the
    training images, ``held_back`` of them, which are not trained on; the test images never choose.
    """

    data: str
    recipe: str = option(
        "darts", "Published settings, by name: darts, ddarts.", shown="darts; ddarts for results of ddarts and dartopti"
    )
    channels: int = option(36, "Channels of the first cell.", shown="36; 16 for small images")
    epochs: int = option(600, "Epochs.", shown="600; 30 for small images")
    batch: int = option(96, "Images in a batch.", shown="96; 64 for small images")
    lr: float = option(0.025, "Learning rate at the start.", shown="0.025; 0.05 for small images")
    lr_min: float = 0.0
    momentum: float = 0.9
    weight_decay: float = 3e-4
    clip: float = 5.0
    auxiliary_weight: float = 0.4
    drop_path: float = 0.2
    label_smoothing: float = 0.0
    image_size: int | None = option(None, IMAGE_SIZE, shown=SHOWN_SIZE)
    stem: str = option("cifar", STEM, shown=SHOWN_STEM, choices=STEMS)
    seed: int = option(0, "Everything random follows from it.")
    device: str = "cpu"
    precision: str = option("float32", "float32, or bf16 for autocast.", choices=PRECISIONS)
    deterministic: bool = option(False, "Only algorithms that give the same result every time.")
    keep: str = option("last", "last, or best: the weights of the best epoch beside the last ones.", choices=KEEP)
    held_back: float = option(0.1, "Share of the training images that --keep best chooses by instead of training on.")
    augmentation: Augmentation = field(default_factory=Augmentation)

    def __post_init__(self) -> None:
        hints = get_type_hints(type(self))
        for item in fields(self):
            value = getattr(self, item.name)
            if hints[item.name] is int:
                _whole(item.name, value, 0 if item.name == "seed" else 1)
            elif hints[item.name] is float and not 0 <= value < float("inf"):
                raise ValueError(f"train: {item.name} must be a finite number >= 0, got {value!r}")
        if self.drop_path >= 1 or self.label_smoothing >= 1:
            raise ValueError("train: drop_path and label_smoothing must be below 1")
        for name, value, known in (
            ("precision", self.precision, PRECISIONS),
            ("stem", self.stem, STEMS),
            ("keep", self.keep, KEEP),
            ("recipe", self.recipe, RECIPES),
        ):
            if value not in known:
                raise ValueError(f"train: {name} must be one of {', '.join(known)}, got {value!r}")
        if not 0 < self.held_back < 1:
            raise ValueError(f"train: held_back must be between 0 and 1, got {self.held_back}")
        if self.channels % 2:
            raise ValueError(f"train: channels must be even, as reductions halve them, got {self.channels}")

    def to_json(self) -> dict[str, Any]:
        """Plain data for config.json."""
        said = asdict(self)
        if self.keep == "last":
            # As before there was a choice: such runs go on.
            del said["keep"], said["held_back"]
        return {"version": 1, "command": "train", **said}


def _whole(name: str, value: Any, lowest: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"train: {name} must be a whole number, got {value!r}")
    if value < lowest:
        raise ValueError(f"train: {name} must be >= {lowest}, got {value}")


OPTIONS: dict[str, Option] = {
    **{name: known for name, known in declared(TrainConfig).items() if name not in ("data", "device")},
    **AUGMENTATION_OPTIONS,
}
"""All that can be said of a training beside its genotype and its images, by name."""
_SMALL = {"channels": 16, "epochs": 30, "batch": 64, "lr": 0.05, "auxiliary_weight": 0.0, "drop_path": 0.0}


def resolve(dataset: Dataset, given: Mapping[str, Any]) -> TrainConfig:
    """Published defaults, those of the recipe, those for small images, then what is given; None means "not said"."""
    wanted = {name: value for name, value in given.items() if value is not None}
    unknown = sorted(set(wanted) - {*OPTIONS, "device"})
    if unknown:
        raise TypeError(f"train: setting must be one of {', '.join(sorted(OPTIONS))}, got {unknown[0]!r}")
    small = max(dataset.size) <= 16 and len(dataset.train) <= 10_000
    recipe = _SMALL if small else settings_of(wanted.get("recipe", "darts"), dataset)
    said: dict[str, Any] = {"data": dataset.name, "stem": suited_stem(dataset.size), **recipe, **wanted}
    augmentation = taken_from(said, dataset.augmentation)
    return TrainConfig(**said, augmentation=augmentation)

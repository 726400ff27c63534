"""Settings of one training run: the published ones, or what suits small images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any, get_type_hints

from ddarts_ext.data import Augmentation, Dataset
from ddarts_ext.data.augment import OPTIONS as AUGMENTATION_OPTIONS
from ddarts_ext.data.augment import taken_from
from ddarts_ext.data.transforms import OPTIONS as TRANSFORMS_OPTIONS
from ddarts_ext.data.transforms import Transforms
from ddarts_ext.genotype import Genotype
from ddarts_ext.nn.stem import STEMS, suited_stem
from ddarts_ext.runs.device import PRECISIONS
from ddarts_ext.runs.graphs import GRAPHS
from ddarts_ext.runs.losses import CLASS_WEIGHTS, LOSS, METRIC, SHOWN_LOSS, SHOWN_METRIC
from ddarts_ext.runs.objective import plain_weights
from ddarts_ext.runs.options import (
    IMAGE_SIZE,
    SHOWN_SIZE,
    SHOWN_STEM,
    STEM,
    SYNC_NORMS,
    Option,
    declared,
    option,
    said_in,
    unknown_setting,
)
from ddarts_ext.training.recipes import NAMES, recipe_of, settings_of

KEEP = ("last", "best")
SCHEDULES = ("cosine", "exponential")
LAYOUTS = ("channels_last", "contiguous")
MAY_CHANGE = ("device", "source", "data", "graphs")
"""Fields of config.json that a resumed run may have otherwise: its images are known by what they are."""


@dataclass(frozen=True)
class TrainConfig:
    """How a network with a given genotype is trained. Defaults: DARTS, 1806.09055, section 3.3, for CIFAR.

    lr: see :func:`ddarts_ext.training.rates.rate`, with schedule, lr_min, gamma and warmup.
    auxiliary_weight: of the auxiliary head's loss; 0 leaves the head out.
    drop_path: probability in the last epoch; it rises linearly from 0. clip: largest global norm of the gradient.
    label_smoothing: in training alone. keep: ``best`` keeps the weights of the epoch that is best on a part of the
    training images, ``held_back`` of them, which are not trained on; the test images never choose.
    accumulate: a batch is computed in so many parts, one after the other, and makes one step; norms see the parts.
    ema: the weights that are judged and written are an average over steps, see :class:`.average.Average`; 0 for none.
    mixup, cutmix: images are mixed in pairs, see :class:`.mixing.Mix`. layout: of images and weights in memory.
    graphs: whether the steps on a GPU are captured as CUDA graphs; ``auto`` where they can be, ``on`` refuses a
    training whose steps cannot.
    sync_norms: of several ranks, norms take the statistics of the whole batch, as one process would.
    loss, metric, class_weights: see :func:`ddarts_ext.runs.objective.objective_of`. own: the names of functions that
    were passed to the Trainer, by argument.
    """

    data: str
    recipe: str = option(
        "darts",
        f"A way of training by name, said when it is used: {', '.join(NAMES)}.",
        shown="darts; ddarts for results of ddarts and dartopti, nasbench201 for cells of that space",
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
    schedule: str = option("cosine", choices=SCHEDULES)
    gamma: float = 0.97
    warmup: int = 0
    nesterov: bool = False
    accumulate: int = option(1, "Parts in which a batch is computed, where it does not fit into memory as a whole.")
    ema: float = option(0.0, "Decay of an average of the weights over steps, which is what is kept.", shown="0: off")
    mixup: float = 0.0
    cutmix: float = 0.0
    layout: str = option("channels_last", choices=LAYOUTS)
    compile: bool = option(False, "Compile the network by torch.compile, which takes minutes at the start.")
    graphs: str = option("auto", choices=GRAPHS)
    sync_norms: bool = option(False, SYNC_NORMS)
    loss: str = option("cross-entropy", LOSS, shown=SHOWN_LOSS)
    metric: str = option("accuracy", METRIC, shown=SHOWN_METRIC)
    class_weights: tuple[float, ...] | str | None = option(None, CLASS_WEIGHTS, shown="none")
    augmentation: Augmentation = field(default_factory=Augmentation)
    transforms: Transforms = field(default_factory=Transforms)
    own: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        hints = get_type_hints(type(self))
        for item in fields(self):
            value = getattr(self, item.name)
            if hints[item.name] is int:
                _whole(item.name, value, 0 if item.name in ("seed", "warmup") else 1)
            elif hints[item.name] is bool and not isinstance(value, bool):
                raise TypeError(f"train: {item.name} must be true or false, got {value!r}")
            elif hints[item.name] is float and (isinstance(value, bool) or not isinstance(value, (int, float))):
                raise TypeError(f"train: {item.name} must be a number, got {value!r}")
            elif hints[item.name] is float and not 0 <= value < float("inf"):
                raise ValueError(f"train: {item.name} must be a finite number >= 0, got {value!r}")
        if self.label_smoothing and self.loss != "cross-entropy":
            raise ValueError(f"train: label_smoothing must be 0 with loss {self.loss}, got {self.label_smoothing}")
        if self.drop_path >= 1 or self.label_smoothing >= 1:
            raise ValueError("train: drop_path and label_smoothing must be below 1")
        if self.ema >= 1:
            raise ValueError(f"train: ema must be below 1, got {self.ema}")
        if self.warmup >= self.epochs:
            way = "" if self.warmup == TrainConfig.warmup else f"; --set warmup={self.epochs - 1} or more --epochs"
            raise ValueError(f"train: warmup must be below the {self.epochs} epochs, got {self.warmup}{way}")
        if self.accumulate > max(1, self.batch // 2):
            raise ValueError(
                f"train: accumulate must be at most {max(1, self.batch // 2)} for parts of 2 images or more of batch "
                f"{self.batch}, got {self.accumulate}"
            )
        if self.nesterov and not self.momentum:
            raise ValueError("train: momentum must be above 0 with nesterov, got 0")
        recipe_of(self.recipe)
        for name, value, known in (
            ("precision", self.precision, PRECISIONS),
            ("stem", self.stem, STEMS),
            ("keep", self.keep, KEEP),
            ("schedule", self.schedule, SCHEDULES),
            ("layout", self.layout, LAYOUTS),
            ("graphs", self.graphs, GRAPHS),
        ):
            if value not in known:
                raise ValueError(f"train: {name} must be one of {', '.join(known)}, got {value!r}")
        if not 0 < self.held_back < 1:
            raise ValueError(f"train: held_back must be between 0 and 1, got {self.held_back}")
        if self.channels % 2:
            raise ValueError(f"train: channels must be even, as reductions halve them, got {self.channels}")

    def auxiliary(self, genotype: Genotype) -> bool:
        """Whether the network of ``genotype`` has an auxiliary classifier."""
        return self.auxiliary_weight > 0 and genotype.inputs == 2

    def to_json(self) -> dict[str, Any]:
        """Plain data for config.json."""
        said = asdict(self)
        if self.keep == "last":
            # As before there was a choice: such runs go on.
            del said["keep"], said["held_back"]
        usual: dict[str, Any] = {"loss": "cross-entropy", "metric": "accuracy", "class_weights": None, "own": {}}
        usual |= {"sync_norms": False, "graphs": "auto"}
        said = {name: value for name, value in said.items() if name not in usual or value != usual[name]}
        if self.recipe in ("darts", "ddarts"):
            # As before there were others, which alone set these.
            plain = {item.name: getattr(TrainConfig, item.name, None) for item in fields(self)}
            plain["transforms"] = Transforms()
            for name in _LATER:
                if getattr(self, name) == plain[name]:
                    del said[name]
        return {"version": 1, "command": "train", **said}


def _whole(name: str, value: Any, lowest: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"train: {name} must be a whole number, got {value!r}")
    if value < lowest:
        raise ValueError(f"train: {name} must be >= {lowest}, got {value}")


_LATER = (
    "schedule", "gamma", "warmup", "nesterov", "accumulate", "ema", "mixup", "cutmix", "layout", "compile",
    "transforms",
)  # fmt: skip
HOLDOUT = Option(
    "holdout",
    float | None,
    None,
    ("holdout",),
    "Share of the training images to choose the best epoch by instead of training on: --keep best --held-back SHARE.",
    shown="none",
    command=True,
)
OPTIONS: dict[str, Option] = {
    **{name: known for name, known in declared(TrainConfig).items() if name not in ("data", "device", "own")},
    "holdout": HOLDOUT,
    **AUGMENTATION_OPTIONS,
    **TRANSFORMS_OPTIONS,
}
"""All that can be said of a training beside its genotype and its images, by name."""


def resolve(dataset: Dataset, given: Mapping[str, Any]) -> TrainConfig:
    """Published defaults, those of the recipe, then what is given; None means "not said"."""
    wanted = said_in(given)
    unknown = sorted(set(wanted) - {*OPTIONS, "device"})
    if unknown:
        raise unknown_setting("train", unknown[0], OPTIONS)
    name = wanted.get("recipe", "darts")
    recipe = settings_of(name, dataset)
    for whole, parts in (("augmentation", AUGMENTATION_OPTIONS), ("transforms", TRANSFORMS_OPTIONS)):
        if whole in wanted:  # nothing of the recipe's is left
            recipe = {key: value for key, value in recipe.items() if key not in parts}
    said: dict[str, Any] = {"data": dataset.name, "stem": suited_stem(dataset.size), **recipe, **_chosen_by(wanted)}
    if "class_weights" in said:
        said["class_weights"] = plain_weights(said["class_weights"])
    if said.get("autoaugment") == "none":
        said["autoaugment"] = None
    augmentation = taken_from(said, Augmentation() if recipe_of(name).own_images else dataset.augmentation)
    transforms = said.pop("transforms", Transforms())
    if not isinstance(transforms, Transforms):
        raise TypeError(f"train: transforms must be a Transforms, got {type(transforms).__name__}")
    transforms = replace(transforms, **{name: said.pop(name) for name in TRANSFORMS_OPTIONS if name in said})
    needs = (*(("autoaugment",) if augmentation.autoaugment else ()), *transforms.colours)
    if needs and dataset.channels != 3:
        off = {"autoaugment": "none", "jitter": "[]"}.get(needs[0], "0")
        raise ValueError(
            f"train: {needs[0]} must be off ({needs[0]}={off}), as it is for images of 3 channels, got images of "
            f"{dataset.channels}"
        )
    return TrainConfig(**said, augmentation=augmentation, transforms=transforms)


def _chosen_by(wanted: Mapping[str, Any]) -> dict[str, Any]:
    """What is given, with ``holdout`` put in other words."""
    said = dict(wanted)
    if "holdout" not in said:
        return said
    share = said.pop("holdout")
    if isinstance(share, bool) or not isinstance(share, (int, float)) or not 0 < share < 1:
        raise ValueError(f"train: holdout must be between 0 and 1, got {share!r}")
    for name, value in (("keep", "best"), ("held_back", share)):
        if said.get(name, value) != value:
            raise ValueError(f"train: {name} must be {value!r} or not said with holdout {share}, got {said[name]!r}")
        said[name] = value
    return said

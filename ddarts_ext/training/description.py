"""What must be known of a trained network beside its weights: the content of network.json."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ddarts_ext.data import Dataset, checks
from ddarts_ext.genotype import Genotype
from ddarts_ext.nn.nasbench201 import NASBench201Network
from ddarts_ext.nn.network import DiscreteNetwork, build_network
from ddarts_ext.nn.stem import STEMS
from ddarts_ext.runs.losses import CLASSES, TASKS

VERSION = 1
FILE = "network.json"


@dataclass(frozen=True)
class Description:
    """How to build the network of a training, and how its images are prepared.

    classes: their names, in the order of the logits. size: (height, width) of the images that it was trained on,
    in_channels: theirs. mean, std: per channel, of pixel values between 0 and 1. channels: of the first cell. stem,
    auxiliary: as in :func:`ddarts_ext.nn.build_network`. task: what the outputs are: logits of one of the ``classes``,
    of several at once (``multi-label``), or ``values``, numbers of the names ``classes``. about: what else is good to
    know, as plain data: versions, date, seconds, the accuracy of each file of weights. Raises ValueError or TypeError
    naming the field.
    """

    genotype: Genotype
    classes: tuple[str, ...]
    size: tuple[int, int]
    in_channels: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    channels: int
    stem: str
    auxiliary: bool
    about: Mapping[str, Any] = field(default_factory=dict, compare=False)
    task: str = CLASSES

    def __post_init__(self) -> None:
        if self.task not in TASKS:
            raise ValueError(f"network: task must be one of {', '.join(TASKS)}, got {self.task!r}")
        checks.check_text("the network", "", self.classes, 2 if self.task == CLASSES else 1)
        checks.check_shape("the network", self.size, self.in_channels)
        checks.check_normalisation("the network", self.mean, self.std, self.in_channels)
        if isinstance(self.channels, bool) or not isinstance(self.channels, int) or self.channels < 1:
            raise ValueError(f"network: channels must be a whole number >= 1, got {self.channels!r}")
        if self.stem not in STEMS:
            raise ValueError(f"network: stem must be one of {', '.join(STEMS)}, got {self.stem!r}")
        if not isinstance(self.auxiliary, bool):
            raise TypeError(f"network: auxiliary must be true or false, got {self.auxiliary!r}")

    @classmethod
    def of(
        cls,
        genotype: Genotype,
        dataset: Dataset,
        *,
        channels: int,
        stem: str,
        auxiliary: bool,
        about: Mapping[str, Any],
        task: str = CLASSES,
    ) -> Description:
        """That of a network which is trained on ``dataset``."""
        return cls(
            genotype,
            tuple(dataset.classes),
            dataset.size,
            dataset.channels,
            tuple(dataset.mean),
            tuple(dataset.std),
            channels,
            stem,
            auxiliary,
            about,
            task,
        )

    def build(self) -> DiscreteNetwork | NASBench201Network:
        """The network, with new weights, where and in what dtype the caller builds."""
        return build_network(
            self.genotype, self.channels, len(self.classes), self.in_channels, self.auxiliary, self.stem
        )

    def to_json(self) -> dict[str, Any]:
        """Plain data; what :attr:`about` holds stands beside the fields."""
        return {
            "version": VERSION,
            "classes": list(self.classes),
            "size": list(self.size),
            "in_channels": self.in_channels,
            "mean": list(self.mean),
            "std": list(self.std),
            "channels": self.channels,
            "stem": self.stem,
            "auxiliary": self.auxiliary,
            "genotype": self.genotype.to_json(),
            **({} if self.task == CLASSES else {"task": self.task}),
            **self.about,
        }

    @classmethod
    def from_json(cls, data: Any) -> Description:
        """Read :meth:`to_json`. Raises ValueError or TypeError naming what is wrong."""
        if not isinstance(data, Mapping):
            raise TypeError(f"network: must be a JSON object, got {type(data).__name__}")
        if data.get("kind") == "text":
            raise ValueError("network: must be one for images, got a language model (load_language_model reads it)")
        known = set(cls.__dataclass_fields__) - {"about", "task"}
        if missing := sorted({*known, "version"} - set(data)):
            raise ValueError(f"network: must have {missing[0]}, which is not there")
        if data["version"] != VERSION:
            raise ValueError(f"network: version must be {VERSION}, got {data['version']!r}")
        lists = {name: _list(name, data[name]) for name in ("classes", "size", "mean", "std")}
        plain = {name: data[name] for name in ("in_channels", "channels", "stem", "auxiliary")}
        about = {name: value for name, value in data.items() if name not in {*known, "task", "version"}}
        plain["task"] = data.get("task", CLASSES)
        return cls(Genotype.from_json(data["genotype"]), **lists, **plain, about=about)

    @classmethod
    def from_text(cls, text: str) -> Description:
        """Read :meth:`to_json` from JSON text."""
        try:
            data = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"network: is not valid JSON: {error}") from error
        return cls.from_json(data)


def _list(name: str, value: Any) -> Any:
    if not isinstance(value, list):
        raise TypeError(f"network: {name} must be a list, got {type(value).__name__}")
    return tuple(value)

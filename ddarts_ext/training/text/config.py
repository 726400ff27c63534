"""Settings of a training on text: those that DARTS published for the Penn Treebank, or smaller ones for short texts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, get_type_hints

from ddarts_ext.data.text import Corpus
from ddarts_ext.nn.recurrent import Dropout
from ddarts_ext.runs.device import PRECISIONS
from ddarts_ext.runs.options import Option, declared, option, said_in

FEW_WORDS = 500_000
MAY_CHANGE = ("device", "source", "data")


@dataclass(frozen=True)
class TextTrainConfig:
    """How a language model is trained. Defaults: DARTS, 1806.09055, appendix A.3.2 and its implementation.

    channels: hidden units, and as many of the embedding. bptt: mean steps of a segment, half as many in one of twenty,
    with a normal spread of 5, at least 5 and at most ``bptt`` + 20; the rate of a step is ``lr`` times its part of
    ``bptt``. asgd_after: from when on the validation loss is worse than the best one but those of the last so many
    epochs, weights are averaged over steps (ASGD with t0 = 0 and lambda = 0), and the average is judged; 0 for never.
    dropout_*: rates, see :class:`ddarts_ext.nn.recurrent.Dropout`. slowness_penalty, activation_penalty: see
    :meth:`ddarts_ext.nn.recurrent.Output.loss`.
    """

    data: str
    channels: int = 850
    epochs: int = 8000
    batch: int = 64
    lr: float = 20.0
    weight_decay: float = 8e-7
    clip: float = 0.25
    bptt: int = option(35)
    dropout_output: float = option(0.75)
    dropout_hidden: float = option(0.25)
    dropout_inputs: float = option(0.75)
    dropout_embedding: float = option(0.2)
    dropout_words: float = option(0.1)
    slowness_penalty: float = option(1e-3)
    activation_penalty: float = option(0.0)
    asgd_after: int = option(5)
    seed: int = 0
    device: str = "cpu"
    precision: str = option("float32", "float32, or bf16 for autocast.", choices=PRECISIONS)
    deterministic: bool = False

    def __post_init__(self) -> None:
        hints = get_type_hints(type(self))
        for item in fields(self):
            name, value, kind = item.name, getattr(self, item.name), hints[item.name]
            if kind is int:
                lowest = 0 if name in ("seed", "asgd_after") else 1
                if isinstance(value, bool) or not isinstance(value, int):
                    raise TypeError(f"train: {name} must be a whole number, got {value!r}")
                if value < lowest:
                    raise ValueError(f"train: {name} must be >= {lowest}, got {value}")
            elif kind is float:
                if isinstance(value, bool) or not isinstance(value, (int, float)):
                    raise TypeError(f"train: {name} must be a number, got {value!r}")
                if not 0 <= value < (1 if name.startswith("dropout") else float("inf")):
                    most = "from 0 to below 1" if name.startswith("dropout") else "a finite number >= 0"
                    raise ValueError(f"train: {name} must be {most}, got {value!r}")
            elif kind is bool and not isinstance(value, bool):
                raise TypeError(f"train: {name} must be true or false, got {value!r}")
        if self.precision not in PRECISIONS:
            raise ValueError(f"train: precision must be one of {', '.join(PRECISIONS)}, got {self.precision!r}")

    @property
    def dropout(self) -> Dropout:
        rates = (self.dropout_output, self.dropout_hidden, self.dropout_inputs)
        return Dropout(*rates, self.dropout_embedding, self.dropout_words)

    def to_json(self) -> dict[str, Any]:
        """Plain data for config.json."""
        return {"version": 1, "command": "train", "kind": "text", **asdict(self)}


OPTIONS: dict[str, Option] = {
    name: known for name, known in declared(TextTrainConfig).items() if name not in ("data", "device")
}
"""All that can be said of a training on text, by name."""


def resolve(corpus: Corpus, given: Mapping[str, Any]) -> TextTrainConfig:
    """Published values, smaller ones for a short text, then what is given; None means "not said"."""
    wanted = said_in(given)
    unknown = sorted(set(wanted) - {*OPTIONS, "device"})
    if unknown:
        raise TypeError(f"train: setting on text must be one of {', '.join(sorted(OPTIONS))}, got {unknown[0]!r}")
    config = TextTrainConfig(corpus.name, **{**(_small() if len(corpus.train) < FEW_WORDS else {}), **wanted})
    for part in ("train", "valid", "test"):
        if len(getattr(corpus, part)) < 2 * (config.batch if part == "train" else 1):
            raise ValueError(f"train: batch must leave 2 or more words a column of {part}, got {config.batch}")
    return config


def _small() -> dict[str, Any]:
    """Few words are learnt by heart by a wide network."""
    return {
        "channels": 128,
        "epochs": 40,
        "batch": 32,
        "lr": 5.0,
        "dropout_output": 0.4,
        "dropout_inputs": 0.4,
        "dropout_hidden": 0.1,
        "dropout_embedding": 0.1,
        "dropout_words": 0.05,
    }

"""What a training gives, in memory and as files."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import nn

from ddarts_ext.data import Dataset
from ddarts_ext.genotype import Genotype
from ddarts_ext.runs import html
from ddarts_ext.runs.losses import CLASSES, shown
from ddarts_ext.training import weights
from ddarts_ext.training.best import Best
from ddarts_ext.training.config import TrainConfig
from ddarts_ext.training.description import Description


@dataclass(frozen=True)
class TrainResult:
    """accuracy: on held-out images after the last epoch (not the best one, which would choose by them); of a training
    that is judged otherwise, its metric, whose name is ``metric``. network: with ``ema`` the average. history: one
    record per epoch. run: the folder, if there is one, with genotype.json, network.json and weights.safetensors. best:
    with ``keep="best"`` the best epoch and its weights, which are in best.safetensors too."""

    network: nn.Module = field(repr=False)
    accuracy: float
    history: list[dict[str, Any]] = field(repr=False)
    run: Path | None = None
    best: Best | None = None
    metric: str = "accuracy"

    @property
    def best_accuracy(self) -> float | None:
        """Accuracy of the best weights on held-out images, which had no part in choosing them."""
        return None if self.best is None else float(self.history[self.best.epoch - 1]["test"][self.metric])

    def _repr_html_(self) -> str:
        """The metric of held-out images, also over epochs, for notebooks."""
        value = self.best_accuracy
        best = "" if self.best is None or value is None else f"{shown(self.metric, value, 2)}, epoch {self.best.epoch}"
        rows = [
            ("on held-out images", shown(self.metric, self.accuracy, 2)),
            ("of the best weights", best),
            ("epochs", len(self.history)),
            ("parameters", f"{sum(parameter.numel() for parameter in self.network.parameters()):,}"),
            ("run", self.run),
        ]
        return html.table(rows) + html.over_epochs(self.history, self.metric, {"train": "training", "test": "held out"})


def write(
    folder: Path,
    result: TrainResult,
    genotype: Genotype,
    dataset: Dataset,
    source: str,
    config: TrainConfig,
    task: str = CLASSES,
) -> None:
    """Write the trained network as a thing of its own (weights.py). source: of the images. task: what labels are."""
    figures: dict[str, Any] = {"last": {"epoch": len(result.history), result.metric: result.accuracy}}
    states = {"last": result.network.state_dict()}
    if result.best is not None:
        figures["best"] = {"epoch": result.best.epoch, result.metric: result.best_accuracy}
        states["best"] = dict(result.best.weights)
    seconds = round(sum(record["seconds"] for record in result.history), 3)
    description = Description.of(
        genotype,
        dataset,
        channels=config.channels,
        stem=config.stem,
        auxiliary=config.auxiliary(genotype),
        task=task,
        about=weights.stamp(data=source, seconds=seconds, weights=figures),
    )
    weights.write(folder, description, states)

"""Pictures of distances: between architectures, over the epochs of a search, over several searches."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ddarts_ext.distance import Matrix
from ddarts_ext.distance.runs import RunDistances
from ddarts_ext.plot.pyplot import load_pyplot, whole_numbers
from ddarts_ext.runs.folder import Record
from ddarts_ext.runs.losses import metric_in


def plot_matrix(matrix: Matrix, names: Sequence[str], path: str | Path) -> None:
    """A heat map of the distances of all pairs, with its numbers where there is room for them."""
    pyplot = load_pyplot()
    side = max(4.0, 0.45 * len(names) + 2.5)
    figure, axis = pyplot.subplots(figsize=(side + 1, side), layout="constrained")
    picture = axis.imshow(matrix, cmap="viridis", vmin=0)
    axis.set_xticks(range(len(names)), names, rotation=45, ha="right")
    axis.set_yticks(range(len(names)), names)
    axis.set(xlabel="architecture", ylabel="architecture")
    if len(names) <= 16:
        middle = float(matrix.max()) / 2
        for i, row in enumerate(matrix):
            for j, value in enumerate(row):
                axis.text(j, i, f"{value:.3f}", ha="center", va="center", fontsize="x-small",
                          color="black" if value > middle else "white")  # fmt: skip
    figure.colorbar(picture, label="distance")
    _save(pyplot, path)


def plot_runs(found: RunDistances, path: str | Path) -> None:
    """Gain in accuracy over the distance from start to result, one point per search."""
    pyplot = load_pyplot()
    _, axis = pyplot.subplots(figsize=(6, 4.5), layout="constrained")
    axis.scatter(found.spread.distances, found.gains)
    for run, distance, gain in zip(found.runs, found.spread.distances, found.gains, strict=True):
        axis.annotate(Path(run).name, (distance, gain), textcoords="offset points", xytext=(4, 4), fontsize="small")
    axis.axvline(found.spread.mean, color="grey", linewidth=0.8, linestyle="--", label="mean distance")
    correlation = found.spread.correlation
    axis.set(
        xlabel="distance between start and result",
        ylabel="gain in accuracy",
        title="" if correlation is None else f"correlation {correlation:.3f}",
    )
    axis.legend()
    _save(pyplot, path)


def draw_distance(pyplot: Any, history: list[Record], config: Record) -> None:
    """Over the epochs of a search: distance to the start and to the epoch before, beside the validation accuracy."""
    epochs = [record["epoch"] + 1 for record in history]
    figure, distances = pyplot.subplots(figsize=(7, 4), layout="constrained")
    for what, label in (("start", "distance to the start"), ("previous", "distance to the epoch before")):
        distances.plot(epochs, [record["distance"][what] for record in history], label=label)
    distances.set(xlabel="epoch", ylabel="distance", ylim=(0, None))
    whole_numbers(distances.xaxis)
    accuracies = distances.twinx()
    # A search that judges on no images has the accuracy of training alone.
    judged = [record for record in history if "valid" in record]
    part, label = ("valid", "validation") if judged else ("train", "training")
    known = judged or history
    name = metric_in(known[0][part])[0]
    shown = [record[part][name] for record in known]
    at = [record["epoch"] + 1 for record in known]
    accuracies.plot(at, shown, color="tab:gray", linewidth=1, linestyle="--", label=f"{label} {name}")
    accuracies.set(ylabel=name)
    first = int(config.get("method", {}).get("architect", {}).get("alpha_start", 0))
    if first:
        distances.axvspan(0.5, first + 0.5, color="grey", alpha=0.15, label="pre-training")
    handles = [axis.get_legend_handles_labels() for axis in (distances, accuracies)]
    distances.legend(*(one + two for one, two in zip(*handles, strict=True)), fontsize="small")
    figure.suptitle("distance between architectures" + (", settled" if _settled(history) else ""))


def _settled(history: list[Record]) -> bool:
    return bool(history[-1]["distance"].get("settled"))


def _save(pyplot: Any, path: str | Path) -> None:
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        pyplot.savefig(target, dpi=120)
    finally:
        pyplot.close()

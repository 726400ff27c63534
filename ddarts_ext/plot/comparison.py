"""Pictures of a comparison: validation over epochs of all methods, and what it tells of the trained results."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ddarts_ext.plot.pyplot import load_pyplot

Curves = Mapping[str, Sequence[Sequence[float]]]


def plot_comparison(comparison: Mapping[str, Any], folder: str | Path) -> list[Path]:
    """Draw what ``Comparison.to_json`` gave as PNG files in ``folder``; returns their paths.

    ``search``: the supernet's validation accuracy over epochs, mean and range over the seeds (D-DARTS, figure 6).
    ``accuracy``: of trained results, mean and standard error, with the random architectures as a band. ``correlation``:
    accuracy after training over the supernet's (IS-DARTS, figure 3).
    """
    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    pyplot = load_pyplot()
    paths = []
    for name, draw in comparison_figures(comparison).items():
        draw(pyplot)
        paths.append(target / f"{name}.png")
        pyplot.gcf().savefig(paths[-1], dpi=120)
        pyplot.close()
    return paths


def comparison_figures(comparison: Mapping[str, Any]) -> dict[str, Callable[[Any], None]]:
    """What there is to draw, by name: functions of ``pyplot`` that make a figure."""
    curves: Curves = {label: runs for label, runs in comparison["curves"].items() if runs}
    points = {label: own for label, own in comparison["points"].items() if own}
    figures: dict[str, Callable[[Any], None]] = {}
    if curves:
        figures["search"] = lambda pyplot: _search(pyplot, curves)
    if comparison["lines"]:
        figures["accuracy"] = lambda pyplot: _accuracy(pyplot, comparison["lines"])
    if points:
        figures["correlation"] = lambda pyplot: _correlation(pyplot, points, comparison["correlation"])
    return figures


def _search(pyplot: Any, curves: Curves) -> None:
    _, axis = pyplot.subplots(figsize=(7, 4.5), layout="constrained")
    for label, runs in curves.items():
        length = min(map(len, runs))
        values = np.array([run[:length] for run in runs])
        epochs = np.arange(1, length + 1)
        (line,) = axis.plot(epochs, values.mean(0), label=f"{label} ({len(runs)} seeds)")
        axis.fill_between(epochs, values.min(0), values.max(0), color=line.get_color(), alpha=0.15)
    axis.set(xlabel="epoch of the search", ylabel="validation accuracy of the supernet")
    axis.legend(fontsize="small")


def _accuracy(pyplot: Any, lines: Sequence[Mapping[str, Any]]) -> None:
    _, axis = pyplot.subplots(figsize=(7, 0.5 * len(lines) + 1.8), layout="constrained")
    for row, line in enumerate(lines):
        axis.errorbar(line["mean"], row, xerr=line["error"] or 0.0, fmt="o", capsize=3, color=f"C{row}")
    random = next((line for line in lines if line["label"] == "random" and line["error"]), None)
    if random is not None:
        axis.axvspan(random["mean"] - random["error"], random["mean"] + random["error"], color="grey", alpha=0.2)
    axis.set_yticks(range(len(lines)), [line["label"] for line in lines])
    axis.invert_yaxis()
    axis.set(xlabel="test accuracy after training, mean and standard error over searches", ylabel="method")


def _correlation(pyplot: Any, points: Curves, found: Mapping[str, float] | None) -> None:
    _, axis = pyplot.subplots(figsize=(6, 4.5), layout="constrained")
    for label, own in points.items():
        axis.scatter(*zip(*own, strict=True), label=label)
    title = "" if found is None else f"Pearson {found['pearson']:.2f}, Kendall {found['kendall']:.2f}"
    axis.set(xlabel="validation accuracy of the supernet", ylabel="test accuracy after training", title=title)
    axis.legend(fontsize="small")

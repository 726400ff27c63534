"""Pictures of a run, from its history: accuracies and losses, contributions of every cell, alphas over epochs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from ddarts_ext.genotype import Genotype
from ddarts_ext.plot.cells import plot_genotype
from ddarts_ext.plot.cost import draw_cost
from ddarts_ext.plot.decisions import draw_decisions
from ddarts_ext.plot.distance import draw_distance
from ddarts_ext.plot.pyplot import Format, checked_format, load_pyplot, marker, whole_numbers
from ddarts_ext.plot.shrinking import shrinking_figures
from ddarts_ext.plot.weights import draw_alphas, draw_edges, draw_weights
from ddarts_ext.runs.folder import Record, RunFolder
from ddarts_ext.runs.losses import metric_in

_PARTS = (("train", "training"), ("valid", "validation"), ("test", "held out"))
Draw = Callable[[Any], None]


def plot_run(run: str | Path, out: str | Path | None = None, format: Format = "png") -> list[Path]:
    """Draw the run in folder ``run`` as files in ``out`` (by default ``run/plots``); returns their paths.

    format: ``png``, ``svg`` or ``pdf``. Raises FileNotFoundError for a folder without a run, ValueError without
    matplotlib, without a finished epoch and a genotype, and for another format.
    """
    kind = checked_format(format)
    folder = RunFolder(run, "plot")
    config, history = folder.config(), folder.history()
    figures = run_figures(config, history)
    genotype = Genotype.load(folder.genotype_file) if folder.genotype_file.is_file() else None
    if not figures and genotype is None:
        raise ValueError(f"plot: {run} must have at least one finished epoch, got none")
    pyplot = load_pyplot()
    target = Path(out) if out is not None else folder.path / "plots"
    target.mkdir(parents=True, exist_ok=True)
    paths = []
    for name, draw in figures.items():
        paths.append(target / f"{name}.{kind}")
        try:
            draw(pyplot)
            pyplot.gcf().savefig(paths[-1], dpi=120)  # pyplot.savefig would draw a second time
        finally:
            pyplot.close()
    if genotype is not None:
        paths.append(plot_genotype(genotype, target / f"cells.{kind}"))
    return paths


def run_figures(config: Record, history: list[Record]) -> dict[str, Draw]:
    """What there is to draw of a history, by name: functions of ``pyplot`` that make a figure."""
    figures: dict[str, Draw] = {}
    for name, key, draw in _FIGURES:
        # Some begin after some epochs: there are no contributions while alphas rest.
        known = [record for record in history if key in record]
        if known:
            figures[name] = _bind(draw, known, config)
    if any("mask" in record for record in history):
        figures.update(shrinking_figures(config, history))
    return figures


def _bind(draw: Callable[[Any, list[Record], Record], None], history: list[Record], config: Record) -> Draw:
    return lambda pyplot: draw(pyplot, history, config)


def _accuracy(pyplot: Any, history: list[Record], config: Record) -> None:
    figure, axes = pyplot.subplots(1, 2, figsize=(10, 4), layout="constrained")
    name = metric_in(history[0].get("valid") or history[0].get("test") or history[0]["train"])[0]
    for axis, what in zip(axes, (name, "loss"), strict=True):
        for part, label in _PARTS:
            known = [record for record in history if what in record.get(part, {})]
            if known:
                at = [record["epoch"] + 1 for record in known]
                axis.plot(at, [record[part][what] for record in known], label=label, marker=marker(known))
        axis.set(xlabel="epoch", ylabel=what)
        whole_numbers(axis.xaxis)
        axis.legend()
    figure.suptitle(f"{name} and loss")


def _contributions(pyplot: Any, history: list[Record], config: Record) -> None:
    values = np.array([record["contributions"] for record in history])
    epochs = [record["epoch"] + 1 for record in history]
    figure, (lines, heat) = pyplot.subplots(1, 2, figsize=(11, 4), layout="constrained")
    for cell, column in enumerate(values.T):
        lines.plot(epochs, column, label=f"cell {cell}", marker=marker(history))
    lines.axhline(0, color="grey", linewidth=0.5)
    lines.set(xlabel="epoch", ylabel="loss with the cell - loss without it")
    lines.legend(ncols=1 + len(values.T) // 8, fontsize="small")
    extent = (epochs[0] - 0.5, epochs[-1] + 0.5, values.shape[1] - 0.5, -0.5)
    bound = float(np.abs(values).max()) or 1.0
    picture = heat.imshow(values.T, aspect="auto", cmap="RdBu_r", vmin=-bound, vmax=bound, extent=extent)
    heat.set(xlabel="epoch", ylabel="cell")
    for axis in (lines.xaxis, heat.xaxis, heat.yaxis):
        whole_numbers(axis)
    figure.colorbar(picture, label="contribution (negative: useful)")
    figure.suptitle("marginal contribution of every cell")


_FIGURES: tuple[tuple[str, str, Callable[[Any, list[Record], Record], None]], ...] = (
    ("accuracy", "train", _accuracy),
    ("contributions", "contributions", _contributions),
    ("alphas", "alphas", draw_alphas),
    ("weights", "alphas", lambda pyplot, history, config: draw_weights(pyplot, history[-1], config)),
    ("edges", "alphas", draw_edges),
    ("decisions", "decisions", lambda pyplot, history, config: draw_decisions(pyplot, history)),
    ("distance", "distance", draw_distance),
    ("cost", "cost", lambda pyplot, history, config: draw_cost(pyplot, history)),
)
"""Names of files, the key of a record that a picture is of, and what draws it."""

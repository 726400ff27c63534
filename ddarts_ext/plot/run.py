"""Pictures of a run, from its history: accuracies and losses, contributions of every cell, alphas over epochs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from ddarts_ext.genotype import Genotype
from ddarts_ext.plot.cell import draw_cell
from ddarts_ext.plot.decisions import draw_decisions, draw_weights, op_names
from ddarts_ext.plot.distance import draw_distance
from ddarts_ext.plot.pyplot import load_pyplot
from ddarts_ext.plot.shrinking import shrinking_figures
from ddarts_ext.runs.folder import Record, RunFolder


def plot_run(run: str | Path, out: str | Path | None = None) -> list[Path]:
    """Draw the run in folder ``run`` as PNG files in ``out`` (by default ``run/plots``); returns their paths.

    Raises FileNotFoundError for a folder without a run, ValueError without matplotlib or without a finished epoch.
    """
    folder = RunFolder(run, "plot")
    config, history = folder.config(), folder.history()
    if not history:
        raise ValueError(f"plot: {run} must have at least one finished epoch, got none")
    target = Path(out) if out is not None else folder.path / "plots"
    figures: dict[str, Callable[[Any], None]] = {"accuracy": lambda pyplot: _accuracy(pyplot, history)}
    if "contributions" in history[0]:
        figures["contributions"] = lambda pyplot: _contributions(pyplot, history)
    if "alphas" in history[0]:
        figures["alphas"] = lambda pyplot: _alphas(pyplot, history, config)
        figures["weights"] = lambda pyplot: draw_weights(pyplot, history[-1], config)
    if "decisions" in history[0]:
        figures["decisions"] = lambda pyplot: draw_decisions(pyplot, history)
    if "distance" in history[0]:
        figures["distance"] = lambda pyplot: draw_distance(pyplot, history, config)
    if folder.genotype_file.is_file() and (genotype := Genotype.load(folder.genotype_file)).recurrent:
        figures["cell"] = lambda pyplot: draw_cell(pyplot, genotype)
    if "mask" in history[0]:
        figures.update(shrinking_figures(folder, config, history))
    pyplot = load_pyplot()
    target.mkdir(parents=True, exist_ok=True)
    paths = []
    for name, draw in figures.items():
        draw(pyplot)
        paths.append(target / f"{name}.png")
        pyplot.gcf().savefig(paths[-1], dpi=120)  # pyplot.savefig would draw a second time
        pyplot.close()
    return paths


def _accuracy(pyplot: Any, history: list[Record]) -> None:
    epochs = [record["epoch"] + 1 for record in history]
    figure, axes = pyplot.subplots(1, 2, figsize=(10, 4), layout="constrained")
    first = "perplexity" if any("perplexity" in history[0].get(part, {}) for part in ("train", "valid")) else "accuracy"
    for axis, what in zip(axes, (first, "loss"), strict=True):
        for part, label in (("train", "training"), ("valid", "validation"), ("test", "held out")):
            if what in history[0].get(part, {}):
                axis.plot(epochs, [record[part][what] for record in history], label=label)
        axis.set(xlabel="epoch", ylabel=what)
        axis.legend()
    figure.suptitle(f"{first} and loss")


def _contributions(pyplot: Any, history: list[Record]) -> None:
    values = np.array([record["contributions"] for record in history])
    epochs = [record["epoch"] + 1 for record in history]
    figure, (lines, heat) = pyplot.subplots(1, 2, figsize=(11, 4), layout="constrained")
    for cell, column in enumerate(values.T):
        lines.plot(epochs, column, label=f"cell {cell}")
    lines.axhline(0, color="grey", linewidth=0.5)
    lines.set(xlabel="epoch", ylabel="loss with the cell - loss without it")
    lines.legend(ncols=2, fontsize="small")
    bound = float(np.abs(values).max()) or 1.0
    picture = heat.imshow(values.T, aspect="auto", cmap="RdBu_r", vmin=-bound, vmax=bound, extent=_extent(values))
    heat.set(xlabel="epoch", ylabel="cell")
    figure.colorbar(picture, label="contribution (negative: useful)")
    figure.suptitle("marginal contribution of every cell")


def _extent(values: Any) -> tuple[float, float, float, float]:
    return (0.5, len(values) + 0.5, values.shape[1] - 0.5, -0.5)


def _alphas(pyplot: Any, history: list[Record], config: Record) -> None:
    """Mean alpha of every op over the edges of a cell, one panel per row of the table."""
    owner = history[-1]["owner"]
    first = [owner.index(row) for row in sorted(set(owner))]
    values = np.array([np.array(record["alphas"])[first].mean(1) for record in history])
    ops = op_names(config, values.shape[2])
    columns = min(4, len(first))
    rows = -(-len(first) // columns)
    figure, axes = pyplot.subplots(
        rows,
        columns,
        figsize=(3.2 * columns, 2.6 * rows),
        sharex=True,
        sharey=True,
        squeeze=False,
        layout="constrained",
    )
    epochs = [record["epoch"] + 1 for record in history]
    for index, axis in enumerate(axes.flat):
        axis.set_visible(index < len(first))
        if index < len(first):
            for op, name in enumerate(ops):
                axis.plot(epochs, values[:, index, op], label=name)
            cells = [str(cell) for cell, row in enumerate(owner) if row == owner[first[index]]]
            axis.set_title(f"cell {', '.join(cells)}", fontsize="small")
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=4, fontsize="small")
    figure.suptitle("alphas, mean over the edges of a cell")

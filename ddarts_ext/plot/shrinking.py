"""Pictures of a search by shrinking: the measure of every op over epochs and samples."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from ddarts_ext import spaces
from ddarts_ext.runs.folder import Record
from ddarts_ext.spaces import Space

Draw = Callable[[Any], None]
Values = npt.NDArray[np.float64]


def shrinking_figures(config: Record, history: list[Record]) -> dict[str, Draw]:
    """What there is to draw of a run whose history has masks, by file name."""
    space = spaces.get(config["method"]["space"], steps=config.get("steps"))
    rows = len(history[0]["mask"])
    figures: dict[str, Draw] = {}
    measured = [record for record in history if "scores" in record]
    grown = next((record["growing"] for record in history if "growing" in record), None)
    for row in range(rows):
        kind = "" if rows == 1 else f"-{('normal', 'reduction')[row]}" if rows == 2 else f"-{row}"
        if measured:
            figures[f"scores{kind}"] = _bind(draw_scores, measured, space, row)
        if grown is not None:
            figures[f"samples{kind}"] = _bind(draw_samples, grown, space, row)
    return figures


def _bind(draw: Callable[..., None], *arguments: Any) -> Draw:
    return lambda pyplot: draw(pyplot, *arguments)


def draw_scores(pyplot: Any, history: list[Record], space: Space, row: int) -> None:
    """One panel per edge: the score of every op over epochs; dashed lines are shrinking steps, a cross is the end of
    an op."""
    epochs = np.array([record["epoch"] + 1 for record in history])
    scores = _logarithm(np.array([record["scores"][row] for record in history], dtype=np.float64))
    figure, axes = _panels(pyplot, space)
    for edge, axis in enumerate(axes):
        for op, name in enumerate(space.ops):
            (line,) = axis.plot(epochs, scores[:, edge, op], label=name, color=f"C{op}", linewidth=1.2)
            ends = [i for i, record in enumerate(history) if [row, edge, op] in record.get("removed", ())]
            axis.plot(epochs[ends], scores[ends, edge, op], "x", color=line.get_color())
        for record in history:
            if "removed" in record:
                axis.axvline(record["epoch"] + 1, color="grey", linestyle="--", linewidth=0.6)
    _finish(figure, axes, "epoch", "score of every op over epochs; dashed: shrinking steps, cross: the op is removed")


def draw_samples(pyplot: Any, grown: Record, space: Space, row: int) -> None:
    """One panel per edge: the score of every op over the number of samples it is the mean of."""
    scores = _logarithm(np.array([table[row] for table in grown["scores"]], dtype=np.float64))
    figure, axes = _panels(pyplot, space)
    for edge, axis in enumerate(axes):
        for op, name in enumerate(space.ops):
            axis.plot(grown["samples"], scores[:, edge, op], label=name, color=f"C{op}", linewidth=1.2)
        axis.set_xscale("log")
        axis.minorticks_off()
        # Plain numbers: matplotlib writes powers as formulas, which a report turns off for the texts of runs.
        axis.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    _finish(figure, axes, "samples", "score of every op over the number of samples, before the first step")


def _logarithm(scores: Values) -> Values:
    """Scores differ by orders of magnitude; infinity, the score of ``none``, and zero have no place on an axis."""
    return np.log10(np.where(np.isfinite(scores) & (scores > 0), scores, np.nan))


def _panels(pyplot: Any, space: Space) -> tuple[Any, list[Any]]:
    count = len(space.edges)
    columns = min(4, -(-count // 2))
    rows = -(-count // columns)
    height = 2.4 * rows + 1
    figure, axes = pyplot.subplots(rows, columns, figsize=(3.2 * columns, height), sharex=True, squeeze=False)
    # Fixed margins: a layout that is fitted takes ten times as long to draw as the picture.
    figure.subplots_adjust(0.07, 0.85 / height, 0.98, 1 - 0.6 / height, wspace=0.22, hspace=0.25)
    for index, axis in enumerate(axes.flat):
        axis.set_visible(index < count)
        if index < count:
            edge = space.edges[index]
            axis.set_title(f"{edge.target} <- {edge.source}", fontsize="small")
    return figure, list(axes.flat)[:count]


def _finish(figure: Any, axes: list[Any], label: str, title: str) -> None:
    for axis in axes:
        axis.tick_params(labelsize="small")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="lower center", ncols=5, fontsize="small")
    figure.supxlabel(label, fontsize="small", y=0.5 / figure.get_figheight())
    figure.supylabel("log10 of the score", fontsize="small")
    figure.suptitle(title, fontsize="medium")

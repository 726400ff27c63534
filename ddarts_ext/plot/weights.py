"""Pictures of alphas and op weights: a panel for every row of the table, named by the cells that read it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ddarts_ext import spaces
from ddarts_ext.plot.pyplot import marker, whole_numbers
from ddarts_ext.runs.folder import Record

Values = npt.NDArray[np.float64]


def op_weights(record: Record, config: Record) -> Values:
    """Op weights [cells, E, O] of the alphas in a record; those of ops that were removed are 0."""
    values = np.array(record["alphas"], dtype=np.float64)
    if "left" in record:
        left = np.array(record["left"], dtype=bool)[record["owner"]]
        found = op_weights({"alphas": np.where(left, values, -1e9)}, config)
        return np.asarray(np.where(left.sum(-1, keepdims=True) == 1, left, found * left))
    if config.get("method", {}).get("relaxation") == "softmax":
        raised = np.exp(values - values.max(-1, keepdims=True))
        return np.asarray(raised / raised.sum(-1, keepdims=True))
    return np.asarray(1 / (1 + np.exp(-values)))


def op_names(config: Record, count: int) -> list[str]:
    """The ops of the space of a run; numbers where they are not known."""
    name = config.get("method", {}).get("space")
    names = list(spaces.get(name).ops) if name in spaces.names() else []
    return names if len(names) == count else [f"op {i}" for i in range(count)]


def edge_names(config: Record, count: int) -> list[str]:
    """``target<-source`` for the edges of the space of a run; numbers where they are not known."""
    name = config.get("method", {}).get("space")
    edges = spaces.get(name, steps=config.get("steps")).edges if name in spaces.names() else ()
    return [f"{e.target}<-{e.source}" for e in edges] if len(edges) == count else [f"edge {i}" for i in range(count)]


def draw_alphas(pyplot: Any, history: Sequence[Record], config: Record) -> None:
    """Mean alpha of every op over the edges of a cell."""
    _, names = _rows(history[-1])
    # Cells may become more from stage to stage.
    values = np.array([np.array(record["alphas"])[_rows(record)[0]].mean(1) for record in history])
    epochs = [record["epoch"] + 1 for record in history]
    figure, axes = _panels(pyplot, names, 1.9, "epoch")
    for index, axis in enumerate(axes):
        for op, name in enumerate(op_names(config, values.shape[2])):
            axis.plot(epochs, values[:, index, op], label=name, marker=marker(history))
        whole_numbers(axis.xaxis)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=4, fontsize="small")
    figure.supylabel("alpha", fontsize="small")
    figure.suptitle("alphas, mean over the edges of a cell", fontsize="medium")


def draw_weights(pyplot: Any, record: Record, config: Record) -> None:
    """The weights of a record as a heat map: edges down, ops across."""
    first, names = _rows(record)
    weights = op_weights(record, config)[first]
    ops = op_names(config, weights.shape[2])
    title = f"op weights after epoch {record['epoch'] + 1}"
    axes = _heat(pyplot, weights, names, config, "op", "weight", title)
    for axis in axes:
        axis.set_xticks(range(len(ops)), ops, rotation=90, fontsize="x-small")


def draw_edges(pyplot: Any, history: Sequence[Record], config: Record) -> None:
    """The largest weight of every edge over epochs: edges down."""
    _, names = _rows(history[-1])
    largest = np.array([op_weights(record, config)[_rows(record)[0]].max(-1) for record in history])
    panels = np.moveaxis(largest, 0, -1)
    label = "largest weight of the edge"
    axes = _heat(pyplot, panels, names, config, "epoch", label, "how the edges decide", first=0.5)
    for axis in axes:
        whole_numbers(axis.xaxis)


def _rows(record: Record) -> tuple[list[int], list[str]]:
    """Of every row of the table the first cell that reads it, and what all of them are called."""
    owner = record["owner"]
    rows = sorted(set(owner))
    cells = [[str(cell) for cell, of in enumerate(owner) if of == row] for row in rows]
    return [owner.index(row) for row in rows], [
        f"{'cell' if len(own) == 1 else 'cells'} {', '.join(own)}" for own in cells
    ]


def _heat(
    pyplot: Any,
    values: Values,
    names: Sequence[str],
    config: Record,
    across: str,
    label: str,
    title: str,
    first: float = -0.5,
) -> list[Any]:
    """values: [panels, E, across], from 0 to 1. first: where the first column begins."""
    edges = edge_names(config, values.shape[1])
    figure, axes = _panels(pyplot, names, 0.2 * len(edges) + 0.4, across)
    extent = (first, first + values.shape[2], len(edges) - 0.5, -0.5)
    picture = None
    for axis, panel in zip(axes, values, strict=True):
        picture = axis.imshow(panel, aspect="auto", cmap="viridis", vmin=0, vmax=1, extent=extent)
        axis.set_yticks(range(len(edges)), edges, fontsize="x-small")
    figure.supylabel("edge (target<-source)", fontsize="small")
    bar = figure.colorbar(picture, ax=axes, label=label, aspect=30, pad=0.02)
    bar.ax.tick_params(labelsize="x-small")
    figure.suptitle(title, fontsize="medium")
    return axes


def _panels(pyplot: Any, names: Sequence[str], height: float, across: str) -> tuple[Any, list[Any]]:
    """At most four panels a row, in rows as equal as can be; what is at the bottom of its column has labels below."""
    rows = -(-len(names) // 4)
    columns = -(-len(names) // rows)
    size = (max(4.5, 1.9 * columns + 1.2), height * rows + 1.5)
    figure, grid = pyplot.subplots(rows, columns, figsize=size, sharex=True, sharey=True, squeeze=False,
                                   layout="constrained")  # fmt: skip
    axes = list(grid.flat)
    for index, axis in enumerate(axes):
        axis.set_visible(index < len(names))
        axis.tick_params(labelsize="x-small")
        if index < len(names):
            axis.set_title(names[index], fontsize="small")
        if index < len(names) <= index + columns:
            axis.tick_params(labelbottom=True)
            axis.set_xlabel(across, fontsize="small")
    return figure, axes[: len(names)]

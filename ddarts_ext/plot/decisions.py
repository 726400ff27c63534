"""Pictures of how far op weights have decided: the weights of every edge, and figures of them over epochs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ddarts_ext import spaces
from ddarts_ext.plot.pyplot import whole_numbers
from ddarts_ext.runs.folder import Record

Values = npt.NDArray[np.float64]
_SHOWN = (
    ("entropy", "entropy of an edge's weights (nats)"),
    ("decided", "share of weights below .15 or above .85"),
    ("dominant", "ops with a weight above .9"),
    ("skips", "skip connections of the architecture"),
)


def op_weights(alphas: Sequence[Any], config: Record) -> Values:
    """Op weights [cells, E, O] of the alphas in a record."""
    values = np.array(alphas, dtype=np.float64)
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


def draw_weights(pyplot: Any, record: Record, config: Record) -> None:
    """The weights of a record as a heat map: a panel per row of the table, edges down, ops across."""
    owner = record["owner"]
    first = [owner.index(row) for row in sorted(set(owner))]
    weights = op_weights(record["alphas"], config)[first]
    ops, edges = op_names(config, weights.shape[2]), edge_names(config, weights.shape[1])
    columns = min(4, len(first))
    rows = -(-len(first) // columns)
    size = (2.6 * columns + 1.5, 0.22 * len(edges) * rows + 1.8)
    figure, axes = pyplot.subplots(rows, columns, figsize=size, sharex=True, sharey=True, squeeze=False,
                                   layout="constrained")  # fmt: skip
    picture = None
    for index, axis in enumerate(axes.flat):
        axis.set_visible(index < len(first))
        if index < len(first):
            picture = axis.imshow(weights[index], aspect="auto", cmap="viridis", vmin=0, vmax=1)
            cells = [str(cell) for cell, row in enumerate(owner) if row == owner[first[index]]]
            axis.set_title(f"cell {', '.join(cells)}", fontsize="small")
            axis.set_xticks(range(len(ops)), ops, rotation=90, fontsize="x-small")
            axis.set_yticks(range(len(edges)), edges, fontsize="x-small")
    figure.supxlabel("op", fontsize="small")
    figure.supylabel("edge (target<-source)", fontsize="small")
    figure.colorbar(picture, ax=axes, label="weight")
    figure.suptitle(f"op weights after epoch {record['epoch'] + 1}")


def draw_decisions(pyplot: Any, history: Sequence[Record]) -> None:
    """Entropy, decided weights, dominant ops and skip connections over epochs; the last tells the gap of reading."""
    epochs = [record["epoch"] + 1 for record in history]
    figure, axes = pyplot.subplots(2, 2, figsize=(9, 6), layout="constrained")
    for axis, (name, label) in zip(axes.flat, _SHOWN, strict=True):
        axis.plot(epochs, [record["decisions"][name] for record in history],
                  marker="o" if len(history) < 2 else "")  # fmt: skip
        axis.set(xlabel="epoch", ylabel=label, ylim=(0, None))
        whole_numbers(axis.xaxis)
    gap = history[-1].get("discretisation")
    if gap is not None:
        figure.suptitle(
            f"accuracy of the supernet {gap['before']:.1%}, of its part that is the result {gap['after']:.1%} "
            f"(rule {gap['rule']})"
        )

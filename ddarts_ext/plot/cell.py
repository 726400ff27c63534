"""The picture of a recurrent cell: its states in a row, and over them an arc for every op."""

from __future__ import annotations

from typing import Any

from ddarts_ext.genotype import Genotype


def draw_cell(pyplot: Any, genotype: Genotype) -> None:
    """States 0, 1, ... in a row; ops bend to both sides in turns, states that are averaged are full."""
    last = genotype.steps
    figure, axis = pyplot.subplots(figsize=(1.1 * (last + 2), 4), layout="constrained")
    for number, entry in enumerate(genotype.cells[0]):
        span = entry.target - entry.source
        bend = (0.45 if number % 2 else -0.45) if span > 1 else 0.0
        style = {"arrowstyle": "->", "connectionstyle": f"arc3,rad={bend}", "shrinkA": 12, "shrinkB": 12}
        axis.annotate("", (entry.target, 0), (entry.source, 0), arrowprops=style)
        middle = (entry.source + entry.target) / 2
        axis.text(
            middle, bend * -span / 2 + (0.12 if not bend else 0.0), entry.op, ha="center", va="center", fontsize=8
        )
    for node in range(last + 1):
        joined = node in genotype.concat
        axis.plot(node, 0, "o", markersize=22, color="tab:blue" if joined else "white", markeredgecolor="black")
        axis.text(node, 0, f"s{node}", ha="center", va="center", color="white" if joined else "black", fontsize=8)
    reach = max((entry.target - entry.source for entry in genotype.cells[0]), default=1)
    axis.set(xlim=(-0.7, last + 0.7), ylim=(-0.25 * reach - 0.6, 0.25 * reach + 0.6))
    axis.axis("off")
    figure.suptitle("recurrent cell: the mean of the full states is its output")

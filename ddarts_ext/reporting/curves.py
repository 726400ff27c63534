"""Pictures of several runs together, of op scores and of comparisons."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ddarts_ext.plot.pyplot import whole_numbers
from ddarts_ext.reporting.sources import OpScores, Run
from ddarts_ext.runs.losses import judged_in

_PARTS = (("test", "-"), ("valid", "-"), ("train", ":"))


def draw_together(pyplot: Any, runs: Sequence[Run]) -> None:
    """Metric and loss of all runs: a colour each, images that were not trained on as a line, training dotted."""
    _, axes = pyplot.subplots(1, 2, figsize=(11, 4.2), layout="constrained")
    names = [name for run in runs for record in run.history[:1] for name, _ in judged_in(record.get("train", {}))]
    # Runs that are judged otherwise than the first one have their loss alone.
    for axis, what in zip(axes, (names[0] if names else "accuracy", "loss"), strict=True):
        for index, run in enumerate(runs):
            for part, line in _PARTS:
                known = [record for record in run.history if what in record.get(part, {})]
                if known:
                    axis.plot(
                        [record["epoch"] + 1 for record in known],
                        [record[part][what] for record in known],
                        color=f"C{index % 10}",
                        linestyle=line,
                        marker="o" if len(known) < 2 else "",
                    )
        axis.set(xlabel="epoch", ylabel=f"{what} (dotted: in training)")
        axis.grid(True)
        whole_numbers(axis.xaxis)
    for index, run in enumerate(runs):
        axes[0].plot([], [], color=f"C{index % 10}", label=_legend(run.name))
    axes[0].legend(fontsize="small")


def _legend(name: str) -> str:
    """matplotlib leaves out what begins with an underscore."""
    short = name if len(name) <= 40 else f"...{name[-37:]}"
    return f" {short}" if short.startswith("_") else short


def draw_scores(pyplot: Any, found: OpScores) -> None:
    """The ops, the best one first."""
    ordered = sorted(found.scores.items(), key=lambda item: -item[1])
    _, axis = pyplot.subplots(figsize=(7, 0.35 * len(ordered) + 1), layout="constrained")
    axis.barh(range(len(ordered)), [score for _, score in ordered])
    axis.set_yticks(range(len(ordered)), [op[:60] for op, _ in ordered])
    axis.invert_yaxis()
    axis.set(xlabel="score", ylabel="op")

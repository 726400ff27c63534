"""Pictures of how far op weights have decided: figures of them over epochs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ddarts_ext.plot.pyplot import marker, whole_numbers
from ddarts_ext.runs.folder import Record
from ddarts_ext.runs.losses import SHARES, metric_in

_SHOWN = (
    ("entropy", "entropy of an edge's\nweights (nats)"),
    ("decided", "share of weights\nbelow .15 or above .85"),
    ("dominant", "ops with a weight\nabove .9"),
    ("skips", "skip connections\nof the architecture"),
)


def draw_decisions(pyplot: Any, history: Sequence[Record]) -> None:
    """Entropy, decided weights, dominant ops and skip connections over epochs; the last tells the gap of reading."""
    epochs = [record["epoch"] + 1 for record in history]
    figure, axes = pyplot.subplots(2, 2, figsize=(9, 6), layout="constrained")
    for axis, (name, label) in zip(axes.flat, _SHOWN, strict=True):
        axis.plot(epochs, [record["decisions"][name] for record in history],
                  marker=marker(history))  # fmt: skip
        axis.set(xlabel="epoch", ylabel=label, ylim=(0, None))
        whole_numbers(axis.xaxis)
    gap = history[-1].get("discretisation")
    if gap is not None:
        name = metric_in(history[-1]["valid"])[0]
        text = "{:.1%}".format if name in SHARES else "{:.4g}".format
        figure.suptitle(
            f"{name} of the supernet {text(gap['before'])}, of its part that is the result {text(gap['after'])} "
            f"(rule {gap['rule']})"
        )

"""Pictures of a search under a budget: what its architecture costs over epochs, and the multiplier that follows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ddarts_ext.plot.pyplot import marker, whole_numbers
from ddarts_ext.runs.folder import Record

_LABELS = {"params": "parameters", "macs": "multiply-adds", "latency": "latency (ms)"}


def draw_cost(pyplot: Any, history: Sequence[Record]) -> None:
    """Expected cost, cost of the genotype and budget; beside them the multiplier."""
    epochs = [record["epoch"] + 1 for record in history]
    figure, (costs, multiplier) = pyplot.subplots(1, 2, figsize=(10, 4), layout="constrained")
    for name, label in (("expected", "expected"), ("genotype", "of the genotype")):
        costs.plot(epochs, [record["cost"][name] for record in history], label=label, marker=marker(history))
    costs.axhline(history[-1]["cost"]["budget"], color="grey", linestyle="--", label="budget")
    costs.set(xlabel="epoch", ylabel=_LABELS[history[-1]["cost"]["kind"]], ylim=(0, None))
    costs.legend()
    multiplier.plot(epochs, [record["cost"]["multiplier"] for record in history], marker=marker(history))
    multiplier.set(xlabel="epoch", ylabel="multiplier of the cost", ylim=(0, None))
    for axis in (costs, multiplier):
        whole_numbers(axis.xaxis)
    figure.suptitle("cost under a budget")

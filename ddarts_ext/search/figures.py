"""What the history holds of an epoch, and how figures are called."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from ddarts_ext.costs.budget import shown as shown_cost
from ddarts_ext.runs.finite import named
from ddarts_ext.runs.losses import judged_in, shown
from ddarts_ext.runs.sums import NotFinite, Sums
from ddarts_ext.search.decisions import decisions
from ddarts_ext.search.state import SearchState


def figures(state: SearchState, sums: Sums, metric: str = "accuracy") -> dict[str, Any]:
    """What the history holds of an epoch: means, and the alphas of every cell. metric: the name of what judges."""
    means = sums.means()
    record: dict[str, Any] = {}
    for name in ("train", "architecture", "valid"):
        part = {key: means[f"{name}_{key}"] for key in ("loss", metric) if f"{name}_{key}" in means}
        if part and metric == "perplexity":
            # Of text, whose loss is in nats a word; a loss beyond any figure is one as well.
            part[metric] = math.exp(min(float(part["loss"]), 700.0))  # type: ignore[arg-type]
        if part:
            record[name] = part
    for name in ("zero_one", "ablation", "contributions", "op_entropy", "edge_entropy", "beta_decay", "anchor"):
        if name in means:
            record[name] = means[name]
    record.update(sums.maxima())
    if state.op_stop is not None:
        record["op_stop"] = state.op_stop.figures()
    architecture = state.architecture
    record["decisions"] = decisions(
        architecture.by_cell(architecture.op_weights()), state.space, architecture.by_cell(architecture.read_weights())
    )
    record["owner"] = list(architecture.owner)
    record["alphas"] = architecture.by_cell(architecture.table.detach()).tolist()
    if architecture.edge_table is not None and architecture.edge_weights is not None:
        record["betas"] = architecture.by_cell(architecture.edge_table.detach()).tolist()
        weights = architecture.edge_weights.weights(architecture.edge_table.detach())
        record["edge_weights"] = architecture.by_cell(weights).tolist()
    return record


def line(record: Mapping[str, Any]) -> str:
    """Losses and metrics; a search that judges on no images has those of training alone."""
    names = {"train": "train", "valid": "validation"}
    found = [
        f"{label} loss {record[part]['loss']:.3f}" + "".join(f" {shown(*each)}" for each in judged_in(record[part]))
        for part, label in names.items()
        if part in record
    ]
    if "cost" in record:
        found.append(shown_cost(record["cost"]["kind"], record["cost"]["genotype"]))
    if "distance" in record:
        found.append(f"distance {record['distance']['start']:.4f}")
    return "  ".join(found)


def named_in(state: SearchState, found: NotFinite) -> str:
    """A figure in words, with the cells, the edge and the op that it is of."""
    if not found.place:
        return named(found)
    cells = [str(cell) for cell, row in enumerate(state.architecture.owner) if row == found.place[0]]
    where = f"cell {', '.join(cells)}"
    if len(found.place) == 3:
        _, edge, op = found.place
        where += f", edge {edge}, " + ("its weight" if op == len(state.space.ops) else f"op {state.space.ops[op]}")
    return f"{named(replace(found, place=()))} of {where}"

"""When a supernet shrinks, which ops are compared with each other, and which of them go (IS-DARTS)."""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite

import torch
from torch import Tensor

from ddarts_ext.runs.options import option
from ddarts_ext.spaces import Space

SCORES = ("measure", "alphas")
FORMS = ("code", "paper")


@dataclass(frozen=True)
class Shrinking:
    """How ops are removed from the supernet, step by step.

    shrink_steps, shrink_interval: so many steps, so many epochs apart, the last one ``shrink_interval`` epochs before
    the end. One step is the ablation I-DARTS. shrink_by: ``measure`` compares ops by what their feature maps tell;
    ``alphas`` trains alphas along and compares their softmax (the ablation S-DARTS).
    measure_form: see :func:`ddarts_ext.ops.channel_iim`. measure_samples: over how many images, 0 for all of the
    training images with augmentation, as the published code does. measure_every: epochs between measurements for the
    history, 0 for none but those that a step needs. measure_curve: before the first step, the measure of every op over
    growing numbers of samples up to this one goes into the history; 0 for none.
    shuffle: false shows the images in the order of the data set (the published code does so by accident).
    """

    shrink_steps: int = 4
    shrink_interval: int = 2
    shrink_by: str = option("measure", choices=SCORES)
    measure_form: str = option("code", choices=FORMS)
    measure_samples: int = 200
    measure_every: int = 1
    measure_curve: int = 1000
    shuffle: bool = True


def shrink_epochs(epochs: int, steps: int, interval: int) -> tuple[int, ...]:
    """After which epochs, counted from 1, the supernet shrinks: range(T - steps * interval, T, interval).

    Raises ValueError where the first step would come before the first epoch is over.
    """
    first = epochs - steps * interval
    if first < 1:
        raise ValueError(
            f"search: epochs must be more than shrink_steps * shrink_interval = {steps * interval}, got {epochs}"
        )
    return tuple(range(first, epochs, interval))


def removals(size: int, keep: int, steps: int) -> tuple[int, ...]:
    """How many ops of a comparison subset of ``size`` go in every step: ceil((left - keep) / steps left)."""
    found = []
    for left in range(steps, 0, -1):
        found.append(-(-(size - keep) // left))
        size -= found[-1]
    return tuple(found)


def kept(space: Space) -> int:
    """How many ops of a comparison subset stay: one of an edge, or two of all edges into a node."""
    return 1 if space.selection == "every_edge" else 2


def subsets(space: Space) -> tuple[tuple[int, ...], ...]:
    """The ops that are compared with each other, as indices into the flattened [edges, ops] table, edge-major.

    Where an architecture has one op on every edge (NAS-Bench-201): the ops of an edge. Else the ops on all edges into a
    node; the two that stay may be on the same edge.
    """
    width = len(space.ops)
    edges: list[tuple[int, ...]] = [(edge,) for edge in range(len(space.edges))]
    if space.selection != "every_edge":
        edges = [space.incoming(node) for node in space.nodes]
    return tuple(tuple(edge * width + op for edge in group for op in range(width)) for group in edges)


def shrink(
    mask: Tensor,
    badness: Tensor,
    space: Space,
    steps_left: int,
    *,
    costs: Tensor | None = None,
    tolerance: float = 0.0,
) -> Tensor:
    """The mask after one more step, with ``steps_left`` steps to go, this one included.

    mask: bool [rows, E, O], the ops that are left. badness: [rows, E, O], the largest of every comparison subset go;
    NaN counts as the worst, and of equal ones the first listed goes first (by edge, then by op).
    costs: [rows, E, O] of a budget: of ops whose badness differs by at most ``tolerance`` times the larger one from
    that of the worst of them, the dearest goes first.
    """
    flat = mask.flatten(1).cpu().clone()
    worst = badness.flatten(1).double().cpu().nan_to_num(nan=torch.inf, posinf=torch.inf, neginf=-torch.inf)
    dear = [None] * len(flat) if costs is None else list(costs.flatten(1))
    for row, values, prices in zip(flat, worst, dear, strict=True):
        for subset in subsets(space):
            columns = torch.tensor(subset)
            columns = columns[row[columns]]
            count = -(-(len(columns) - kept(space)) // steps_left)
            order = values[columns].argsort(descending=True, stable=True)
            if prices is not None:
                order = order[_dearest_first(values[columns][order], prices[columns][order], tolerance)]
            row[columns[order[: max(0, count)]]] = False
    return flat.view_as(mask)


def _dearest_first(values: Tensor, costs: Tensor, tolerance: float) -> list[int]:
    """An order of values that fall: those that are equal to the first of their run, but for the tolerance, by cost."""
    found: list[int] = []
    run: list[int] = []
    price = costs.tolist()
    for place, value in enumerate(values.tolist()):
        first = float(values[run[0]]) if run else value
        near = isfinite(first) and first - value <= tolerance * max(abs(first), abs(value))
        if first != value and not near:
            found += sorted(run, key=lambda one: -price[one])
            run = []
        run.append(place)
    return found + sorted(run, key=lambda one: -price[one])


def finished(mask: Tensor, space: Space) -> bool:
    """Whether every comparison subset has shrunk to what one architecture keeps."""
    flat = mask.flatten(1).cpu()
    return all(int(row[list(subset)].sum()) == kept(space) for row in flat for subset in subsets(space))

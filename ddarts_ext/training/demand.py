"""What a run will ask of its device, said before its first step, and refused where there is not so much."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ddarts_ext.data import Dataset
from ddarts_ext.data.memory import available_bytes, readable
from ddarts_ext.nn.memory import StepMemory, step_memory
from ddarts_ext.runs.ranks import ALONE, Ranks


def announce(
    command: str,
    say: Callable[[str], None],
    dataset: Dataset,
    network: Any,
    forward: Callable[[Tensor], Any],
    *,
    cells: int,
    channels: int,
    batch: int,
    stem: str,
    factor: Callable[[StepMemory, int], float] = lambda need, available: 1.0,
    parts: int = 1,
    ranks: Ranks = ALONE,
) -> None:
    """Say what the data set notes, and one line with images, sizes of the network and estimated memory of a step.

    network: on the device of the run. forward: what a step differentiates, see :func:`step_memory`. factor: how many
    such passes a step holds, from the need of one and the bytes that are free. parts: in which a batch is computed, one
    after the other. ranks: have equal parts of a batch. Raises ValueError where the device has
    not the memory, with the largest batch that would fit.
    """
    device = next(network.parameters()).device
    wanted = -(-min(batch, len(dataset.train)) // (parts * ranks.world))
    need = step_memory(network, forward, channels=dataset.channels, size=dataset.size, divisor=network.divisor)
    available = available_bytes(device) // (ranks.beside if device.type == "cpu" else 1)
    need = need.times(factor(need, available))
    if need.of(wanted) > available:
        _refuse(command, device, wanted, need, available, dataset.size)
    if dataset.note:
        say(f"{command}: {dataset.note}")
    height, width = dataset.size
    split = f" in {parts} parts" if parts > 1 else ""
    split = f" over {ranks.world} ranks{split}" if ranks.several else split
    kind = {1: "grey", 3: "colour"}.get(dataset.channels, f"of {dataset.channels} channels")
    say(
        f"{command}: {len(dataset.train)} images {height}x{width} {kind} {_labels(dataset)}, "
        f"{len(dataset.test)} held out; {cells} cells, {channels} channels, stem {stem}, batch {batch}{split}: about "
        f"{readable(need.of(wanted))} of {readable(available)} free on {device}"
    )


def _labels(dataset: Dataset) -> str:
    count = len(dataset.classes)
    if not dataset.numbers:
        return f"in {count} classes"
    return f"with {count} numbers each" if count > 1 else "with a number each"


def _refuse(
    command: str, device: torch.device, batch: int, need: StepMemory, available: int, size: tuple[int, int]
) -> None:
    fits = need.largest_batch(available)
    way = f"at most {fits}" if fits else "of smaller images or in a smaller network, as not even one image fits,"
    raise ValueError(
        f"{command}: batch must be {way} for the {readable(available)} that are free on {device}, got {batch} images "
        f"of {size[0]}x{size[1]}, which take about {readable(need.of(batch))}"
    )

"""The kinds of steps of a search, on meta tensors: nothing is computed, and everything takes the way of a GPU."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass

import torch

from ddarts_ext.benchmark.launches.counter import Counted, count, meta_as_gpu
from ddarts_ext.data.augment import Augmentation, augment, normalise, suited
from ddarts_ext.data.dataset import Dataset, MemorySplit
from ddarts_ext.nn.forward_pass import Pass
from ddarts_ext.nn.memory import StepMemory
from ddarts_ext.runs.sums import Sums
from ddarts_ext.search.contributions.budget import Budget, budget
from ddarts_ext.search.settings import SearchSettings, resolve
from ddarts_ext.search.shrinking.masks import initial_shrink_state
from ddarts_ext.search.shrinking.measure import measured
from ddarts_ext.search.start import initial_state
from ddarts_ext.search.state import SearchState
from ddarts_ext.search.step import Batch, Stepper

META = torch.device("meta")
CLASSES, CHANNELS, SIDE = 10, 3, 32
LITTLE = Budget(1.0)
"""Memory for ablated groups, in units of a step's activations: several chunks of them, and the trunk runs again."""
_MEAN, _STD = (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)


@dataclass(frozen=True)
class Sizes:
    """Of the counted network and batch, as in the published searches. nasbench201_cells: IS-DARTS's in that space."""

    cells: int = 8
    channels: int = 16
    batch: int = 64
    nasbench201_cells: int = 15


def counts(sizes: Sizes) -> Iterator[tuple[str, Counted]]:
    """Every kind of step by name, with what it dispatches."""
    for name, make in STEPS.items():
        with meta_as_gpu():
            step = make(sizes)
        yield name, count(step)


def _images() -> Dataset:
    """Images as CIFAR-10's, of which only the sizes matter."""
    labels = torch.arange(2 * CLASSES) % CLASSES
    split = MemorySplit(torch.zeros(len(labels), CHANNELS, SIDE, SIDE, dtype=torch.uint8), labels)
    names = tuple(str(label) for label in range(CLASSES))
    how = suited((SIDE, SIDE), CHANNELS)
    return Dataset("meta", split, split, names, (SIDE, SIDE), CHANNELS, _MEAN, _STD, how)


def _settings(method: str, sizes: Sizes, **more: str | float) -> tuple[SearchSettings, Dataset]:
    dataset = _images()
    given = {"cells": sizes.cells, "channels": sizes.channels, "batch": sizes.batch, **more}
    return resolve(dataset, method, META.type, given), dataset


def _raw(sizes: Sizes) -> Batch:
    """Images as they lie in the memory of a GPU, and their labels."""
    images = torch.empty(sizes.batch, CHANNELS, SIDE, SIDE, dtype=torch.uint8, device=META)
    return images, torch.empty(sizes.batch, dtype=torch.long, device=META)


def _normalised(sizes: Sizes) -> Batch:
    images, labels = _raw(sizes)
    return normalise(images, _MEAN, _STD).contiguous(memory_format=torch.channels_last), labels


def _search(method: str, sizes: Sizes, memory: Budget | None = None) -> tuple[SearchState, Stepper]:
    settings, dataset = _settings(method, sizes)
    state = initial_state(settings, dataset, META)
    return state, Stepper(state, settings.method, nullcontext, memory or _enough(sizes))


def _enough(sizes: Sizes) -> Budget:
    """What a GPU chooses that has memory for all groups at once, and for the graph of the whole network."""
    need = StepMemory(fixed=0, per_image=1)
    return budget(None, need, sizes.batch, sizes.cells, torch.device("cuda"), available=1 << 40)


def _shrinking(space: str, sizes: Sizes) -> tuple[SearchState, Stepper]:
    cells = sizes.cells if space == "darts" else sizes.nasbench201_cells
    settings, dataset = _settings("isdarts", sizes, space=space, cells=cells)
    state = initial_shrink_state(settings, dataset, META)
    return state, Stepper(state, settings.method, nullcontext)


def _augmentation(sizes: Sizes) -> Callable[[], None]:
    images, labels = _raw(sizes)
    row, how = torch.empty(sizes.batch, dtype=torch.long, device=META), Augmentation(crop_padding=4, flip=True)
    generator = torch.Generator()

    def step() -> None:
        augment(images[row], how, _MEAN, _STD, generator=generator)
        labels[row]

    return step


def _weights(sizes: Sizes) -> Callable[[], None]:
    (_, stepper), batch, sums = _search("ddarts", sizes), _normalised(sizes), Sums()
    return lambda: stepper.weights(batch, sums)


def _architecture(method: str, memory: Budget | None = None) -> Callable[[Sizes], Callable[[], None]]:
    def make(sizes: Sizes) -> Callable[[], None]:
        (_, stepper), sums = _search(method, sizes, memory), Sums()
        train, valid = _normalised(sizes), _normalised(sizes)
        return lambda: stepper.architecture(0, train, valid, sums)

    return make


def _judging(sizes: Sizes) -> Callable[[], None]:
    (state, stepper), (images, labels), sums = _search("ddarts", sizes), _raw(sizes), Sums()
    state.net.eval()
    weights = state.architecture.weights().detach()

    def step() -> None:
        batch = normalise(images, _MEAN, _STD).contiguous(memory_format=torch.channels_last), labels
        stepper.judge(batch, weights, Pass(statistics="batch"), sums)

    return step


def _shrinking_step(space: str) -> Callable[[Sizes], Callable[[], None]]:
    def make(sizes: Sizes) -> Callable[[], None]:
        (_, stepper), batch, sums = _shrinking(space, sizes), _normalised(sizes), Sums()
        return lambda: stepper.weights(batch, sums)

    return make


def _measure(space: str) -> Callable[[Sizes], Callable[[], None]]:
    def make(sizes: Sizes) -> Callable[[], None]:
        state, _ = _shrinking(space, sizes)
        images, _ = _normalised(sizes)
        weights = state.architecture.weights().detach()
        tables = measured(state.net, weights, itertools.repeat(images), state.architecture.owner)

        def step() -> None:
            next(tables).sum(-1)

        return step

    return make


STEPS: dict[str, Callable[[Sizes], Callable[[], None]]] = {
    "augmentation": _augmentation,
    "weight step": _weights,
    "architecture step": _architecture("ddarts"),
    "architecture step, little memory": _architecture("ddarts", LITTLE),
    "architecture step, first order": _architecture("fairdarts"),
    "judging": _judging,
    "IS-DARTS weight step": _shrinking_step("darts"),
    "IS-DARTS measure": _measure("darts"),
    "NAS-Bench-201 weight step": _shrinking_step("nasbench201"),
    "NAS-Bench-201 measure": _measure("nasbench201"),
}
"""By what the table calls them. The architecture step is D-DARTS's with exact contributions, of all groups at once or,
with little memory, in chunks and without the graph of the whole network; that of first order is FairDARTS's, without
contributions."""

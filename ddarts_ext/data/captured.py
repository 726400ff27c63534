"""Steps that are captured as CUDA graphs and find their batches by themselves, in tables on the device."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence

import torch
from torch import Tensor
from torch.optim import Optimizer

from ddarts_ext.data import Dataset
from ddarts_ext.data.static import IndexTable, in_memory
from ddarts_ext.runs.graphs import Call, CudaRecording, Pace, Recording, Steps
from ddarts_ext.runs.optimizers import rates_as_tensors, tensors_of
from ddarts_ext.runs.ranks import current
from ddarts_ext.runs.sums import Sums


def why_no_batches(dataset: Dataset, device: torch.device, autoaugment: str | None) -> str | None:
    """What keeps batches from being found on the device within a graph, None where nothing does."""
    reasons = {
        f"the device is {device.type}": device.type != "cuda",
        "several ranks average between the passes": current().several,
        "images are decoded when they are needed": in_memory(dataset.train) is None,
        "AutoAugment chooses on the host": autoaugment is not None,
        "augment is a function of the caller": dataset.before is not None,
        "the data set augments in its own way": type(dataset).augment is not Dataset.augment,
    }
    return next((reason for reason, holds in reasons.items() if holds), None)


class CapturedSteps:
    """What searches and trainings share whose steps are replayed.

    What is derived from it says what its steps read and write (:meth:`tensors`), by which optimisers they move
    (:meth:`optimizers`), what they draw from (:meth:`generators`), and how gradients of a step that could not be
    captured are dropped (:meth:`drop_gradients`).
    failed: is told why a step could not be captured; all then run as Python does.
    """

    def __init__(self, dataset: Dataset, device: torch.device, failed: Callable[[Exception], None]) -> None:
        self._images, self._failed = dataset.train, failed
        self._tables: dict[tuple[str, int], IndexTable] = {}
        self._before: tuple[object, ...] = ()
        self._pool: torch.cuda._POOL_HANDLE | None = None
        self._steps = Steps(self.recording, self._fallen_back)
        self._pace = Pace(device)
        self._rates_as_tensors()

    def generators(self) -> Sequence[torch.Generator]:
        raise NotImplementedError

    def optimizers(self) -> Sequence[Optimizer]:
        raise NotImplementedError

    def tensors(self) -> Sequence[Tensor]:
        raise NotImplementedError

    def drop_gradients(self) -> None:
        raise NotImplementedError

    def recording(self) -> Recording:
        """A new recording, of one step."""
        if self._pool is None:
            self._pool = torch.cuda.graph_pool_handle()
        return CudaRecording(self._pool, self.generators())

    def _run(self, key: Hashable, call: Call, sums: Sums) -> None:
        self._steps.run(key, call, sums)

    def _start(self, what: str, rows: Tensor, done: int) -> IndexTable:
        """The batches ``rows`` [S, B] of another epoch, of which the first ``done`` are over."""
        key = what, rows.shape[1]
        held = self._tables.get(key)
        if held is None or held.table.shape != rows.shape:
            held = self._tables[key] = IndexTable(self._images, rows)
        held.start(rows, done)
        return held

    def _start_all(self, what: str, parts: Sequence[Tensor], done: int) -> None:
        """The groups of batches of an epoch, of which the first ``done`` batches are over."""
        left = done
        for part in parts:
            self._start(what, part, min(left, len(part) - 1))
            left = max(0, left - len(part))

    def _forget_what_moved(self) -> None:
        """Between epochs what the steps work on may have become another, by shrinking or by resuming."""
        now = self._addresses()
        if now != self._before:
            self._steps.forget()
            self._pool = None
            self._rates_as_tensors()  # the optimisers may be others
        self._before = now

    def _remember(self) -> None:
        """After an epoch: what stays where it lies now is not captured again."""
        self._before = self._addresses()

    def _rates_as_tensors(self) -> None:
        for optimizer in self.optimizers():
            rates_as_tensors(optimizer)

    def _addresses(self) -> tuple[object, ...]:
        """Where all lies that steps read and write."""
        tensors = list(self.tensors())
        for optimizer in self.optimizers():
            tensors += tensors_of(optimizer)
        for table in self._tables.values():
            tensors += table.tensors()
        return tuple((tensor.data_ptr(), tuple(tensor.shape)) for tensor in tensors)

    def _fallen_back(self, error: Exception) -> None:
        self.drop_gradients()
        self._failed(error)

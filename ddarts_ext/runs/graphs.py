"""Steps that are captured as CUDA graphs and replayed: whatever a step launches is one launch for the host.

A graph does again what was launched while it was captured, on the same memory, and runs no Python. So what a captured
step reads and writes has its place before: it is changed in place and never made anew.
"""

from __future__ import annotations

import gc
from collections import Counter
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

import torch

from ddarts_ext.runs.sums import Sums

GRAPHS = ("auto", "on", "off")
Call = Callable[[], object]


def check_graphs(command: str, graphs: str, why_not: str | None) -> None:
    """Raise ValueError where steps must be captured (``graphs``) and something, ``why_not``, keeps them from it."""
    if graphs == "on" and why_not is not None:
        raise ValueError(f"{command}: graphs must be auto or off, as {why_not}, got 'on'")


def say_graphs(
    command: str, graphs: str, why_not: str | None, device: torch.device, say: Callable[[str], None]
) -> None:
    """Say why steps on a GPU are not captured, where they might be."""
    if device.type == "cuda" and graphs == "auto" and why_not is not None:
        say(f"{command}: steps are launched one op at a time, not as CUDA graphs, as {why_not}")


def fall_back(command: str, graphs: str, say: Callable[[str], None], error: Exception) -> None:
    """Say that a step could not be captured; raise why where it must be."""
    if graphs == "on":
        raise error
    reason = (str(error).splitlines() or [""])[0] or type(error).__name__
    say(f"{command}: steps are launched one op at a time, as they could not be captured: {reason}")


class Recording(Protocol):
    """A step that is taken up once and done again as often as is wanted."""

    def record(self, call: Call) -> None:
        """Take up what ``call`` does; what it would change is changed by :meth:`replay` first."""
        ...

    def replay(self) -> None:
        """Do it."""
        ...


class CudaRecording:
    """A recording as a CUDA graph, on the current stream, which must not be the default one.

    pool: memory that is shared with other graphs, of which never two run at once and none reads what another left.
    generators: those that the step draws from; a replay draws what the step itself would.
    """

    def __init__(self, pool: torch.cuda._POOL_HANDLE, generators: Sequence[torch.Generator]) -> None:
        self._graph, self._pool, self._generators = torch.cuda.CUDAGraph(), pool, tuple(generators)
        for generator in generators:
            self._graph.register_generator_state(generator)

    def record(self, call: Call) -> None:
        """What fails to be captured leaves the generators as they were, and the device able to go on."""
        stream = torch.cuda.current_stream()
        # torch captures its own generator along, with every graph.
        generators = [*self._generators, torch.cuda.default_generators[stream.device_index]]
        states = [generator.get_state() for generator in generators]
        try:
            # Other threads may go on with calls of their own.
            with torch.cuda.graph(self._graph, pool=self._pool, stream=stream, capture_error_mode="thread_local"):
                call()
        except BaseException:
            _BROKEN.append(self._graph)
            for generator, state in zip(generators, states, strict=True):
                _revive(generator, state)
            raise

    def replay(self) -> None:
        self._graph.replay()


_BROKEN: list[torch.cuda.CUDAGraph] = []
"""Graphs whose capture failed: torch's allocator goes on asking them whether they are being captured."""


def _revive(generator: torch.Generator, state: torch.Tensor) -> None:
    """Take a generator out of a capture that was never ended, in which it refuses to draw."""
    fresh = torch.Generator(generator.device)
    fresh.set_state(state)
    generator.graphsafe_set_state(fresh)


@contextmanager
def own_stream(device: torch.device) -> Iterator[None]:
    """Within it a GPU's work goes to a stream that can be captured; on other devices nothing changes."""
    if device.type != "cuda":
        yield
        return
    outer, stream = torch.cuda.current_stream(device), torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    stream.wait_stream(outer)
    try:
        with torch.cuda.stream(stream):
            yield
    finally:
        outer.wait_stream(stream)


class Pace:
    """Keeps the host at most ``ahead`` steps ahead of a GPU.

    A replay takes the host no time: without it an epoch would be over for the host when the device has begun, and who
    stops the run would wait for all of it.
    """

    def __init__(self, device: torch.device, ahead: int = 4) -> None:
        # blocking: the host sleeps while it waits, and does not spin.
        self._events = [torch.cuda.Event(blocking=True) for _ in range(ahead)] if device.type == "cuda" else []  # type: ignore[no-untyped-call]
        self._steps = 0

    def step(self) -> None:
        """After a step was launched: wait for the one ``ahead`` steps before it."""
        if self._events:
            event = self._events[self._steps % len(self._events)]
            event.synchronize()
            event.record()
            self._steps += 1


@dataclass
class _Step:
    """counts: what one run of the step adds to the counts of its sums."""

    counts: Counter[str]
    recording: Recording | None = None


class Steps:
    """Steps by name. The first run of each is as it is: it makes what the step keeps (momenta, sums) and lets libraries
    choose their algorithms. Before its second run it is recorded, and from then on replayed.

    recorder: makes the recording of one step. failed: is told why a step could not be recorded; from then on all steps
    run as they are.
    """

    def __init__(self, recorder: Callable[[], Recording], failed: Callable[[Exception], None]) -> None:
        self._recorder, self._failed = recorder, failed
        self._steps: dict[Hashable, _Step] = {}
        self._records = True

    def run(self, key: Hashable, call: Call, sums: Sums) -> None:
        """Do ``call``, or what it did when it was recorded as ``key``. sums: all that it adds to."""
        step = self._steps.get(key)
        before = sums.counts()
        if step is None or not self._records:
            call()
            self._steps.setdefault(key, _Step(sums.counts() - before))
            return
        if step.recording is None:
            recording = self._recorded(call)
            # Recording runs the Python of the step, which counts.
            sums.counted(before)
            if recording is None:
                call()
                return
            step.recording = recording
        step.recording.replay()
        sums.counted(before + step.counts)

    def _recorded(self, call: Call) -> Recording | None:
        # Graphs of autograd that wait to be collected hold memory, and nodes that sum gradients on another stream.
        gc.collect()
        try:
            recording = self._recorder()
            recording.record(call)
        except Exception as error:  # whatever kept it from being captured: the step itself can run
            self._records = False
            self.forget()
            self._failed(error)
            return None
        return recording

    def forget(self) -> None:
        """All recordings: what they read or write has another place from now on."""
        self._steps.clear()

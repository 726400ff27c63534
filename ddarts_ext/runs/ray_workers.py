"""Tasks on the machines of a Ray cluster, or on this one where there is none."""

from __future__ import annotations

import os
import socket
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import ddarts_ext
from ddarts_ext.runs import workers
from ddarts_ext.runs.device import choose_device
from ddarts_ext.runs.ray_joining import join, ray_module
from ddarts_ext.runs.ray_portions import Machine, Portion, portion_of

Task = TypeVar("Task")
Result = TypeVar("Result")
Context = TypeVar("Context")

_PROBE_SECONDS = 300


@contextmanager
def on_ray(command: str, *, device: str, jobs: int | None, say: Callable[[str], None]) -> Iterator[RayPlace]:
    """The cluster that this program is part of, else that of RAY_ADDRESS or of this machine, else a new one.

    As :func:`ddarts_ext.runs.placing.placed`. A cluster that was started here ends here.
    """
    ray = ray_module(command)
    joined = not ray.is_initialized()
    if joined:
        join(ray, command, say)
    try:
        machines = [
            Machine(node["NodeID"], int(node["Resources"].get("CPU", 0)), int(node["Resources"].get("GPU", 0)))
            for node in ray.nodes()
            if node["Alive"]
        ]
        place = RayPlace(ray, command, machines, _device(command, device, machines), jobs)
        say(
            f"{command}: on Ray, {len(machines)} machine{'s' if len(machines) > 1 else ''} with "
            f"{sum(m.cpus for m in machines)} CPUs and {sum(m.gpus for m in machines)} GPUs, {place.jobs} tasks at once"
        )
        place.compare_versions()
        yield place
    finally:
        if joined:
            ray.shutdown()


class RayPlace:
    """A :class:`ddarts_ext.runs.workers.Place` of a cluster."""

    def __init__(self, ray: Any, command: str, machines: Sequence[Machine], device: str, jobs: int | None) -> None:
        self.ray, self.command, self.machines, self.device = ray, command, machines, device
        whole = sum(machine.gpus if device == "cuda" else machine.cpus for machine in machines)
        self.jobs = max(1, whole) if jobs is None else jobs
        self._folder: str | None = None

    def here(self, tasks: Sequence[Any]) -> bool:
        return False

    def compare_versions(self) -> None:
        """Raise ValueError where a machine has another version of this package."""
        here = ddarts_ext.__version__
        for machine, found in self._everywhere(_version):
            if found != here:
                raise ValueError(
                    f"{self.command}: ddarts_ext must be {here} on all machines of the Ray cluster, got {found} "
                    f"on {machine}"
                )

    def check(self, folder: Path) -> None:
        self._folder = str(folder.resolve())
        mark = folder.resolve() / f".seen-by-workers-{uuid.uuid4().hex}"
        mark.touch()
        try:
            for machine, seen in self._everywhere(os.path.exists, str(mark)):
                if not seen:
                    raise _unseen(self.command, self._folder, machine)
        finally:
            mark.unlink()

    def each(
        self, tasks: Sequence[Task], work: Callable[[Task, Context], Result], begin: Callable[[str], Context]
    ) -> Iterator[tuple[Task, Result]]:
        most = min(self.jobs, len(tasks))
        portion = portion_of(self.machines, self.device, most)
        shared = _Shared(uuid.uuid4().hex, self.command, self.device, portion, self._folder, os.getcwd(), begin)
        # A task that was lost is not tried again by itself: it ends the command as it does without Ray.
        run = self.ray.remote(num_cpus=portion.cpus, num_gpus=portion.gpus, max_retries=0)(_run)
        reference = self.ray.put(shared)
        waiting = list(reversed(tasks))
        running: dict[Any, Task] = {}
        try:
            while waiting or running:
                while waiting and len(running) < most:
                    task = waiting.pop()
                    running[run.remote(work, task, reference)] = task
                for done in self.ray.wait(list(running), num_returns=1)[0]:
                    task = running.pop(done)
                    yield task, self._result(done)
        finally:
            # An interrupt, or an error: nobody waits for what the others are at.
            for left in running:
                self.ray.cancel(left, force=True)

    def _everywhere(self, function: Callable[..., Any], *arguments: Any) -> Iterator[tuple[str, Any]]:
        """The name of every machine with what the function gives there."""
        by_node = self.ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy
        look = self.ray.remote(num_cpus=0, max_retries=0)(_look)
        asked = [
            look.options(scheduling_strategy=by_node(machine.node, soft=False)).remote(function, *arguments)
            for machine in self.machines
        ]
        for one in asked:
            yield self._result(one, _PROBE_SECONDS)

    def _result(self, reference: Any, seconds: float | None = None) -> Any:
        """What a task gave, or what it raised."""
        errors = self.ray.exceptions
        try:
            return self.ray.get(reference, timeout=seconds)
        except errors.RayTaskError as error:
            if isinstance(error.cause, errors.RayError):  # what the task is made of cannot be read there
                reason = str(error.cause).splitlines()[0]
                raise ValueError(
                    f"{self.command}: a machine of the Ray cluster cannot take up a task: {reason}"
                ) from error
            if isinstance(error.cause, Exception):
                raise error.cause from error
            raise
        except errors.GetTimeoutError as error:
            raise TimeoutError(
                f"{self.command}: a machine of the Ray cluster did not answer in {seconds:.0f} s"
            ) from error
        except errors.RayError as error:
            raise workers.ended(self.command) from error


class _Shared(NamedTuple):
    """What all tasks of one call have in common. out: a folder that they write in. folder: where the command runs."""

    key: str
    command: str
    device: str
    portion: Portion
    out: str | None
    folder: str
    begin: Callable[[str], Any]


def _run(work: Callable[[Any, Any], Any], task: Any, shared: _Shared) -> Any:
    """In a worker: one task; the context is made with the first of a call that comes to this process."""
    kept = workers._kept
    if kept.get("key") != shared.key:
        if shared.out is not None and not os.path.isdir(shared.out):  # a machine that came later
            raise _unseen(shared.command, shared.out, socket.gethostname())
        if os.path.isdir(shared.folder):
            os.chdir(shared.folder)  # what paths are relative to
        device = str(choose_device(shared.device, shared.command))
        workers.prepare(shared.begin, device, max(1, int(shared.portion.cpus)), shared.portion.sharing)
        kept["key"] = shared.key
    return work(task, kept["context"])


def _look(function: Callable[..., Any], *arguments: Any) -> tuple[str, Any]:
    return socket.gethostname(), function(*arguments)


def _version() -> str:
    return ddarts_ext.__version__


def _unseen(command: str, out: str, machine: str) -> FileNotFoundError:
    return FileNotFoundError(
        f"{command}: out must be a folder on a file system that all machines share, got {out}, which "
        f"{machine} does not see"
    )


def _device(command: str, device: str, machines: Sequence[Machine]) -> str:
    gpus = sum(machine.gpus for machine in machines)
    if device not in ("auto", "cpu", "cuda"):
        raise ValueError(
            f"{command}: device must be auto, cpu or cuda with backend ray, which deals the GPUs out, got {device!r}"
        )
    if device == "cuda" and not gpus:
        raise ValueError(f"{command}: device must be cpu, as the Ray cluster has no GPU, got {device!r}")
    return "cuda" if gpus and device != "cpu" else "cpu"

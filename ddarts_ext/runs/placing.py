"""The place where tasks run, by name."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from ddarts_ext.runs.device import choose_device
from ddarts_ext.runs.ray_workers import on_ray
from ddarts_ext.runs.workers import Place, Processes

BACKENDS = ("local", "ray")


@contextmanager
def placed(
    backend: str, command: str, *, device: str, jobs: int | None, say: Callable[[str], None] = lambda line: None
) -> Iterator[Place]:
    """A place for tasks, which is given back at the end.

    backend: ``local`` or ``ray``. command: who asks, for errors. device: ``cuda`` deals tasks out to all GPUs. jobs:
    tasks at work at once; None is 1, and with ``ray`` as many as the cluster has GPUs, or CPUs with ``cpu``. say: is
    told what a person should know. Raises ValueError for wrong arguments and where ray is not installed, OSError where
    its cluster is not reached.
    """
    if backend not in BACKENDS:
        raise ValueError(f"{command}: backend must be one of {', '.join(BACKENDS)}, got {backend!r}")
    if jobs is not None and (isinstance(jobs, bool) or not isinstance(jobs, int) or jobs < 1):
        raise ValueError(f"{command}: jobs must be an integer >= 1, got {jobs!r}")
    if backend == "local":
        yield Processes(command, str(choose_device(device, command)), jobs or 1)
        return
    with on_ray(command, device=device, jobs=jobs, say=say) as place:
        yield place

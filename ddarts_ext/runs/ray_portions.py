"""What each of several tasks at once may take of the machines of a Ray cluster."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil, floor
from typing import NamedTuple


class Machine(NamedTuple):
    """What a machine of the cluster has. node: its name in Ray."""

    node: str
    cpus: int
    gpus: int


class Portion(NamedTuple):
    """What a task takes of its machine; sharing: how many tasks take one GPU."""

    cpus: float
    gpus: float
    sharing: int


def portion_of(machines: Sequence[Machine], device: str, jobs: int) -> Portion:
    """What each of ``jobs`` tasks may take, so that all of them find room at once.

    With ``cuda`` as processes of one machine share its GPUs, with their part of the CPUs beside it. Else so many whole
    CPUs as let all of them run, and parts of one where there are more tasks than CPUs.
    """
    if device == "cuda":
        having = [machine for machine in machines if machine.gpus]
        share = ceil(jobs / sum(machine.gpus for machine in having))
        cpus = min(machine.cpus / (machine.gpus * share) for machine in having)
        return Portion(float(int(cpus)) if cpus >= 1 else _down(cpus), _down(1 / share), share)
    for cpus in range(max(machine.cpus for machine in machines), 0, -1):
        if sum(machine.cpus // cpus for machine in machines) >= jobs:
            return Portion(float(cpus), 0.0, 1)
    whole = sum(machine.cpus for machine in machines)
    return Portion(_down(1 / ceil(jobs / whole)) if whole else 0.0, 0.0, 1)


def _down(part: float) -> float:
    """Ray counts in 1/10000; rounded up, as many as share a thing would be more than all of it."""
    return floor(part * 10_000 + 1e-6) / 10_000

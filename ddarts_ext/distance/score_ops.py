"""How good is an op by itself? The protocol behind the op scores of D-DARTS (Table 1), on any data.

A residual network in the manner of ResNet18, of ``cells`` cells with four 3x3 convolutions each, is trained again and
again, every time with one of its convolutions replaced by the op: every op on every edge, several runs each. The score
of an op is the median over the edges of its best run.

Every measurement is appended to a file of JSON lines as soon as it is there, so that a killed run continues.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from ddarts_ext.data import load
from ddarts_ext.data.identity import identity
from ddarts_ext.data.order import canonical_order
from ddarts_ext.distance.measurements import measurements
from ddarts_ext.distance.op_scores import save_scores
from ddarts_ext.distance.protocol import Protocol, Task
from ddarts_ext.distance.workers import results
from ddarts_ext.runs.files import check_target
from ddarts_ext.runs.placing import placed
from ddarts_ext.runs.workers import Place

STATISTICS: dict[str, Callable[[Sequence[float]], float]] = {"median": statistics.median, "mean": statistics.fmean}


def scores(measured: Mapping[Task, float], statistic: str = "median") -> dict[str, float]:
    """Op name to score: over the edges the median (or mean) of the best run."""
    best = best_runs(measured)
    return {op: STATISTICS[statistic](list(edges.values())) for op, edges in best.items()}


def best_runs(measured: Mapping[Task, float]) -> dict[str, dict[str, float]]:
    """Op name to edge ("cell 0 2<-1") to the accuracy of its best run."""
    best: dict[str, dict[str, float]] = {}
    for task, accuracy in measured.items():
        edges, key = best.setdefault(task.op, {}), f"cell {task.cell} {task.edge}"
        edges[key] = max(edges.get(key, 0.0), accuracy)
    return best


def score_ops(
    protocol: Protocol,
    out: str | Path,
    *,
    device: str = "auto",
    jobs: int | None = None,
    backend: str = "local",
    statistic: str = "median",
    say: Callable[[str], None] = lambda line: None,
) -> dict[str, float]:
    """Run what is left of the protocol and write the score file ``out``; measurements are kept in ``out``.jsonl.

    jobs: measurements at work at once, each in a process of its own; with ``cuda`` they are dealt out to all GPUs.
    backend: ``local``, processes of this machine, or ``ray``, those of a Ray cluster, whose machines must all see the
    data; ``out`` is written here. say: shown one line per measurement.
    Raises ValueError for wrong input and where the measurements there are come from another protocol.
    """
    if statistic not in STATISTICS:
        raise ValueError(f"score-ops: statistic must be one of {', '.join(STATISTICS)}, got {statistic!r}")
    check_target("score-ops: out", Path(out))
    with placed(backend, "score-ops", device=device, jobs=jobs, say=say) as place:
        return _scored(protocol, Path(out), place, statistic, say)


def _scored(
    protocol: Protocol, path: Path, place: Place, statistic: str, say: Callable[[str], None]
) -> dict[str, float]:
    dataset = load(protocol.data)
    if dataset.numbers:
        raise ValueError(f"score-ops: data must be images in classes, got {protocol.data!r}, whose labels are numbers")
    about = {**asdict(protocol), "images": identity(dataset, canonical_order(dataset.train))}
    tasks = protocol.tasks()
    with measurements(path.with_name(path.name + ".jsonl"), about) as (measured, append):
        left = [task for task in tasks if task not in measured]
        if len(left) < len(tasks):
            say(f"score-ops: {len(tasks) - len(left)} of {len(tasks)} measurements are there, {len(left)} are left")
        began = time.monotonic()
        for number, (task, accuracy) in enumerate(results(left, protocol, dataset, place), start=1):
            append(task, accuracy)
            seconds = (time.monotonic() - began) / number * (len(left) - number)
            say(
                f"{len(tasks) - len(left) + number}/{len(tasks)}  {task.op} on cell {task.cell} {task.edge}, "
                f"run {task.run}: {accuracy:.2f}%  {seconds:.0f} s left"
            )
        found = scores(measured, statistic)
        save_scores(
            found,
            path,
            about=f"{statistic} over edges of the held-out accuracy of the best of {protocol.runs} runs, in percent",
            protocol=about,
            edges=best_runs(measured),
        )
    return found

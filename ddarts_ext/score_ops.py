"""How good is an op by itself? The protocol behind the op scores of D-DARTS (Table 1), on any data.

A residual network in the manner of ResNet18, of ``cells`` cells with four 3x3 convolutions each, is trained again and
again, every time with one of its convolutions replaced by the op: every op on every edge, several runs each. The score
of an op is the median over the edges of its best run.

Every measurement is appended to a file of JSON lines as soon as it is there, so that a killed run continues.
"""

from __future__ import annotations

import json
import os
import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import IO, Any, NamedTuple

from ddarts_ext import spaces
from ddarts_ext.data import Dataset, load
from ddarts_ext.genotype import Gene, Genotype
from ddarts_ext.op_scores import save_scores
from ddarts_ext.search.start import Start

STATISTICS: dict[str, Callable[[Sequence[float]], float]] = {"median": statistics.median, "mean": statistics.fmean}
_REPLACED = "simple_conv_3x3"


@dataclass(frozen=True)
class Protocol:
    """What is measured. Defaults: D-DARTS, 2108.09306, Table 1 (on CIFAR-10).

    input_node: which input the cells read. The published encoding of ResNet18 reads 0, the output of the cell before
    last, with which every other cell has no say; 1 chains the cells. lr and what else is not said: as in training.
    """

    data: str
    ops: tuple[str, ...] = spaces.get("dartopti").ops
    channels: int = 64
    epochs: int = 10
    runs: int = 4
    batch: int = 256
    lr: float = 0.025
    cells: int = 3
    input_node: int = 1
    seed: int = 0
    precision: str = "float32"

    def __post_init__(self) -> None:
        for name in ("channels", "epochs", "runs", "batch", "cells"):
            if getattr(self, name) < 1:
                raise ValueError(f"score-ops: {name} must be >= 1, got {getattr(self, name)}")
        if self.input_node not in (0, 1):
            raise ValueError(f"score-ops: input_node must be 0 or 1, got {self.input_node}")
        known = set(spaces.get("dartopti").ops) | set(spaces.EXTRA_OPS)
        for op in self.ops:
            if op not in known:
                raise ValueError(f"score-ops: ops must be among {', '.join(sorted(known))}, got {op!r}")
        if not self.ops or len(set(self.ops)) != len(self.ops):
            raise ValueError(f"score-ops: ops must be distinct and at least one, got {list(self.ops)}")

    def network(self) -> Genotype:
        """The residual network before anything is replaced; it reduces at thirds."""
        residual = Start.load("ResNet18", input_node=self.input_node).network
        return Genotype(residual.genes * self.cells, concat=residual.concat)

    def tasks(self) -> tuple[Task, ...]:
        """All measurements, run by run, so that a run cut short has seen every op on every edge as often."""
        edges = [
            (cell, f"{gene.target}<-{gene.source}")
            for cell, genes in enumerate(self.network().cells)
            for gene in genes
            if gene.op == _REPLACED
        ]
        return tuple(Task(op, *edge, run) for run in range(self.runs) for op in self.ops for edge in edges)


class Task(NamedTuple):
    """One measurement: ``op`` on edge ``edge`` ("target<-source") of cell ``cell``, the ``run``-th time."""

    op: str
    cell: int
    edge: str
    run: int

    def genotype(self, network: Genotype) -> Genotype:
        """``network`` with the op on that edge."""
        genes = list(network.cells)
        genes[self.cell] = tuple(
            Gene(self.op, gene.target, gene.source)
            if gene.op == _REPLACED and f"{gene.target}<-{gene.source}" == self.edge
            else gene
            for gene in genes[self.cell]
        )
        return replace(network, genes=tuple(genes), seq=tuple(range(len(genes))))


def measure(task: Task, protocol: Protocol, dataset: Dataset, device: str) -> float:
    """Train the network of one task; its accuracy on held-out images after the last epoch, in percent."""
    from ddarts_ext.training.trainer import Trainer

    settings = {name: getattr(protocol, name) for name in ("channels", "epochs", "batch", "lr", "precision")}
    trainer = Trainer(
        task.genotype(protocol.network()),
        dataset,
        device=device,
        seed=protocol.seed + task.run,
        auxiliary_weight=0.0,
        drop_path=0.0,
        **settings,
    )
    return 100.0 * trainer.train().accuracy


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
    jobs: int = 1,
    statistic: str = "median",
    say: Callable[[str], None] = lambda line: None,
) -> dict[str, float]:
    """Run what is left of the protocol and write the score file ``out``; measurements are kept in ``out``.jsonl.

    jobs: processes at work; with ``cuda`` they are dealt out to all GPUs. say: shown one line per measurement.
    Raises ValueError for wrong input and where the measurements there are come from another protocol.
    """
    if statistic not in STATISTICS:
        raise ValueError(f"score-ops: statistic must be one of {', '.join(STATISTICS)}, got {statistic!r}")
    if jobs < 1:
        raise ValueError(f"score-ops: jobs must be >= 1, got {jobs}")
    from ddarts_ext.score_workers import results
    from ddarts_ext.training.device import choose_device

    chosen = str(choose_device(device, "score-ops"))
    path = Path(out)
    dataset = load(protocol.data)
    about = {**asdict(protocol), "images": [len(dataset.train), len(dataset.test)], "size": list(dataset.size)}
    tasks = protocol.tasks()
    with measurements(path.with_name(path.name + ".jsonl"), about) as (measured, append):
        left = [task for task in tasks if task not in measured]
        if len(left) < len(tasks):
            say(f"score-ops: {len(tasks) - len(left)} of {len(tasks)} measurements are there, {len(left)} are left")
        began = time.monotonic()
        for number, (task, accuracy) in enumerate(results(left, protocol, dataset, chosen, jobs), start=1):
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


@contextmanager
def measurements(
    path: Path, about: Mapping[str, Any]
) -> Iterator[tuple[dict[Task, float], Callable[[Task, float], None]]]:
    """The measurements in a file of JSON lines, and a function that adds one, to the dict and durably to the file.

    The first line is ``about``. A last line that a killed process left unfinished is cut off. Raises ValueError if the
    file is in use, or from another protocol.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "a+b") as file:
        _lock(file, path)
        file.seek(0)
        content = file.read()
        whole = content[: content.rfind(b"\n") + 1]
        if len(whole) < len(content):
            os.ftruncate(file.fileno(), len(whole))
        lines = whole.splitlines()
        if not lines:
            _append(file, {"version": 1, "command": "score-ops", **about})
        measured = _read(path, lines, json.loads(json.dumps(about)))

        def append(task: Task, accuracy: float) -> None:
            _append(file, {**task._asdict(), "accuracy": accuracy})
            measured[task] = accuracy

        yield measured, append


def _read(path: Path, lines: Iterable[bytes], about: Mapping[str, Any]) -> dict[Task, float]:
    measured: dict[Task, float] = {}
    for number, line in enumerate(lines):
        try:
            record = json.loads(line)
            if number:
                task = Task(str(record["op"]), int(record["cell"]), str(record["edge"]), int(record["run"]))
                measured[task] = float(record["accuracy"])
                continue
            different = [name for name in about if record.get(name) != about[name]]
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"score-ops: {path}:{number + 1} is not a measurement: {error!r}") from error
        if different:
            name = different[0]
            raise ValueError(
                f"score-ops: {name} must be {record.get(name)!r} to continue with the measurements in {path}, "
                f"got {about[name]!r}"
            )
    return measured


def _append(file: IO[bytes], record: Mapping[str, Any]) -> None:
    """One write for the whole line, then to the disk: it is there, or it is an unfinished last line."""
    file.write(json.dumps(record).encode() + b"\n")
    file.flush()
    os.fsync(file.fileno())


def _lock(file: IO[bytes], path: Path) -> None:
    import fcntl

    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        raise ValueError(f"score-ops: {path} is in use by another process") from error

"""What is measured of an op, and how: one convolution of a residual network replaced, and the network trained."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

from ddarts_ext import spaces
from ddarts_ext.data import Dataset
from ddarts_ext.genotype import Gene, Genotype
from ddarts_ext.genotype.start import Start
from ddarts_ext.runs.finite import NotFiniteError

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
    try:
        return 100.0 * trainer.train().accuracy
    except NotFiniteError as error:
        where = f"{task.op} on cell {task.cell} {task.edge}, run {task.run}"
        raise NotFiniteError(f"score-ops: {where} has no score: {error}") from error

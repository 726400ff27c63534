"""Baselines that evaluate one architecture after the other: their settings."""

from __future__ import annotations

from dataclasses import dataclass

from ddarts_ext.runs.options import option
from ddarts_ext.tables.nasbench201 import DATASETS


@dataclass(frozen=True)
class Baseline:
    """How many architectures are evaluated, and which: of methods without a supernet (``random``, ``evolution``).

    evaluations: in all. With 1 and without a population the one that is drawn is the result, and none is evaluated.
    population: 0 draws every architecture at random. Else so many are, and each later one is a mutation of the best of
    ``tournament`` that are drawn, with replacement, from the last ``population`` ones (regularised evolution).
    evaluation_epochs: of the training of each, on the images of the weights; the others judge. Where there is a table
    of NAS-Bench-201, its validation accuracy on ``evaluation_table`` is looked up instead.
    """

    evaluations: int = 1
    population: int = 0
    tournament: int = 3
    evaluation_epochs: int = 5
    evaluation_table: str = option("cifar10", choices=DATASETS)

    @property
    def evaluates(self) -> bool:
        """Whether anything is evaluated at all."""
        return self.evaluations > 1 or self.population > 0

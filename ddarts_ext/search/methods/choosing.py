"""How ops are chosen by other than their alphas: settings of parts that remove ops, or stop their training."""

from __future__ import annotations

from dataclasses import dataclass
from math import exp

from ddarts_ext.runs.options import option
from ddarts_ext.spaces import Space

SELECTIONS = ("none", "perturbation")
SELECTION_MEASURES = ("metric", "loss")


@dataclass(frozen=True)
class Selection:
    """How the result is chosen once the supernet has been trained: settings of the part ``selection``.

    selection: ``none`` reads it from the alphas. ``perturbation`` decides edge after edge, in random order: the op
    without which the supernet is worst on the judging images stays; then node after node: the two edges without which
    it is worst (DARTS-PT, 2108.04392). selection_measure: worst by the ``metric`` (at equal ones by the loss) or by the
    ``loss``. selection_every: epochs in which the supernet is tuned between two decisions, beyond ``epochs``; 0 takes
    all decisions at once. selection_lr: rate of the weights meanwhile, at first; it falls to ``weight_lr_min``.
    """

    selection: str = option("none", choices=SELECTIONS)
    selection_measure: str = option("metric", choices=SELECTION_MEASURES)
    selection_every: int = 10
    selection_lr: float = 0.0025

    def decisions(self, space: Space) -> int:
        """How many decisions there are for each row: one an edge, and one for each node that has more than two."""
        if self.selection == "none":
            return 0
        nodes = 0 if space.selection == "every_edge" else sum(node > 2 for node in space.nodes)
        return len(space.edges) + nodes

    def tuning_epochs(self, space: Space) -> int:
        """Epochs between the first decision and the last."""
        return self.selection_every * max(0, self.decisions(space) - 1)


@dataclass(frozen=True)
class OpStopping:
    """When single ops stop training (OLES), see :class:`ddarts_ext.search.op_stop.OpStop`.

    op_stop: an op stops once the mean over ``op_stop_window`` steps of the cosine between its gradients on training and
    on judging images is below ``op_stop_similarity``.
    """

    op_stop: bool = False
    op_stop_similarity: float = 0.4
    op_stop_window: int = 20


@dataclass(frozen=True)
class Stages:
    """Stages in which the supernet grows deeper as edges lose ops (P-DARTS, 1904.12760): of the part ``stages``.

    stage_cells: how many cells more than ``cells`` each stage has; none for a search without stages. ``epochs`` are
    those of all stages, of equal length; in each the weights, the alphas, their rates and ``alpha_start`` begin anew.
    stage_ops: how many ops stay on every edge after each stage but the last: those of the largest weights.
    skip_dropout: of what comes through a skip connection, this share is dropped in training, one rate for each stage
    (P-DARTS). It falls linearly while alphas rest, by (L - 1 - e) / L in epoch e of L, and is rate exp(-(e - s) / 5)
    from the epoch s on in which they move.
    """

    stage_cells: tuple[int, ...] = ()
    stage_ops: tuple[int, ...] = ()
    skip_dropout: tuple[float, ...] = ()

    @property
    def count(self) -> int:
        """How many stages there are."""
        return max(1, len(self.stage_cells))

    def place(self, epoch: int, epochs: int) -> tuple[int, int, int]:
        """The stage of an epoch, both from 0, which of its epochs it is, and how many it has."""
        begins = [stage * epochs // self.count for stage in range(self.count + 1)]
        stage = max(stage for stage in range(self.count) if begins[stage] <= min(epoch, epochs - 1))
        return stage, epoch - begins[stage], begins[stage + 1] - begins[stage]

    def dropout(self, stage: int, epoch: int, epochs: int, start: int) -> float:
        """The rate in epoch ``epoch`` of the ``epochs`` of a stage, whose alphas move from ``start`` on."""
        rate = self.skip_dropout[stage]
        return rate * (epochs - 1 - epoch) / epochs if epoch < start else rate * exp(-(epoch - start) / 5)

"""How ops are chosen by other than their alphas: settings of parts that remove ops, or stop their training."""

from __future__ import annotations

from dataclasses import dataclass

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

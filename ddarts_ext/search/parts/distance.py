"""How far a search has come from its start, epoch by epoch, and the rule that stops it when it has come to rest."""

from __future__ import annotations

import json
from typing import Any

from ddarts_ext.distance import Scores, architecture_distance, settled
from ddarts_ext.distance.op_scores import load_scores
from ddarts_ext.genotype import Genotype
from ddarts_ext.genotype.configuration import Configuration
from ddarts_ext.genotype.discretisation import THRESHOLDS, discretize
from ddarts_ext.search.methods import Method
from ddarts_ext.search.parts.part import Part
from ddarts_ext.search.state import SearchState


class DistancePart(Part):
    """Adds to every record ``distance``: ``start`` and ``previous``, the distances from the architecture of the epoch
    to the one before the first epoch and to that of the epoch before; with ``stop`` also ``settled``, once it applies.

    rule, threshold, configuration: how the op weights of an epoch are read, see :func:`ddarts_ext.genotype.discretize`.
    The start is read with all ops that reach the threshold; without ``start`` alphas it is the empty architecture.
    scores: of the ops. stop: end the search when the distances to the start since epoch ``first`` (from 0) differ by at
    most ``tolerance`` from each of the ``window`` before (D-DARTS, section 3.5).
    """

    def __init__(
        self,
        *,
        rule: str = "edge",
        threshold: float = 0.85,
        scores: Scores = "median",
        stop: bool = False,
        first: int = 5,
        tolerance: float = 0.001,
        window: int = 4,
        configuration: Configuration | None = None,
    ) -> None:
        self.rule, self.threshold = rule, threshold
        self.configuration = configuration
        self.scores = load_scores(scores)
        self.stop, self.first, self.tolerance, self.window = stop, first, tolerance, window
        self.start: Genotype | None = None
        self.previous: Genotype | None = None
        self.distances: list[float] = []
        """To the start, of every epoch since ``first``."""

    @classmethod
    def of(cls, method: Method) -> DistancePart:
        """The part with the settings of a method."""
        how, rules = method.distance, method.discretisation.rules
        auto = "edge" if rules[0] in THRESHOLDS else rules[0]
        return cls(
            rule=auto if how.distance_rule == "auto" else how.distance_rule,
            threshold=method.discretisation.threshold,
            scores=how.distance_scores,
            stop=how.early_stop,
            first=method.architect.alpha_start + how.stop_after,
            tolerance=how.stop_tolerance,
            window=how.stop_window,
            configuration=method.discretisation.configuration,
        )

    def before_epoch(self, state: SearchState, epoch: int) -> None:
        if self.start is None:
            missing = sorted({*state.space.genotype_ops} - {*self.scores, "none"})
            if missing:
                raise ValueError(f"search: distance_scores must have all ops of the space, got none for {missing[0]}")
            self.start = self._read(state, "complete" if self.rule in THRESHOLDS else self.rule)
            self.previous = self.start

    def after_epoch(self, state: SearchState, epoch: int, record: dict[str, Any]) -> bool:
        if self.start is None or self.previous is None:
            raise RuntimeError("DistancePart: before_epoch must run before after_epoch")
        found = self._read(state, self.rule)
        to_start, to_previous = (
            architecture_distance(found, other, scores=self.scores) for other in (self.start, self.previous)
        )
        self.previous = found
        record["distance"] = {"start": to_start, "previous": to_previous}
        if epoch >= self.first:
            self.distances.append(to_start)
        if not self.stop or epoch < self.first:
            return False
        record["distance"]["settled"] = settled(self.distances, self.tolerance, self.window)
        return bool(record["distance"]["settled"])

    def _read(self, state: SearchState, rule: str) -> Genotype:
        architecture = state.architecture
        return discretize(
            architecture.read_weights(),
            state.space,
            rule,  # type: ignore[arg-type]
            threshold=self.threshold,
            seq=architecture.owner,
            configuration=self.configuration,
            strengths=architecture.edge_table,
        )

    def state_dict(self) -> dict[str, Any]:
        return {
            "start": None if self.start is None else json.dumps(self.start.to_json()),
            "previous": None if self.previous is None else json.dumps(self.previous.to_json()),
            "distances": list(self.distances),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        start, previous = (
            None if state[name] is None else Genotype.from_json(json.loads(state[name]))
            for name in ("start", "previous")
        )
        self.start, self.previous, self.distances = start, previous, [float(d) for d in state["distances"]]

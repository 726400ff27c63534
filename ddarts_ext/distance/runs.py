"""What the distance between architectures tells about finished searches: how far each went, and what that was worth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ddarts_ext.distance.metric import Over, Scores
from ddarts_ext.distance.statistics import Spread, spread
from ddarts_ext.genotype import Genotype
from ddarts_ext.genotype.start import Start
from ddarts_ext.runs.folder import Record, RunFolder
from ddarts_ext.runs.losses import metric_in


@dataclass(frozen=True)
class RunDistances:
    """Searches and the distances that they covered.

    gains: per run an accuracy less another; without given ones, the validation accuracy of the supernet after the last
    epoch less that after pre-training.
    """

    runs: tuple[str, ...]
    gains: tuple[float, ...]
    spread: Spread

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "runs": [
                {"run": run, "distance": distance, "gain": gain}
                for run, distance, gain in zip(self.runs, self.spread.distances, self.gains, strict=True)
            ],
            "mean": self.spread.mean,
            "largest": self.spread.largest,
            "correlation": self.spread.correlation,
        }

    def __str__(self) -> str:
        lines = [
            f"{run}: distance {distance:.6f}, gain {gain:+.4f}"
            for run, distance, gain in zip(self.runs, self.spread.distances, self.gains, strict=True)
        ]
        r = self.spread.correlation
        correlation = "none (3 runs that differ are needed)" if r is None else f"{r:.4f}"
        lines.append(f"mean {self.spread.mean:.6f}, largest {self.spread.largest:.6f}")
        lines.append(f"correlation of distance and gain: {correlation}")
        return "\n".join(lines)


def run_distances(
    runs: Sequence[str | Path],
    gains: Sequence[float] | None = None,
    *,
    rule: str | None = None,
    scores: Scores = "median",
    over: Over = "seq",
    pad_with: float | None = None,
    positional: bool = False,
) -> RunDistances:
    """From start to result over several finished searches that had a start (``ddarts search --start``).

    gains: one per run, such as the accuracy of the trained result less that of the trained start. rule: the result as
    this rule reads it, ``edge`` or ``sparse``, not as the search chose. The other arguments:
    :func:`ddarts_ext.distance.architecture_distance`. Raises ValueError or FileNotFoundError naming the run.
    """
    starts, results, own = [], [], []
    for run in runs:
        folder = RunFolder(run, "distance")
        config, history = folder.config(), folder.history()
        if config.get("start") is None:
            raise ValueError(f"distance: {run} must be a search with a start (ddarts search --start)")
        if not folder.genotype_file.is_file() or not history:
            raise ValueError(f"distance: {run} must be a finished search, but has no genotype.json")
        starts.append(Start.from_json(config["start"]).network)
        results.append(Genotype.load(folder.genotype_file if rule is None else f"{folder.path}/genotypes.json#{rule}"))
        own.append(_gain(config, history))
    used = tuple(own if gains is None else gains)
    found = spread(starts, results, used, scores=scores, over=over, pad_with=pad_with, positional=positional)
    return RunDistances(tuple(map(str, runs)), used, found)


def _gain(config: Record, history: Sequence[Record]) -> float:
    before = max(0, int(config["method"]["architect"]["alpha_start"]) - 1)
    return metric_in(history[-1]["valid"])[1] - metric_in(history[before]["valid"])[1]

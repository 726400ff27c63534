"""What distances tell about searches: how far they went, what that was worth, when they came to rest."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ddarts_ext.distance.metric import Over, Scores, architecture_distance
from ddarts_ext.genotype import Genotype


@dataclass(frozen=True)
class Spread:
    """Distances from start to result over several runs."""

    distances: tuple[float, ...]
    mean: float
    largest: float
    correlation: float | None
    """Pearson's r of distance and gain in accuracy; None without gains, below 3 runs, or if either is constant."""


def spread(
    starts: Sequence[Genotype],
    results: Sequence[Genotype],
    gains: Sequence[float] | None = None,
    *,
    scores: Scores = "median",
    over: Over = "seq",
    pad_with: float | None = None,
    positional: bool = False,
) -> Spread:
    """Over several runs, run i from starts[i] to results[i], the distance covered.

    gains: per run the accuracy of the result less that of the start. The other arguments: `architecture_distance`.
    """
    if len(starts) != len(results) or not starts:
        raise ValueError(
            f"spread: starts and results must be equally many, at least one, got {len(starts)} and {len(results)}"
        )
    pairs = zip(starts, results, strict=True)
    return spread_of(
        [
            architecture_distance(a, b, scores=scores, over=over, pad_with=pad_with, positional=positional)
            for a, b in pairs
        ],
        gains,
    )


def spread_of(distances: Sequence[float], gains: Sequence[float] | None = None) -> Spread:
    """The statistics of given distances and gains."""
    if not distances:
        raise ValueError("spread: distances must be at least one, got none")
    if gains is not None and len(gains) != len(distances):
        raise ValueError(f"spread: gains must be one per run={len(distances)}, got {len(gains)}")
    correlation = None
    if gains is not None and len(distances) >= 3 and np.ptp(distances) > 0 and np.ptp(gains) > 0:
        correlation = float(np.corrcoef(distances, gains)[0, 1])
    return Spread(tuple(distances), float(np.mean(distances)), float(np.max(distances)), correlation)


def settled(distances: Sequence[float], tolerance: float = 0.001, window: int = 4) -> bool:
    """Whether the newest distance differs by at most `tolerance` from each of the `window` before it (D-DARTS, 3.5).

    distances: from the start to the architecture of each epoch, oldest first.
    """
    if len(distances) <= window:
        return False
    # A hair of slack: 0.501 - 0.5 must count as 0.001.
    return all(abs(distances[-1] - earlier) <= tolerance + 1e-12 for earlier in distances[-1 - window : -1])

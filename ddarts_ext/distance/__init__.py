"""How far architectures are apart (D-DARTS, section 3.5), what that tells of searches, and the op scores behind it."""

from ddarts_ext.distance.metric import (
    Matrix,
    Over,
    Scores,
    architecture_distance,
    cell_distance,
    distance_matrix,
)
from ddarts_ext.distance.statistics import Spread, settled, spread, spread_of

__all__ = [
    "Matrix",
    "Over",
    "Scores",
    "Spread",
    "architecture_distance",
    "cell_distance",
    "distance_matrix",
    "settled",
    "spread",
    "spread_of",
]

"""What runs between the epochs of a search, by the names under which methods ask for it."""

from __future__ import annotations

from collections.abc import Callable

from ddarts_ext.search.parts.budget import BudgetPart, limit_of
from ddarts_ext.search.parts.curvature import CurvaturePart
from ddarts_ext.search.parts.distance import DistancePart
from ddarts_ext.search.parts.part import Part, Surroundings
from ddarts_ext.search.parts.selection import SelectionPart
from ddarts_ext.search.parts.stages import StagesPart

PARTS: dict[str, Callable[[Surroundings], Part]] = {
    "budget": BudgetPart,
    "distance": lambda around: DistancePart.of(around.config.method),
    "curvature": CurvaturePart,
    "selection": SelectionPart,
    "stages": StagesPart,
}
"""Parts that a method can name, made for its search; others are given to the Searcher as objects."""

__all__ = [
    "PARTS",
    "BudgetPart",
    "CurvaturePart",
    "DistancePart",
    "Part",
    "SelectionPart",
    "StagesPart",
    "Surroundings",
    "limit_of",
]

"""What runs between the epochs of a search, by the names under which methods ask for it."""

from __future__ import annotations

from collections.abc import Callable

from ddarts_ext.search.methods import Method
from ddarts_ext.search.parts.distance import DistancePart
from ddarts_ext.search.parts.part import Part

PARTS: dict[str, Callable[[Method], Part]] = {"distance": DistancePart.of}
"""Parts that a method can name, made from the method's settings; others are given to the Searcher as objects."""

__all__ = ["PARTS", "DistancePart", "Part"]

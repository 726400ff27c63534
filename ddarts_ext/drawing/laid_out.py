"""A graph whose places are decided: boxes, curves and titles in pixels, from the upper left corner on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from ddarts_ext.drawing.graph import Node

TITLE = 26.0
"""Height of a title above a graph."""
MARGIN = 8.0

Point = tuple[float, float]


@dataclass(frozen=True)
class Box:
    """A node around the point (x, y)."""

    node: Node
    x: float
    y: float
    height: float

    @property
    def width(self) -> float:
        return self.node.width


@dataclass(frozen=True)
class Curve:
    """Cubic Bezier pieces: a point, then three for every piece, the last of which is the point of an arrow."""

    points: tuple[Point, ...]
    faded: bool = False


@dataclass(frozen=True)
class Drawing:
    """titles: text and the point where it begins, on its baseline."""

    width: float
    height: float
    boxes: tuple[Box, ...]
    curves: tuple[Curve, ...]
    titles: tuple[tuple[str, Point], ...] = ()

    def moved(self, x: float, y: float) -> Drawing:
        """The same further right by x and down by y; width and height stay."""
        return replace(
            self,
            boxes=tuple(replace(box, x=box.x + x, y=box.y + y) for box in self.boxes),
            curves=tuple(
                replace(curve, points=tuple((px + x, py + y) for px, py in curve.points)) for curve in self.curves
            ),
            titles=tuple((text, (px + x, py + y)) for text, (px, py) in self.titles),
        )

    def titled(self, title: str) -> Drawing:
        """With a title above, and a margin around."""
        if not title:
            return self.moved(MARGIN, MARGIN)._sized(self.width + 2 * MARGIN, self.height + 2 * MARGIN)
        inner = self.moved(MARGIN, MARGIN + TITLE)
        named = replace(inner, titles=(*inner.titles, (title, (MARGIN, MARGIN + 14))))
        width = max(self.width, 7.5 * len(title))
        return named._sized(width + 2 * MARGIN, self.height + TITLE + 2 * MARGIN)

    def _sized(self, width: float, height: float) -> Drawing:
        return replace(self, width=width, height=height)


def stacked(drawings: Sequence[Drawing]) -> Drawing:
    """One below the other."""
    found = Drawing(0, 0, (), ())
    for drawing in drawings:
        lower = drawing.moved(0, found.height)
        found = Drawing(
            max(found.width, drawing.width),
            found.height + drawing.height,
            found.boxes + lower.boxes,
            found.curves + lower.curves,
            found.titles + lower.titles,
        )
    return found

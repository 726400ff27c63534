"""What is drawn: boxes with a text, and links between them, without circles."""

from __future__ import annotations

from dataclasses import dataclass

HEIGHT = 24.0
"""Of a box, in pixels; so is everything in this room."""
FONT = 11.0
_WIDEST = 0.64
"""Width of a character in sizes of the font, the mean of the widest font that may be used."""


@dataclass(frozen=True)
class Node:
    """A box. kind: decides its colour, see :data:`ddarts_ext.drawing.svg.COLOURS`. between: it stands on a link,
    anywhere between the two boxes that it joins. faded: drawn as what has no effect."""

    text: str
    kind: str
    between: bool = False
    faded: bool = False

    @property
    def width(self) -> float:
        return max(HEIGHT, _WIDEST * FONT * len(self.text) + 14)


@dataclass(frozen=True)
class Link:
    """From one node to another, by their indices."""

    source: int
    target: int
    faded: bool = False


@dataclass(frozen=True)
class Graph:
    """Drawn from left to right. first, last: indices of nodes that stand in the first and in the last column. Raises
    ValueError for a link that is none, and for circles."""

    title: str
    nodes: tuple[Node, ...]
    links: tuple[Link, ...]
    first: tuple[int, ...] = ()
    last: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        known = range(len(self.nodes))
        for link in self.links:
            if link.source not in known or link.target not in known:
                raise ValueError(
                    f"drawing: links must be between nodes 0..{len(known) - 1}, got {link.source} -> {link.target}"
                )
        self.order()

    def order(self) -> list[int]:
        """The nodes, every one after those that link to it. Raises ValueError for a circle."""
        waiting = [0] * len(self.nodes)
        for link in self.links:
            waiting[link.target] += 1
        ready = [node for node, count in enumerate(waiting) if not count]
        for node in ready:
            for link in self.links:
                if link.source == node:
                    waiting[link.target] -= 1
                    if not waiting[link.target]:
                        ready.append(link.target)
        if len(ready) < len(self.nodes):
            raise ValueError(f"drawing: links must make no circle, got one in {self.title!r}")
        return ready

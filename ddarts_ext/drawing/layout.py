"""Which layout a graph gets."""

from __future__ import annotations

from typing import Literal, get_args

from ddarts_ext.drawing.graph import Graph
from ddarts_ext.drawing.graphviz import installed, lay_out_by_dot
from ddarts_ext.drawing.laid_out import Drawing
from ddarts_ext.drawing.layered import lay_out_in_columns

Layout = Literal["auto", "graphviz", "own"]
LAYOUTS: tuple[str, ...] = get_args(Layout)


def lay_out(graph: Graph, layout: Layout = "own") -> Drawing:
    """Decide the places of a graph. layout: ``graphviz`` by its program ``dot``, ``own`` in columns, ``auto`` the first
    of them that there is. Raises ValueError for another one, and for ``graphviz`` where it is not installed."""
    if layout not in LAYOUTS:
        raise ValueError(f"plot: layout must be one of {', '.join(LAYOUTS)}, got {layout!r}")
    if layout == "graphviz" and not installed():
        raise ValueError("plot: layout must be own or auto where Graphviz (its program dot) is not installed")
    by_dot = layout == "graphviz" or (layout == "auto" and installed())
    found = lay_out_by_dot(graph) if by_dot else lay_out_in_columns(graph)
    return found.titled(graph.title)

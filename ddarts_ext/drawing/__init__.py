"""Pictures of small directed graphs: a layout of our own or Graphviz's, written as SVG, without any further package."""

from ddarts_ext.drawing.graph import Graph, Link, Node
from ddarts_ext.drawing.laid_out import Box, Curve, Drawing, stacked
from ddarts_ext.drawing.layout import LAYOUTS, Layout, lay_out
from ddarts_ext.drawing.svg import to_svg

__all__ = ["LAYOUTS", "Box", "Curve", "Drawing", "Graph", "Layout", "Link", "Node", "lay_out", "stacked", "to_svg"]

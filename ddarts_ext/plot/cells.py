"""Pictures of the cells of a genotype, as SVG without any further package and as PDF or PNG by matplotlib."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ddarts_ext.drawing import Drawing, Layout, to_svg
from ddarts_ext.drawing.graph import FONT
from ddarts_ext.drawing.svg import ARROW, COLOURS, FADED, INK, LINE, radius
from ddarts_ext.genotype import Genotype
from ddarts_ext.genotype.pictures import draw
from ddarts_ext.plot.pyplot import checked_format, load_pyplot
from ddarts_ext.runs.files import write_whole

_INCH = 72.0


def plot_genotype(genotype: Genotype, path: str | Path, layout: Layout = "auto") -> Path:
    """Draw each kind of cell of a genotype into one file, whose name ends in ``.svg``, ``.pdf`` or ``.png``.

    Ops that have no part in the output of their cell are faded; a cell says where in the network it stands. layout:
    ``graphviz`` by its program ``dot``, ``own`` in columns, ``auto`` the first of them that there is. Returns the path.
    Raises ValueError for another format, and without matplotlib for the last two.
    """
    target = Path(path)
    kind = checked_format(target.suffix.removeprefix("."))
    drawing = draw(genotype, layout)
    target.parent.mkdir(parents=True, exist_ok=True)
    if kind == "svg":
        label = f"cells of a genotype: {genotype.layers}, reductions {list(genotype.reduction_cells)}"
        write_whole(target, to_svg(drawing, label).encode())
        return target
    pyplot = load_pyplot()
    draw_drawing(pyplot, drawing)
    try:
        pyplot.gcf().savefig(target, dpi=150, format=kind)
    finally:
        pyplot.close()
    return target


def draw_drawing(pyplot: Any, drawing: Drawing) -> None:
    """A drawing as a figure of its size, a pixel of it as a point."""
    from matplotlib.patches import FancyBboxPatch, PathPatch, Polygon
    from matplotlib.path import Path as Outline

    figure = pyplot.figure(figsize=(drawing.width / _INCH, drawing.height / _INCH))
    axis = figure.add_axes((0, 0, 1, 1))
    axis.set(xlim=(0, drawing.width), ylim=(drawing.height, 0))
    axis.axis("off")
    for curve in drawing.curves:
        fade: dict[str, Any] = {"alpha": FADED if curve.faded else 1.0}
        codes = [Outline.MOVETO] + [Outline.CURVE4] * (len(curve.points) - 1)
        line = "dashed" if curve.faded else "solid"
        axis.add_patch(PathPatch(Outline(curve.points, codes), fill=False, edgecolor=LINE, linestyle=line, **fade))
        x, y = curve.points[-1]
        corners = [(x, y), (x - ARROW, y - ARROW / 2), (x - ARROW, y + ARROW / 2)]
        axis.add_patch(Polygon(corners, closed=True, color=LINE, linewidth=0, **fade))
    for box in drawing.boxes:
        fade = {"alpha": FADED if box.node.faded else 1.0}
        corner = (box.x - box.width / 2, box.y - box.height / 2)
        style = f"round,pad=0,rounding_size={radius(box)}"
        colour = COLOURS.get(box.node.kind, COLOURS["other"])
        axis.add_patch(
            FancyBboxPatch(corner, box.width, box.height, style, facecolor=colour, edgecolor=LINE, zorder=2, **fade)
        )
        axis.text(box.x, box.y, box.node.text, ha="center", va="center", fontsize=FONT - 1.5, color=INK, zorder=3,
                  parse_math=False, **fade)  # fmt: skip
    for text, (x, y) in drawing.titles:
        axis.text(x, y, text, fontsize=FONT, color=LINE, weight="bold", parse_math=False)

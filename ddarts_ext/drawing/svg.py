"""Drawings as SVG: text alone, without scripts, styles or references, in colours for light and for dark pages."""

from __future__ import annotations

from html import escape

from ddarts_ext.drawing.graph import FONT
from ddarts_ext.drawing.laid_out import Box, Curve, Drawing

COLOURS = {
    "input": "#b7e4c7",
    "node": "#bcd7fb",
    "output": "#fde08a",
    "convolution": "#e3e6fb",
    "pooling": "#fbdce8",
    "skip": "#e4e7ea",
    "other": "#f2ead9",
}
"""Of a box, by the kind of its node."""
INK, LINE = "#1b2430", "#7d8590"
"""Of a text in a box, and of what stands on the page."""
FADED = 0.45
ARROW = 6.0
_FONTS = "Helvetica, Arial, 'DejaVu Sans', sans-serif"


def radius(box: Box) -> float:
    """Of the corners: nodes of a cell are round, ops are nearly square."""
    return 4.0 if box.node.between else box.height / 2


def to_svg(drawing: Drawing, label: str = "") -> str:
    """An ``svg`` element, which is also a file. label: what it shows, for who cannot see it."""
    width, height = _number(drawing.width), _number(drawing.height)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}" '
        f'role="img" aria-label="{escape(label)}" font-family="{_FONTS}" font-size="{FONT:g}">'
    ]
    parts += map(_curve, drawing.curves)
    parts += map(_box, drawing.boxes)
    for text, (x, y) in drawing.titles:
        place = f'x="{_number(x)}" y="{_number(y)}" fill="{LINE}"'
        parts.append(f'<text {place} font-size="13" font-weight="600">{escape(text)}</text>')
    return "\n".join([*parts, "</svg>"]) + "\n"


def _box(box: Box) -> str:
    x, y = box.x - box.width / 2, box.y - box.height / 2
    fade = f' opacity="{FADED}" stroke-dasharray="3 2"' if box.node.faded else ""
    colour = COLOURS.get(box.node.kind, COLOURS["other"])
    return (
        f'<g{fade}><rect x="{_number(x)}" y="{_number(y)}" width="{_number(box.width)}" height="{_number(box.height)}" '
        f'rx="{_number(radius(box))}" fill="{colour}" stroke="{LINE}"/>'
        f'<text x="{_number(box.x)}" y="{_number(box.y + FONT * 0.35)}" text-anchor="middle" fill="{INK}" '
        f'stroke="none">{escape(box.node.text)}</text></g>'
    )


def _curve(curve: Curve) -> str:
    points = [f"{_number(x)} {_number(y)}" for x, y in curve.points]
    pieces = " ".join(f"C{', '.join(points[i : i + 3])}" for i in range(1, len(points), 3))
    fade = f' opacity="{FADED}" stroke-dasharray="3 2"' if curve.faded else ""
    (x, y), half = curve.points[-1], ARROW / 2
    arrow = (
        f'<path d="M{_number(x)} {_number(y)}l{-ARROW:g} {-half:g}v{2 * half:g}z" fill="{LINE}" stroke="none"'
        f"{' opacity=' + chr(34) + str(FADED) + chr(34) if curve.faded else ''}/>"
    )
    return f'<path d="M{points[0]} {pieces}" fill="none" stroke="{LINE}" stroke-width="1.2"{fade}/>{arrow}'


def _number(value: float) -> str:
    return f"{value:.1f}".rstrip("0").rstrip(".")

"""Pictures for a page: SVG that takes its ink from the page, so that it is readable on a light and on a dark one."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from typing import Any

from markupsafe import Markup

from ddarts_ext.plot.pyplot import load_pyplot

_INK = "#010203"
"""Stands for the colour of the page's text until the picture is written."""
PALETTE = ("#3b82f6", "#f59e0b", "#10b981", "#ef4444", "#8b5cf6", "#ec4899", "#14b8a6", "#a16207", "#84cc16", "#64748b")
_STYLE: dict[str, Any] = {
    **dict.fromkeys(("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"), _INK),
    **dict.fromkeys(("figure.facecolor", "axes.facecolor", "savefig.facecolor", "legend.facecolor"), "none"),
    "legend.edgecolor": "none",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.color": "#8888",
    "grid.linewidth": 0.5,
    "svg.fonttype": "none",
    "svg.hashsalt": "report",
    # Names of runs and ops are other people's texts, and no formulas.
    "text.parse_math": False,
}


class Pictures:
    """Makes the pictures of one page, in which no two parts have the same id."""

    def __init__(self) -> None:
        self._pyplot = load_pyplot()
        self._count = 0

    def svg(self, draw: Callable[[Any], None]) -> Markup:
        """What ``draw(pyplot)`` draws. Raises what it raises."""
        from cycler import cycler

        self._count += 1
        buffer = io.StringIO()
        try:
            with self._pyplot.rc_context({**_STYLE, "axes.prop_cycle": cycler(color=PALETTE)}):
                draw(self._pyplot)
                figure = self._pyplot.gcf()
                nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
                figure.savefig(buffer, format="svg", metadata=nothing)
        finally:
            self._pyplot.close("all")
        return Markup(_for_a_page(buffer.getvalue(), f"p{self._count}-"))


def _for_a_page(text: str, prefix: str) -> str:
    """The element without what stands before it."""
    text = text[text.index("<svg") :].replace(_INK, "currentColor")
    for mark in ('id="', 'href="#', "url(#"):
        text = text.replace(mark, mark + prefix)
    # The page decides the size, down to where texts can still be read; the viewBox keeps the proportions.
    size = r'\1 style="max-width:\2pt;min-width:min(\2pt,34rem)"'
    return re.sub(r'(<svg [^>]*?) width="([\d.]+)pt" height="[\d.]+pt"', size, text, count=1)

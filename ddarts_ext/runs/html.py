"""Pieces of HTML that results show themselves with in a notebook. Every text is escaped."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

from ddarts_ext.runs.history import Record
from ddarts_ext.runs.losses import SHARES

_WIDTH, _HEIGHT = 260.0, 70.0


def table(rows: Iterable[tuple[str, object]]) -> str:
    """Names and values; those that are None or empty are left out."""
    lines = [
        f'<tr><th style="text-align:left">{escape(name)}</th><td style="text-align:left">{escape(str(value))}</td></tr>'
        for name, value in rows
        if value is not None and value != ""
    ]
    return f"<table>{''.join(lines)}</table>"


def over_epochs(history: Sequence[Record], metric: str, parts: Mapping[str, str]) -> str:
    """A metric between 0 and 1 over epochs as a small picture, a line for each of ``parts``, key of a record to its
    name; nothing for another metric."""
    if metric not in SHARES:
        return ""
    colours = ("#3b82f6", "#f59e0b", "#10b981")
    lines, names = [], []
    for (part, name), colour in zip(parts.items(), colours, strict=False):
        known = [(record["epoch"], float(record[part][metric])) for record in history if metric in record.get(part, {})]
        if len(known) > 1:
            points = " ".join(f"{_x(epoch, history):.1f},{_HEIGHT * (1 - value):.1f}" for epoch, value in known)
            lines.append(f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="1.5"/>')
            names.append(f'<span style="color:{colour}">{escape(name)}</span>')
    if not lines:
        return ""
    frame = f'<path d="M0 0V{_HEIGHT:g}H{_WIDTH:g}" fill="none" stroke="#7d8590"/>'
    picture = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH:g}" height="{_HEIGHT:g}" '
        f'viewBox="-1 -1 {_WIDTH + 2:g} {_HEIGHT + 2:g}" role="img" aria-label="{escape(metric)} over epochs">'
        f"{frame}{''.join(lines)}</svg>"
    )
    return f"<div>{picture}<br>{escape(metric)} from 0 to 1 over {len(history)} epochs: {', '.join(names)}</div>"


def _x(epoch: int, history: Sequence[Any]) -> float:
    return _WIDTH * epoch / max(1, len(history) - 1)


def scrolled(content: str) -> str:
    """Content that may be large, in a box of its own."""
    return f'<div style="max-height:36rem;overflow:auto">{content}</div>'

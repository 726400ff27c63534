"""The layout of Graphviz, by its program ``dot``: it is told sizes and links, never a text, and answers with places."""

from __future__ import annotations

import shutil
import subprocess

from ddarts_ext.drawing.graph import HEIGHT, Graph
from ddarts_ext.drawing.laid_out import Box, Curve, Drawing

_INCH = 72.0
_SECONDS = 60


def installed() -> bool:
    """Whether there is a ``dot``."""
    return shutil.which("dot") is not None


def lay_out_by_dot(graph: Graph) -> Drawing:
    """Raises ValueError with what ``dot`` says where it fails."""
    answer = _ask(_text(graph))
    height = width = 0.0
    boxes: dict[int, Box] = {}
    curves: list[Curve] = []
    faded = {(link.source, link.target): link.faded for link in graph.links}
    for line in answer.splitlines():
        words = line.split()
        if words[0] == "graph":
            width, height = (_INCH * float(word) for word in words[2:4])
        elif words[0] == "node":
            index = int(words[1][1:])
            x, y = (_INCH * float(word) for word in words[2:4])
            boxes[index] = Box(graph.nodes[index], x, height - y, HEIGHT)
        elif words[0] == "edge":
            source, target = int(words[1][1:]), int(words[2][1:])
            numbers = [_INCH * float(word) for word in words[4 : 4 + 2 * int(words[3])]]
            points = tuple((x, height - y) for x, y in zip(numbers[::2], numbers[1::2], strict=True))
            curves.append(Curve(points, faded[source, target]))
    return Drawing(width, height, tuple(boxes[index] for index in sorted(boxes)), tuple(curves))


def _text(graph: Graph) -> str:
    lines = [
        "digraph {",
        'rankdir=LR; nodesep=0.12; ranksep=0.36; node [shape=box, fixedsize=true, label=""];',
        "edge [arrowhead=none, tailport=e, headport=w];",
    ]
    for index, node in enumerate(graph.nodes):
        lines.append(f"n{index} [width={node.width / _INCH:.4f}, height={HEIGHT / _INCH:.4f}];")
    lines += [f"n{link.source} -> n{link.target};" for link in graph.links]
    for place, nodes in (("source", graph.first), ("sink", graph.last)):
        if nodes:
            lines.append(f"{{rank={place}; {' '.join(f'n{node};' for node in nodes)}}}")
    return "\n".join([*lines, "}"])


def _ask(text: str) -> str:
    try:
        done = subprocess.run(
            ["dot", "-Tplain"], input=text, capture_output=True, text=True, timeout=_SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ValueError(f"plot: dot must lay out the cells, but: {error}") from error
    if done.returncode:
        raise ValueError(f"plot: dot must lay out the cells, but it says: {' '.join(done.stderr.split())[:200]}")
    return done.stdout

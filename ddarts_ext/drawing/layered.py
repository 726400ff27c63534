"""A layout of our own: columns from left to right, ordered for few crossings (Sugiyama, Tagawa, Toda 1981).

Every box stands in a column. A link that passes a column has a slot of its own in it, between the boxes, so that no
line ever runs through a box or its text.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise

from ddarts_ext.drawing.columns import heights, ordered
from ddarts_ext.drawing.graph import HEIGHT, Graph
from ddarts_ext.drawing.laid_out import Box, Curve, Drawing, Point

_GAP = 12.0
"""Between the boxes of a column."""
_SLOT = 4.0
"""Height of a slot that a line passes through."""
_BETWEEN = 26.0
"""Least room between two columns; more where lines go far up or down."""


@dataclass
class Columns:
    """items: per column the nodes and slots in it; numbers from len(graph.nodes) on are slots. links: per gap between
    columns, (item left, item right). chains: per link of the graph, its items from source to target."""

    items: list[list[int]]
    links: list[list[tuple[int, int]]]
    chains: list[list[int]] = field(default_factory=list)


def lay_out_in_columns(graph: Graph) -> Drawing:
    """Places for all nodes and links of a graph."""
    columns = _columns(graph)
    columns.items = ordered(columns.items, columns.links)
    count = len(graph.nodes)
    tall = [[HEIGHT if item < count else _SLOT for item in column] for column in columns.items]
    y = heights(columns.items, tall, columns.links, _GAP)
    place = {item: index for index, column in enumerate(columns.items) for item in column}
    wide = [max([graph.nodes[item].width for item in column if item < count], default=0.0) for column in columns.items]
    left, x = [0.0], 0.0
    for gap, links in enumerate(columns.links):
        far = max((abs(y[one] - y[two]) for one, two in links), default=0.0)
        x += wide[gap] + _BETWEEN + min(50.0, 0.2 * far)
        left.append(x)
    boxes = tuple(
        Box(node, left[place[index]] + wide[place[index]] / 2, y[index], HEIGHT)
        for index, node in enumerate(graph.nodes)
    )
    curves = []
    for link, chain in zip(graph.links, columns.chains, strict=True):
        ends = [
            (boxes[item].x - boxes[item].width / 2, boxes[item].x + boxes[item].width / 2)
            if item < count
            else (left[place[item]], left[place[item]] + wide[place[item]])
            for item in chain
        ]
        curves.append(Curve(_curve(ends, [y[item] for item in chain]), link.faded))
    return Drawing(x + wide[-1], _total(tall, columns.items, y), boxes, tuple(curves))


def _total(tall: list[list[float]], items: list[list[int]], y: dict[int, float]) -> float:
    return max(y[item] + high / 2 for column, some in zip(items, tall, strict=True) for item, high in
               zip(column, some, strict=True))  # fmt: skip


def _curve(ends: list[tuple[float, float]], y: list[float]) -> tuple[Point, ...]:
    """Level through every column, and level where it enters and leaves one."""
    points: list[Point] = [(ends[0][1], y[0])]
    for index in range(1, len(ends)):
        (_, x0), (x1, out) = ends[index - 1], ends[index]
        middle = (x0 + x1) / 2
        points += [(middle, y[index - 1]), (middle, y[index]), (x1, y[index])]
        if index < len(ends) - 1:
            points += [(x1, y[index]), (out, y[index]), (out, y[index])]
    return tuple(points)


def _columns(graph: Graph) -> Columns:
    rank = _ranks(graph)
    last = max(rank, default=0)
    columns = Columns([[] for _ in range(last + 1)], [[] for _ in range(last)])
    for node, column in enumerate(rank):
        columns.items[column].append(node)
    following = len(graph.nodes)
    for link in graph.links:
        chain = [link.source]
        for column in range(rank[link.source] + 1, rank[link.target]):
            columns.items[column].append(following)
            chain.append(following)
            following += 1
        chain.append(link.target)
        for step, pair in enumerate(pairwise(chain)):
            columns.links[rank[link.source] + step].append(pair)
        columns.chains.append(chain)
    return columns


def _ranks(graph: Graph) -> list[int]:
    """The column of every node: after all that link to it. What stands on a link takes the emptiest column between."""
    rank = [0] * len(graph.nodes)
    for node in graph.order():
        before = [rank[link.source] for link in graph.links if link.target == node]
        rank[node] = max(before, default=-1) + 1
    for node in graph.last:
        rank[node] = max(rank)
    used = [0] * (max(rank, default=0) + 1)
    for node, column in enumerate(rank):
        used[column] += not graph.nodes[node].between
    for node in sorted((n for n, known in enumerate(graph.nodes) if known.between), key=lambda n: rank[n]):
        source = max((rank[link.source] for link in graph.links if link.target == node), default=-1)
        target = min((rank[link.target] for link in graph.links if link.source == node), default=source + 2)
        # Columns of boxes and of what stands between them take turns.
        free = [column for column in range(source + 1, target) if (column - source) % 2] or [source + 1]
        rank[node] = min(free, key=lambda column: (used[column], -column))
        used[rank[node]] += 1
    return rank

"""Cells are laid out so that they can be read: no box on another, no line through a box, everything drawn."""

from __future__ import annotations

import itertools
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ddarts_ext import Genotype
from ddarts_ext.drawing import Box, Curve, Drawing, Graph, Link, Node, lay_out, to_svg
from ddarts_ext.drawing.columns import crossings, ordered
from ddarts_ext.drawing.graphviz import installed
from ddarts_ext.genotype.files import architectures
from ddarts_ext.genotype.pictures import cell_drawings, cell_graph, groups

NB201 = "|nor_conv_3x3~0|+|none~0|skip_connect~1|+|nor_conv_1x1~0|skip_connect~1|avg_pool_3x3~2|"


def graphs() -> st.SearchStrategy[Graph]:
    """Cells of up to 7 nodes with any ops between them, and what is joined."""

    def graph(steps: int, pairs: list[tuple[int, int]]) -> Graph:
        nodes = [Node(str(number), "node") for number in range(steps + 2)]
        links = []
        for one, two in pairs:
            source, target = sorted((one % (steps + 2), two % (steps + 2)))
            if source == target:
                continue
            links += [Link(source, len(nodes)), Link(len(nodes), target)]
            nodes.append(Node("some_op_3x3", "convolution", between=True))
        output = len(nodes)
        nodes.append(Node("output", "output"))
        links += [Link(number, output) for number in range(2, steps + 2)]
        return Graph("", tuple(nodes), tuple(links), (0, 1), (output,))

    pairs = st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), max_size=16)
    return st.builds(graph, st.integers(1, 5), pairs)


def along(curve: Curve) -> np.ndarray:
    """Points of a curve, [n, 2]."""
    t = np.linspace(0, 1, 40)[:, None]
    points = np.array(curve.points)
    pieces = [points[i : i + 4] for i in range(0, len(points) - 1, 3)]
    return np.concatenate(
        [(1 - t) ** 3 * a + 3 * (1 - t) ** 2 * t * b + 3 * (1 - t) * t**2 * c + t**3 * d for a, b, c, d in pieces]
    )


def overlap(one: Box, two: Box) -> bool:
    return (
        abs(one.x - two.x) < (one.width + two.width) / 2 - 0.01
        and abs(one.y - two.y) < (one.height + two.height) / 2 - 0.01
    )


def check(drawing: Drawing, *, lines: bool = True) -> None:
    for one, two in itertools.combinations(drawing.boxes, 2):
        assert not overlap(one, two), (one, two)
    for box in drawing.boxes:
        assert box.width / 2 <= box.x <= drawing.width - box.width / 2
        assert box.height / 2 <= box.y <= drawing.height - box.height / 2 + 0.01
    if not lines:
        return
    for curve in drawing.curves:
        points = along(curve)
        for box in drawing.boxes:
            inside = (np.abs(points[:, 0] - box.x) < box.width / 2 - 1) & (
                np.abs(points[:, 1] - box.y) < box.height / 2 - 1
            )
            assert not inside.any(), (curve, box)


@settings(max_examples=60, deadline=None)
@given(graphs())
def test_nothing_lies_on_anything_else(graph: Graph) -> None:
    check(lay_out(graph, "own"))


@pytest.mark.parametrize("name", [*architectures(), NB201])
def test_every_published_cell_is_drawn(name: str) -> None:
    genotype = Genotype.load(name)
    drawings = cell_drawings(genotype)
    assert len(drawings) == len(groups(genotype))
    for drawing, places in zip(drawings, groups(genotype).values(), strict=True):
        check(drawing)
        texts = [box.node.text for box in drawing.boxes if box.node.between]
        assert sorted(texts) == sorted(entry.op for entry in genotype.cells[places[0]] if entry.op != "none")
        faded = sum(box.node.faded for box in drawing.boxes if box.node.between)
        assert faded == len(texts) - len([entry for entry in genotype.used(places[0]) if entry.op != "none"])
        boxes = [(box.x, box.width, box.node) for box in drawing.boxes]
        for curve in drawing.curves:
            # A curve begins at the right side of a box and ends at the left side of another.
            assert any(abs(x + width / 2 - curve.points[0][0]) < 0.01 for x, width, _ in boxes)
            assert any(abs(x - width / 2 - curve.points[-1][0]) < 0.01 for x, width, _ in boxes)


@pytest.mark.skipif(not installed(), reason="Graphviz (its program dot) is not installed")
@pytest.mark.parametrize("name", ["DARTS_V2", "InceptionV4", NB201])
def test_graphviz_draws_the_same_cells(name: str) -> None:
    genotype = Genotype.load(name)
    for own, other in zip(cell_drawings(genotype, "own"), cell_drawings(genotype, "graphviz"), strict=True):
        check(other, lines=False)
        assert [box.node for box in own.boxes] == [box.node for box in other.boxes]
        assert len(own.curves) == len(other.curves)


def test_a_cell_without_ops_is_drawn() -> None:
    genotype = Genotype(genes=((), (("skip_connect", 2, 0),)), concat=(2,), reductions=())
    for drawing in cell_drawings(genotype):
        check(drawing)


def test_what_has_no_part_in_the_output_is_faded() -> None:
    genotype = Genotype(genes=((("skip_connect", 2, 0), ("none", 2, 1), ("sep_conv_3x3", 4, 3)),), concat=(2,), steps=3)
    graph = cell_graph(genotype, 0, "")
    assert {node.text: node.faded for node in graph.nodes} == {
        "0: cell k-2": False,
        "1: cell k-1": True,
        "2": False,
        "3": True,
        "4": True,
        "skip_connect": False,
        "sep_conv_3x3": True,
        "output": False,
    }


def test_crossings_are_counted_and_removed() -> None:
    links = [[(0, 4), (1, 3), (2, 3), (2, 4)]]
    assert crossings([[0, 1, 2], [3, 4]], links) == 2
    assert crossings(ordered([[0, 1, 2], [3, 4]], links), links) == 0


def test_svg_is_xml_and_its_texts_are_escaped() -> None:
    node = Node("<script>&\"'", "no such kind", between=True)
    text = to_svg(lay_out(Graph("<b>", (node,), ())), '"><script>')
    root = ElementTree.fromstring(text)
    assert {element.tag.rpartition("}")[2] for element in root.iter()} <= {"svg", "g", "rect", "text", "path"}
    assert [element.text for element in root.iter() if element.text and element.text.strip()] == ["<script>&\"'", "<b>"]


def test_circles_and_unknown_layouts_are_refused() -> None:
    nodes = (Node("a", "node"), Node("b", "node"))
    with pytest.raises(ValueError, match="must make no circle"):
        Graph("", nodes, (Link(0, 1), Link(1, 0)))
    with pytest.raises(ValueError, match=r"between nodes 0\.\.1, got 0 -> 2"):
        Graph("", nodes, (Link(0, 2),))
    with pytest.raises(ValueError, match="layout must be one of auto, graphviz, own, got 'dot'"):
        lay_out(Graph("", nodes, ()), "dot")  # type: ignore[arg-type]

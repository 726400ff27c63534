"""How much of a search cell its discrete form keeps: edges for every node or for the whole cell, ops on an edge."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ddarts_ext.spaces import Space


@dataclass(frozen=True)
class Configuration:
    """The target configuration of a cell (DA2S).

    edges_per_node: for every node, how many of its incoming edges stay; two each, or as many as there are, when empty
    (the balanced target). edges_per_cell: so many edges of the whole cell, wherever they are, at least one into every
    node; 0 for a target per node. ops_per_edge: ops that stay on each of them.

    A space that keeps every edge (NAS-Bench-201) has one configuration: all edges, an op on each.
    """

    edges_per_node: tuple[int, ...] = ()
    edges_per_cell: int = 0
    ops_per_edge: int = 1

    def check(self, space: Space, name: str = "configuration") -> None:
        """Raises ValueError, naming what, where cells of ``space`` cannot have it."""
        if space.selection == "every_edge" and self != Configuration():
            raise ValueError(f"{name}: edges and ops must not be chosen in space {space.name}, which keeps every edge")
        if self.edges_per_node and self.edges_per_cell:
            raise ValueError(
                f"{name}: edges_per_node or edges_per_cell must be left out, got {list(self.edges_per_node)} and "
                f"{self.edges_per_cell}"
            )
        if self.edges_per_node:
            if len(self.edges_per_node) != len(space.nodes):
                raise ValueError(
                    f"{name}: edges_per_node must have a number for each of {len(space.nodes)} nodes, "
                    f"got {list(self.edges_per_node)}"
                )
            for node, count in zip(space.nodes, self.edges_per_node, strict=True):
                if isinstance(count, bool) or not isinstance(count, int) or not 1 <= count <= node:
                    raise ValueError(f"{name}: edges_per_node must be in 1..{node} for node {node}, got {count!r}")
        least, most = len(space.nodes), len(space.edges)
        if self.edges_per_cell and not least <= self.edges_per_cell <= most:
            raise ValueError(f"{name}: edges_per_cell must be in {least}..{most}, got {self.edges_per_cell}")
        if not 1 <= self.ops_per_edge <= len(space.choices):
            raise ValueError(f"{name}: ops_per_edge must be in 1..{len(space.choices)}, got {self.ops_per_edge}")

    def kept(self, space: Space) -> tuple[int, ...]:
        """How many edges into every node stay; with a target for the cell, how many may."""
        if space.selection == "every_edge":
            return space.nodes
        if self.edges_per_cell:
            spare = self.edges_per_cell - len(space.nodes)
            return tuple(min(node, 1 + spare) for node in space.nodes)
        return self.edges_per_node or tuple(min(2, node) for node in space.nodes)

    def competing(self, space: Space) -> tuple[int, ...]:
        """The nodes of which some edges go: those whose edges have weights to be compared."""
        if self.edges_per_cell:
            return tuple(node for node in space.nodes if node > 1)
        return tuple(node for node, kept in zip(space.nodes, self.kept(space), strict=True) if kept < node)

    def edges(self, space: Space, strengths: Sequence[float]) -> tuple[tuple[int, ...], ...]:
        """Per node the edges that stay, the strongest first; ties go to the lower source. strengths: one per edge,
        compared within a node, or within the cell where the target is the cell's."""

        def ranked(edges: Sequence[int]) -> list[int]:
            return sorted(edges, key=lambda edge: -strengths[edge])

        incoming = [ranked(space.incoming(node)) for node in space.nodes]
        if not self.edges_per_cell:
            return tuple(tuple(found[:k]) for found, k in zip(incoming, self.kept(space), strict=True))
        firsts = [found[0] for found in incoming]
        others = ranked(sorted({*range(len(space.edges))} - {*firsts}))
        chosen = {*firsts, *others[: self.edges_per_cell - len(firsts)]}
        return tuple(tuple(edge for edge in found if edge in chosen) for found in incoming)

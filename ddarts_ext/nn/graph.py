"""The part of a search cell that all spaces share: states, ops on every edge, one sum per node."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ddarts_ext.nn.forward_pass import NodeKey, Pass
from ddarts_ext.nn.mixed import Launch, MixedNode, launches
from ddarts_ext.nn.primitives import Primitive, Style, primitive
from ddarts_ext.spaces import Space


def search_style(space: Space) -> Style:
    """The layers of the search network of a space."""
    return Style(pool_norm=space.pool_norm, conv_bias=space.conv_bias, track=space.track_statistics)


class SearchGraph(nn.Module):
    """Every op on every edge of a cell; node j = sum of all branches of its incoming edges, in one op.

    All ops on all edges that leave one state run together, by family, as soon as the state is there.
    """

    def __init__(self, space: Space, channels: int, *, reduction: bool = False, index: int = 0) -> None:
        super().__init__()
        self.space, self.channels, self.reduction, self.index = space, channels, reduction, index
        style = search_style(space)
        self.edges = nn.ModuleList()
        for edge in space.edges:
            stride = space.stride(edge, reduction)
            found = ((name, primitive(name, channels, stride, style)) for name in space.ops)
            self.edges.append(nn.ModuleDict({name: op for name, op in found if op is not None}))
        self.nodes = nn.ModuleList(
            MixedNode(channels, [op.normalized for _, op in self._branches(target)], track=style.track)
            for target in space.nodes
        )
        self._plan()

    def states(self, inputs: Sequence[Tensor], weights: Tensor, p: Pass) -> list[Tensor]:
        """The states of all nodes, inputs first.

        inputs: one [groups * B, C, H, W] per input node. weights: [E, O], or [groups, E, O] where groups differ.
        """
        space = self.space
        tables = self._tables(weights, p)
        branches: list[list[Tensor | None]] = [[None] * size for size in self._sizes]
        states = list(inputs)
        for source in range(space.inputs + space.steps - 1):
            for launch in self._launches[source]:
                for (node, slot), branch in launch.run(states[source], p):
                    branches[node][slot] = branch
            node = source + 1 - space.inputs
            if node >= 0:
                found = [branch for branch in branches[node] if branch is not None]
                branches[node] = []
                states.append(self._sum(node, found, tables[node], p) if found else self._nothing(inputs[0]))
        return states

    def prune(self, mask: Tensor | Sequence[Sequence[bool]]) -> None:
        """Remove the ops where ``mask`` [E, O] is false; they are not computed any more and have no parameters.

        Their weights keep their place in the table and get a zero gradient. A node may lose all its branches.
        """
        table = torch.as_tensor(mask, dtype=torch.bool, device="cpu")
        expected = [len(self.space.edges), len(self.space.ops)]
        if list(table.shape) != expected:
            raise ValueError(f"prune: mask must be [E,O]={expected}, got {list(table.shape)}")
        flat = table.flatten().tolist()
        for node, target in enumerate(self.space.nodes):
            columns = [column for column, _ in self._branches(target)]
            kept = [row for row, column in enumerate(columns) if flat[column]]
            mixed = self.nodes[node]
            assert isinstance(mixed, MixedNode)
            mixed.keep(kept)
        for e, edge in enumerate(self.edges):
            assert isinstance(edge, nn.ModuleDict)
            for k, name in enumerate(self.space.ops):
                if name in edge and not table[e, k]:
                    del edge[name]
        self._plan()

    def present(self) -> Tensor:
        """Bool [E, O]: the ops that are computed (never ``none``)."""
        table = torch.zeros(len(self.space.edges) * len(self.space.ops), dtype=torch.bool)
        table[[column for columns in self._columns for column in columns]] = True
        return table.view(len(self.space.edges), len(self.space.ops))

    def _branches(self, target: int) -> list[tuple[int, Primitive]]:
        """(index in the flattened [E, O] table, op) of every branch into a node, edge-major."""
        found = []
        for e in self.space.incoming(target):
            edge = self.edges[e]
            assert isinstance(edge, nn.ModuleDict)
            for k, name in enumerate(self.space.ops):
                if name in edge:
                    op = edge[name]
                    assert isinstance(op, Primitive)
                    found.append((e * len(self.space.ops) + k, op))
        return found

    def _plan(self) -> None:
        """Lay out which ops run together and where their outputs go."""
        space = self.space
        leaving: list[list[tuple[tuple[int, int], Primitive]]] = [[] for _ in range(space.inputs + space.steps)]
        self._columns: list[tuple[int, ...]] = []
        for node, target in enumerate(space.nodes):
            found = self._branches(target)
            self._columns.append(tuple(column for column, _ in found))
            for slot, (column, op) in enumerate(found):
                leaving[space.edges[column // len(space.ops)].source].append(((node, slot), op))
        self._launches: list[tuple[Launch[tuple[int, int]], ...]] = [launches(entries) for entries in leaving]
        self._sizes = [len(columns) for columns in self._columns]
        active = [column for columns in self._columns for column in columns]
        whole = len(active) == len(space.edges) * len(space.ops)
        self.register_buffer(
            "active", None if whole else torch.tensor(active, dtype=torch.long, device=self._device()), persistent=False
        )

    def _device(self) -> torch.device | None:
        """Where the cell is; a cell that was pruned to ops without weights knows it by what it multiplied before."""
        tensors = (*self.parameters(), *self.buffers())
        return tensors[0].device if tensors else None

    def _tables(self, weights: Tensor, p: Pass) -> tuple[Tensor, ...]:
        """The weights of every node's branches, [groups, K] each."""
        shape = (len(self.space.edges), len(self.space.ops))
        if weights.shape[-2:] != shape or weights.dim() not in (2, 3):
            raise ValueError(f"Cell: weights must be [E,O]={list(shape)} or [G,E,O], got {list(weights.shape)}")
        flat = weights.reshape(-1, shape[0] * shape[1])
        if flat.shape[0] != p.groups:
            if flat.shape[0] != 1:
                raise ValueError(f"Cell: weights must be for {p.groups} groups, got {flat.shape[0]}")
            flat = flat.expand(p.groups, -1)
        active = self.active
        if active is not None:
            assert isinstance(active, Tensor)
            flat = flat.index_select(1, active)
        return torch.split(flat, self._sizes, 1)

    def _sum(self, node: int, branches: list[Tensor], weights: Tensor, p: Pass) -> Tensor:
        key = NodeKey(self.index, self.space.nodes[node], self._columns[node])
        out: Tensor = self.nodes[node](branches, weights, p, key)
        return out

    def _nothing(self, x: Tensor) -> Tensor:
        """The state of a node without branches."""
        stride = 2 if self.reduction else 1
        return torch.zeros_like(x[:, :, ::stride, ::stride])

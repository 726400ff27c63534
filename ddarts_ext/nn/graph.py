"""The part of a search cell that all spaces share: states, ops on every edge, one sum per node."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from ddarts_ext.nn.forward_pass import NodeKey, Pass
from ddarts_ext.nn.idle_bias import with_idle_biases
from ddarts_ext.nn.mixed import Launch, MixedNode, PartialSum, launches, run_all
from ddarts_ext.nn.outgoing import Entry, Outgoing, applies, split
from ddarts_ext.nn.partial import Passing, check_partial
from ddarts_ext.nn.primitives import Primitive, Style, primitive
from ddarts_ext.spaces import Space


def search_style(space: Space, *, drop_skips: bool = False) -> Style:
    """The layers of the search network of a space."""
    return Style(
        pool_norm=space.pool_norm, conv_bias=space.conv_bias, track=space.track_statistics, drop_skips=drop_skips
    )


@dataclass(frozen=True)
class _Plan:
    """Which ops of a graph run together.

    together: per source the ops that one call computes and sums. launches: per source the others, family by family.
    rest: per node the places of its branches that come from them. order, sizes: the columns of the flattened [E, O]
    weights as a buffer's name, and how many belong to each source and then to each node.
    """

    together: tuple[Outgoing | None, ...]
    launches: tuple[tuple[Launch[tuple[int, int]], ...], ...]
    rest: tuple[tuple[int, ...], ...]
    order: str
    sizes: list[int]


class SearchGraph(nn.Module):
    """Every op on every edge of a cell; node j = sum of all branches of its incoming edges, in one op.

    All ops on all edges that leave one state run together, by family, as soon as the state is there.
    partial: k, of which ops see every k-th part of the channels and the rest passes them by (see :mod:`.partial`).
    drop_skips: skip connections at stride 1 are dropped out where a pass says so.
    """

    def __init__(
        self,
        space: Space,
        channels: int,
        *,
        reduction: bool = False,
        index: int = 0,
        partial: int = 1,
        drop_skips: bool = False,
    ) -> None:
        super().__init__()
        check_partial(type(self).__name__, channels, partial)
        self.space, self.channels, self.reduction, self.index = space, channels, reduction, index
        self.partial = partial
        channels //= partial
        style = search_style(space, drop_skips=drop_skips)
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
        if p.only is not None:
            return self._states_of(p.only[self.index], inputs, weights, p)
        plan = self._by_edge if applies(inputs[0], p) and not self._synchronised() else self._by_node
        tables = self._tables(weights, plan, p)
        nodes = [node for node in self.nodes if isinstance(node, MixedNode)]
        branches: list[dict[int, Tensor]] = [{} for _ in nodes]
        sums = [PartialSum() for _ in nodes]
        states = list(inputs)
        passing = self._passing(weights, p)
        for source, together in enumerate(plan.together):
            seen = states[source] if passing is None else passing.take(states[source])
            if together is not None:
                together.run(seen, tables[source], nodes, sums, p)
            outputs, seen = run_all(plan.launches[source], seen, p)
            if passing is None:
                states[source] = seen
            for (node, slot), branch in outputs:
                branches[node][slot] = branch
            node = source + 1 - self.space.inputs
            if node >= 0:
                slots = plan.rest[node]
                found = [branches[node].pop(slot) for slot in slots]
                total = self._sum(node, sums[node], slots, found, tables[len(plan.together) + node], p, inputs[0])
                states.append(total if passing is None else passing.join(node, total))
        if self.space.conv_bias:
            states[-1] = with_idle_biases(states[-1], self)
        return states

    def _sum(
        self,
        node: int,
        partial: PartialSum,
        slots: Sequence[int],
        branches: list[Tensor],
        weights: Tensor,
        p: Pass,
        like: Tensor,
    ) -> Tensor:
        mixed = self.nodes[node]
        assert isinstance(mixed, MixedNode)
        if partial.total is not None:
            return mixed.complete(partial, slots, branches, weights, p)
        if branches:
            out: Tensor = mixed(branches, weights, p, NodeKey(self.index, self.space.nodes[node], self._columns[node]))
            return out
        return self._nothing(like)

    def _states_of(
        self, only: Sequence[Sequence[bool]], inputs: Sequence[Tensor], weights: Tensor, p: Pass
    ) -> list[Tensor]:
        """The states where the ops outside ``only`` [E][O] weigh 0: they are not computed."""
        chosen = [flag for row in only for flag in row]
        flat = self._flat(weights, p)
        nodes = [node for node in self.nodes if isinstance(node, MixedNode)]
        branches: list[dict[int, Tensor]] = [{} for _ in nodes]
        states, passing = list(inputs), self._passing(weights, p)
        for source, entries in enumerate(self._leaving):
            seen = states[source] if passing is None else passing.take(states[source])
            found = [entry for entry in entries if chosen[self._columns[entry[0][0]][entry[0][1]]]]
            for launch in launches(found):
                for (node, slot), branch in launch.run([seen] * launch.reads, p):
                    branches[node][slot] = branch
            node = source + 1 - self.space.inputs
            if node >= 0:
                slots = sorted(branches[node])
                total = self._nothing(inputs[0])
                if slots:
                    columns = [self._columns[node][slot] for slot in slots]
                    total = nodes[node].some(slots, [branches[node][slot] for slot in slots], flat[:, columns], p)
                states.append(total if passing is None else passing.join(node, total))
        if self.space.conv_bias:
            states[-1] = with_idle_biases(states[-1], self)
        return states

    def _nothing(self, like: Tensor) -> Tensor:
        stride = 2 if self.reduction else 1
        return torch.zeros_like(like[:, : self.channels // self.partial, ::stride, ::stride])

    def _passing(self, weights: Tensor, p: Pass) -> Passing | None:
        """What passes the ops by, where they see some of the channels."""
        if self.partial == 1:
            return None
        how = {"reduction": self.reduction, "weights": weights, "groups": p.groups}
        return Passing(self.space, self.channels, self.partial, **how)  # type: ignore[arg-type]

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

    def stacked(self) -> Iterator[list[nn.Parameter]]:
        """Weights that are stacked where every launch counts, in their order."""
        for source in self._by_node.launches:
            for launch in source:
                yield from launch.family.stacked(launch.members)

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
        leaving: list[list[Entry]] = [[] for _ in range(space.inputs + space.steps - 1)]
        self._columns: list[tuple[int, ...]] = []
        for node, target in enumerate(space.nodes):
            found = self._branches(target)
            self._columns.append(tuple(column for column, _ in found))
            for slot, (column, op) in enumerate(found):
                leaving[space.edges[column // len(space.ops)].source].append(((node, slot), op))
        self._leaving = leaving
        self._by_node = self._layout("by_node", [(None, entries) for entries in leaving])
        self._by_edge = self._layout("by_edge", [split(entries) for entries in leaving])

    def _layout(self, name: str, leaving: Sequence[tuple[Outgoing | None, Sequence[Entry]]]) -> _Plan:
        """The plan for what leaves every source, together and on its own; its order of columns becomes a buffer."""
        together = [outgoing for outgoing, _ in leaving]
        rest: list[list[int]] = [[] for _ in self._columns]
        for _, entries in leaving:
            for (node, slot), _ in entries:
                rest[node].append(slot)
        places = [[] if group is None else list(group.slots.items()) for group in together]
        places += [[(node, sorted(slots))] for node, slots in enumerate(rest)]
        order = [[self._columns[node][slot] for node, slots in pairs for slot in slots] for pairs in places]
        flat = [column for columns in order for column in columns]
        whole = flat == list(range(len(self.space.edges) * len(self.space.ops)))
        buffer = None if whole else torch.tensor(flat, dtype=torch.long, device=self._device())
        self.register_buffer(f"order_{name}", buffer, persistent=False)
        return _Plan(
            tuple(together),
            tuple(launches(entries) for _, entries in leaving),
            tuple(tuple(sorted(slots)) for slots in rest),
            f"order_{name}",
            [len(columns) for columns in order],
        )

    def _synchronised(self) -> bool:
        """Whether norms need the batches of other processes, which only whole nodes ask for."""
        return any(cast(MixedNode, node).running.processes is not None for node in self.nodes)

    def _device(self) -> torch.device | None:
        """Where the cell is; a cell that was pruned to ops without weights knows it by what it multiplied before."""
        tensors = (*self.parameters(), *self.buffers())
        return tensors[0].device if tensors else None

    def _tables(self, weights: Tensor, plan: _Plan, p: Pass) -> tuple[Tensor, ...]:
        """The weights of what a plan sums together, [groups, K] each: source by source, then node by node."""
        flat = self._flat(weights, p)
        order = getattr(self, plan.order)
        if order is not None:
            assert isinstance(order, Tensor)
            flat = flat.index_select(1, order)
        return torch.split(flat, plan.sizes, 1)

    def _flat(self, weights: Tensor, p: Pass) -> Tensor:
        """The weights of all ops, [groups, E * O]."""
        shape = (len(self.space.edges), len(self.space.ops))
        if weights.shape[-2:] != shape or weights.dim() not in (2, 3):
            raise ValueError(f"Cell: weights must be [E,O]={list(shape)} or [G,E,O], got {list(weights.shape)}")
        flat = weights.reshape(-1, shape[0] * shape[1])
        if flat.shape[0] != p.groups:
            if flat.shape[0] != 1:
                raise ValueError(f"Cell: weights must be for {p.groups} groups, got {flat.shape[0]}")
            flat = flat.expand(p.groups, -1)
        return flat

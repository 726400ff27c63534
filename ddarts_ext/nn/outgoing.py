"""The ops on the edges that leave one state, as far as one call computes them together with what they add to nodes."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ddarts_ext import ops
from ddarts_ext.nn.forward_pass import Pass
from ddarts_ext.nn.mixed import MixedNode, PartialSum
from ddarts_ext.nn.norm import elements_per_group, given_together, record_together
from ddarts_ext.nn.primitives import DepthwiseConv, Identity, Pool, Primitive
from ddarts_ext.ops.mixed_edges import serves

Entry = tuple[tuple[int, int], Primitive]
"""((node, place among the node's branches), op)."""


def joinable(op: Primitive) -> bool:
    """Whether :class:`Outgoing` can hold the op."""
    if isinstance(op, DepthwiseConv):
        return op.first.acting("bias") is None and (op.norm is None or op.norm.weight is None)
    return isinstance(op, (Identity, Pool))


def split(entries: Sequence[Entry]) -> tuple[Outgoing | None, list[Entry]]:
    """The ops of one state that run together, and the rest. Without convolutions nothing is gained: all are rest."""
    together = [entry for entry in entries if joinable(entry[1])]
    if not any(isinstance(op, DepthwiseConv) for _, op in together):
        return None, list(entries)
    return Outgoing(together), [entry for entry in entries if not joinable(entry[1])]


def applies(x: Tensor, p: Pass) -> bool:
    """Whether states like x are better summed edge by edge than node by node.

    An observer wants a node's branches all at once. Under autocast to another dtype than that of x they have several.
    """
    return p.observe is None and serves(x)


class Outgoing:
    """``mixed_edges`` for the ops ``entries``, which all read one state.

    slots: per node that they enter, in order, the places of its branches that are computed here.
    """

    def __init__(self, entries: Sequence[Entry]) -> None:
        entries = sorted(entries, key=lambda entry: entry[0])
        self.slots: dict[int, list[int]] = {}
        for (node, slot), _ in entries:
            self.slots.setdefault(node, []).append(slot)
        nodes, convolutions = list(self.slots), [op for _, op in entries if isinstance(op, DepthwiseConv)]
        longer = [(f, op) for f, op in enumerate(convolutions) if op.second is not None]
        numbers = iter(range(len(convolutions)))
        self._stages = [op.first for op in convolutions] + [op.second for _, op in longer if op.second is not None]
        self._norms = [op.norm for _, op in longer if op.norm is not None]
        self._edges = ops.Edges(
            targets=tuple(nodes.index(node) for (node, _), _ in entries),
            kinds=tuple(_kind(op) if _kind(op) < 0 else next(numbers) for _, op in entries),
            normalize=tuple(op.normalized for _, op in entries),
            dilations=tuple(op.first.dilation for op in convolutions),
            seconds=tuple(f for f, _ in longer),
            stride=max(op.stride for _, op in entries if isinstance(op, (DepthwiseConv, Pool))),
        )

    def run(self, x: Tensor, weights: Tensor, nodes: Sequence[MixedNode], sums: Sequence[PartialSum], p: Pass) -> None:
        """Add to the sums of all nodes what the ops make of x. weights: [groups, K], in the order of ``slots``."""
        previous = [sums[node].total for node in self.slots]
        started = any(total is not None for total in previous)
        so_far = [self._or_zeros(x, total) for total in previous] if started else []
        given: list[Tensor | None] = [None] * 4
        if p.statistics == "running" and nodes[0].running.track:
            rows = [nodes[node].running_rows(slots) for node, slots in self.slots.items()]
            given[:2] = (torch.cat(tables, 1) for tables in zip(*rows, strict=True))
            given[2:] = given_together(self._norms, p) if self._norms else [x.new_empty((1, 0, x.shape[1]))] * 2
        found = ops.mixed_edges(
            x, self._edges, [stage.depthwise for stage in self._stages], [stage.pointwise for stage in self._stages],
            weights, previous=so_far, mean=given[0], rstd=given[1], inner_mean=given[2], inner_rstd=given[3],
            eps=nodes[0].running.eps,
        )  # fmt: skip
        if self._norms:
            elements = elements_per_group(found.sums[0], p.groups)
            record_together(self._norms, found.inner_mean, found.inner_rstd, elements, p)
        sizes = [len(slots) for slots in self.slots.values()]
        tables = zip(torch.split(found.mean, sizes, 1), torch.split(found.rstd, sizes, 1), strict=True)
        for (node, slots), total, (mean, rstd) in zip(self.slots.items(), found.sums, tables, strict=True):
            sums[node].total = total
            sums[node].statistics.append((slots, mean, rstd))

    def _or_zeros(self, x: Tensor, total: Tensor | None) -> Tensor:
        if total is not None:
            return total
        stride = self._edges.stride
        return torch.zeros_like(x[:, :, ::stride, ::stride])


def _kind(op: Primitive) -> int:
    if isinstance(op, Pool):
        return ops.MAXIMUM if op.maximum else ops.AVERAGE
    return ops.SKIP if isinstance(op, Identity) else 0

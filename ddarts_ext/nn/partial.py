"""Partial channels (PC-DARTS, 1907.05737): ops see some of a state's channels, and the others pass them by."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from ddarts_ext import ops
from ddarts_ext.spaces import Space


class Passing:
    """What passes the ops of one cell by, in one pass.

    Edge e computes shuffle([f_e(a), q_e r]) of its state, split into its first ``channels`` // k channels a and the
    rest r, with f_e the mixed op and q_e the sum of the weights of its ops: 1 where they are a distribution, the weight
    of the edge where it has one. On an edge of stride 2, r is pooled by its maxima. As the shuffle is linear it is done
    once for a node, after the sums. weights: [E, O] or [groups, E, O].
    """

    def __init__(self, space: Space, channels: int, k: int, *, reduction: bool, weights: Tensor, groups: int) -> None:
        self._space, self._seen, self._k, self._reduction = space, channels // k, k, reduction
        edges = weights.sum(-1).reshape(-1, len(space.edges)).expand(groups, -1)
        self._weights = torch.split(edges, [len(space.incoming(node)) for node in space.nodes], 1)
        self._rest: list[Tensor] = []

    def take(self, state: Tensor) -> Tensor:
        """The channels [N, C / k, H, W] of the next state that its ops see; the others are kept."""
        seen, rest = torch.split(state, [self._seen, state.shape[1] - self._seen], 1)
        if self._reduction and len(self._rest) < self._space.inputs:
            # Odd sides are halved as convolutions do; the published code has even ones.
            rest = F.max_pool2d(rest, 2, 2, ceil_mode=True)
        self._rest.append(rest)
        return seen

    def join(self, node: int, total: Tensor) -> Tensor:
        """The state of a node from the sum [N, C / k, H, W] of its ops."""
        sources = self._rest[: self._space.nodes[node]]
        passed = ops.mixed_sum(sources, self._weights[node]).out
        return shuffled([total, *passed.to(total.dtype).chunk(self._k - 1, 1)])


def shuffled(parts: Sequence[Tensor]) -> Tensor:
    """k parts [N, C / k, H, W] -> [N, C, H, W] in channels-last: channel j k + g is channel j of part g."""
    return torch.stack([part.permute(0, 2, 3, 1) for part in parts], -1).flatten(3).permute(0, 3, 1, 2)


def check_partial(name: str, channels: int, k: int) -> None:
    """Raise ValueError where no k-th of the channels can be taken."""
    if k < 1 or channels % k:
        raise ValueError(f"{name}: partial must divide the {channels} channels, got {k}")

"""Terms that make a supernet decide while it is searched (DA2S): entropies, and how they grow with the epochs."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from ddarts_ext.search.edge_weights import EdgeWeights


def entropy(shares: Tensor) -> Tensor:
    """-sum p ln p over the last axis, whose entries sum to one. Where p is 0 so is its term, and no gradient is NaN."""
    return -(shares * shares.clamp_min(torch.finfo(shares.dtype).tiny).log()).sum(-1)


def op_entropy(weights: Tensor) -> Tensor:
    """[rows]: the entropies of the ops of every edge, weights [rows, E, O], summed over the edges of a row."""
    return entropy(weights).sum(-1)


def edge_entropy(edges: EdgeWeights, table: Tensor, count_weight: float) -> Tensor:
    """[rows]: the entropies of the edges into every competing node, and ``count_weight`` times the penalty for edges
    that are not as many as the target."""
    total = count_weight * edges.count(table)
    for shares in edges.shares(table):
        total = total + entropy(shares)
    return total


def _step(epoch: int, epochs: int) -> float:
    return min(3, 4 * epoch // epochs) / 3


_PLAIN: dict[str, Callable[[int, int], float]] = {
    "const": lambda e, E: 1.0,
    "linear": lambda e, E: (e - 1) / max(1, E - 1),
    "log": lambda e, E: math.log(e) / math.log(max(2, E)),
    "exp": lambda e, E: 2.0 ** (10 * (e - E) / E),
    "step": _step,
    "sigmoid": lambda e, E: 1 / (1 + math.exp(5 - 10 * e / E)),
}
CONTINUATIONS = (*_PLAIN, *(f"delayed_{name}" for name in _PLAIN), "late_linear")


def continuation(name: str, epoch: int, epochs: int, start: int = 0) -> float:
    """The strength of a term in epoch ``epoch`` of ``epochs``, both counted from 1.

    const: 1. linear: (e - 1)/(E - 1). log: ln e/ln E. exp: 2^(10 (e - E)/E). step: 0, 1/3, 2/3, 1 from quarter to
    quarter. sigmoid: 1/(1 + exp(5 - 10 e/E)). ``delayed_*``: 0 in the first ``start`` epochs, then the same of the
    epochs that are left; ``delayed_log`` divides by ln(E - start - 1), as published, and so ends a little above 1.
    late_linear: the linear one, moved by ``start`` epochs: max(0, e - 1 - start)/(E - 1).
    """
    if name == "late_linear":
        return max(0, epoch - 1 - start) / max(1, epochs - 1)
    kind = name.removeprefix("delayed_")
    if name not in CONTINUATIONS:
        raise ValueError(f"search: a continuation must be one of {', '.join(CONTINUATIONS)}, got {name!r}")
    if name == kind:
        return _PLAIN[kind](epoch, epochs)
    if epoch <= start:
        return 0.0
    if kind == "log":
        return math.log(epoch - start) / math.log(max(2, epochs - start - 1))
    return _PLAIN[kind](epoch - start, epochs - start)

"""How far the op weights of a search have come to a decision."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ddarts_ext.genotype import discretize
from ddarts_ext.spaces import Space

DOMINANT = 0.9
DECIDED = (0.15, 0.85)


def decisions(weights: Tensor, space: Space, read: Tensor | None = None) -> dict[str, float]:
    """Figures of op weights [cells, E, O], for the history.

    dominant: how many weights are above 0.9. decided: the share of weights below 0.15 or above 0.85. entropy: of the
    weights of an edge, scaled to sum to one, in nats, mean over all edges (ln O where all ops weigh the same). spread:
    standard deviation of the weights. skips: skip connections in the architecture that the rule ``darts`` reads, from
    ``read`` where that is other than the weights.
    """
    weights = weights.detach().double().cpu()
    share = weights / weights.sum(-1, keepdim=True).clamp_min(1e-30)
    entropy = -(share * share.clamp_min(1e-30).log()).sum(-1).mean()
    decided = (weights < DECIDED[0]) | (weights > DECIDED[1])
    genotype = discretize(weights if read is None else read, space, "darts")
    return {
        "dominant": int((weights > DOMINANT).sum()),
        "decided": float(decided.double().mean()),
        "entropy": float(entropy),
        "spread": float(weights.std(correction=0)),
        "skips": sum(entry.op == "skip_connect" for cell in genotype.cells for entry in cell),
    }


def decisiveness(weights: Tensor, space: Space) -> str:
    """How decisive op weights [cells, E, O] are, in words: the gap between the best and the second op of an edge, and
    the entropy, both as means over the edges."""
    weights = weights.detach().double().cpu()
    choices = torch.tensor(space.choices)
    best = weights[..., choices].topk(min(2, len(choices)), -1).values
    gap = float((best[..., 0] - best[..., -1]).mean())
    figures = decisions(weights, space)
    return (
        f"the best op of an edge leads by {gap:.3f} in the mean, entropy {figures['entropy']:.3f} "
        f"of at most {torch.tensor(float(len(space.ops))).log():.3f}"
    )


def one_hot(genotype_cells: Any, space: Space) -> Tensor:
    """Op weights [cells, E, O] of a genotype's cells: 1 where the op is present, else 0."""
    return torch.stack([torch.from_numpy(space.table(cell)) for cell in genotype_cells]).double()

"""Terms of the loss of the alphas that follow from the alphas alone."""

from __future__ import annotations

import torch
from torch import Tensor

from ddarts_ext.search.architecture import ArchitectureParameters
from ddarts_ext.search.cost import ExpectedCost
from ddarts_ext.search.entropy import edge_entropy, op_entropy
from ddarts_ext.search.methods import Objectives
from ddarts_ext.search.samplers import anchor_divergence


def beta_decay(table: Tensor) -> Tensor:
    """[rows]: the mean over the edges of ln sum exp a, of alphas [rows, E, O] (beta-DARTS, 2203.01665): the
    larger an op's weight, the more its alpha is held back."""
    return torch.logsumexp(table, -1).mean(-1)


def terms(
    architecture: ArchitectureParameters, leaf: Tensor, objectives: Objectives, cost: ExpectedCost | None = None
) -> dict[str, Tensor]:
    """The values [rows] of those that an objective has, by name, as functions of ``leaf``; without their strengths.
    cost: of the architecture, where there is a budget."""
    alphas, edges = architecture.alphas(leaf), architecture.edge_weights
    found: dict[str, Tensor] = {}
    if objectives.op_entropy_weight:
        found["op_entropy"] = op_entropy(architecture.relax(alphas))
    if objectives.edge_entropy_weight and edges is not None:
        found["edge_entropy"] = edge_entropy(edges, leaf[..., -1], objectives.edge_count_weight)
    if objectives.beta_decay_weight:
        found["beta_decay"] = beta_decay(architecture.left(alphas))
    if objectives.anchor_weight:
        found["anchor"] = anchor_divergence(alphas)
    if cost is not None:
        found["cost"] = cost.at(architecture, leaf)
    return found

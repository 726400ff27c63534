"""Op weights that are drawn in every pass instead of computed: samplers, with the gradients that they give the alphas.

Draws come from the generator that is handed in, and nothing branches on a value. Add a sampler by adding an entry.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

SMALLEST_CONCENTRATION = 1e-3
"""Of the Dirichlet distribution: far below, samples and their gradients are no longer finite in single precision."""


def mode(table: Tensor) -> Tensor:
    """1 where an op's alpha is the largest of its edge, else 0."""
    return torch.zeros_like(table).scatter(-1, table.argmax(-1, keepdim=True), 1.0)


def concentration(table: Tensor) -> Tensor:
    """elu(a) + 1, at least 0.001 (DrNAS): 1 at a = 0, where all weights of an edge are equally likely."""
    return (F.elu(table) + 1).clamp_min(SMALLEST_CONCENTRATION)


def mean_of_dirichlet(table: Tensor) -> Tensor:
    """The expected op weights."""
    found = concentration(table)
    return found / found.sum(-1, keepdim=True)


def concrete(table: Tensor, temperature: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """softmax((ln p + G) / temperature), p = softmax(a), with Gumbel noise G (SNAS): differentiable as it is."""
    return torch.softmax((torch.log_softmax(table, -1) + _gumbel(table, generator)) / temperature, -1)


def gumbel_hard(table: Tensor, temperature: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """One op of every edge weighs 1, op k with probability softmax(a)_k; the gradient is that of :func:`concrete` for
    the same noise, straight through (GDAS)."""
    soft = concrete(table, temperature, generator)
    return mode(soft) + (soft - soft.detach())


def reinmax(table: Tensor, temperature: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """As :func:`gumbel_hard`, with a gradient of second order (ReinMax, 2304.08612, algorithm 2).

    For the draw D, p = softmax(a) and q = (D + softmax(a / temperature)) / 2 it is that of 2 s - p / 2, where s is q,
    differentiated as a softmax of the alphas is. At temperature 1 and in the mean it is exact where the loss is
    quadratic in the weights.
    """
    soft = torch.softmax(table, -1)
    with torch.no_grad():
        draw = mode(torch.log_softmax(table, -1) + _gumbel(table, generator))
        between = (draw + torch.softmax(table / temperature, -1)) / 2
        apart = between.clamp_min(torch.finfo(table.dtype).tiny).log() - table
    estimate = 2 * torch.softmax(apart + table, -1) - soft / 2
    return draw + (estimate - estimate.detach())


def dirichlet(table: Tensor, temperature: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Weights of an edge drawn from the Dirichlet distribution of :func:`concentration`, with the gradient along the
    path of each draw (DrNAS). It has no temperature."""
    return _Dirichlet.apply(concentration(table), generator)  # type: ignore[no-any-return,no-untyped-call]


def anchor_divergence(table: Tensor) -> Tensor:
    """[rows]: the KL divergence of the Dirichlet distributions of table [rows, E, O] from the uniform one, summed over
    the edges (DrNAS, with the anchor 1)."""
    found = concentration(table)
    total = found.sum(-1)
    ops = torch.full_like(total, float(table.shape[-1]))
    away = ((found - 1) * (torch.digamma(found) - torch.digamma(total).unsqueeze(-1))).sum(-1)
    return (torch.lgamma(total) - torch.lgamma(found).sum(-1) - torch.lgamma(ops) + away).sum(-1)


class _Dirichlet(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, parameters: Tensor, generator: torch.Generator | None) -> Tensor:
        draw = torch._sample_dirichlet(parameters, generator)
        ctx.save_for_backward(draw, parameters)
        return draw

    @staticmethod
    @once_differentiable  # type: ignore[misc,no-untyped-call,unused-ignore]
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        draw, parameters = ctx.saved_tensors
        total = parameters.sum(-1, keepdim=True).expand_as(parameters)
        along = torch._dirichlet_grad(draw, parameters, total)
        return along * (gradient - (draw * gradient).sum(-1, keepdim=True)), None


def _gumbel(table: Tensor, generator: torch.Generator | None) -> Tensor:
    noise = torch.empty_like(table, requires_grad=False).exponential_(generator=generator)
    return -noise.clamp_min(torch.finfo(table.dtype).tiny).log()


@dataclass(frozen=True)
class Sampler:
    """draw: op weights from alphas [..., O], a temperature [] and a generator. judged: the weights without chance that
    stand for them when the supernet is judged. summary, source: for ``--list``."""

    draw: Callable[[Tensor, Tensor, torch.Generator | None], Tensor]
    judged: Callable[[Tensor], Tensor]
    summary: str
    source: str


SAMPLERS: dict[str, Sampler] = {
    "gumbel_hard": Sampler(gumbel_hard, mode, "one op of every edge weighs 1, gradient straight through", "1910.04465"),
    "concrete": Sampler(
        concrete, lambda table: torch.softmax(table, -1), "a softmax with Gumbel noise and a temperature", "1812.09926"
    ),
    "reinmax": Sampler(reinmax, mode, "one op of every edge weighs 1, gradient of second order", "2304.08612"),
    "dirichlet": Sampler(dirichlet, mean_of_dirichlet, "weights from Dirichlet(elu(a) + 1)", "2006.10355"),
}

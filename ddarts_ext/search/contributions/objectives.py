"""What is added to the cross-entropy of a cell: the zero-one loss and the ablation loss, with their exact gradients.

Nothing here branches on a tensor's value, so nothing waits for the device.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

ZERO_ONE_FORMS = ("l2", "l1")
SIGN_RULES = ("bounded", "mean", "paper_plus", "code")
GRADIENTS = ("exact", "stopgrad_mean", "none")
DELTA = 1e-3


def zero_one(weights: Tensor, form: str = "l2") -> Tensor:
    """Zero-one loss of each row of op weights in (0, 1): [rows, ...] -> [rows] (FairDARTS, Eqs. 5 and 6).

    ``l2``: -mean (w - 1/2)^2; ``l1``: -mean |w - 1/2|. Its gradient vanishes at w = 1/2 (autograd takes sign(0) = 0).
    """
    if form not in ZERO_ONE_FORMS:
        raise ValueError(f"zero_one: form must be one of {', '.join(ZERO_ONE_FORMS)}, got {form!r}")
    distance = weights.flatten(1) - 0.5
    return -(distance.square() if form == "l2" else distance.abs()).mean(1)


class Ablation(NamedTuple):
    """value [N]: the ablation loss of every cell. gradient [N, E, O]: of value i with respect to row i, if any.
    contributions [N]: the marginal contributions M_i = L - L_without_i, negative where a cell is useful."""

    value: Tensor
    gradient: Tensor | None
    contributions: Tensor


def ablation(
    loss: Tensor,
    without: Tensor,
    full_gradient: Tensor,
    ablated_gradient: Tensor | None = None,
    own_gradient: Tensor | None = None,
    *,
    sign: str = "bounded",
    gradient: str = "exact",
    delta: float = DELTA,
) -> Ablation:
    """Ablation loss of every cell and its gradient (D-DARTS, Eqs. 7 to 10).

    loss []: of the whole network; without [N]: with cell i removed; full_gradient [N, E, O]: G_i, of ``loss`` with
    respect to row i; ablated_gradient: S_i, of the sum of ``without``; own_gradient: of ``without[i]`` with respect to
    row i, where removing a cell leaves others that read the same row (zero when not given).

    With M_i = loss - without_i and its mean Mm, the value is c (M_i - Mm), c being
    ``bounded``: 1 / max(mean |M_j|, delta * loss), a constant for the gradient: useful cells are rewarded whatever the
    signs, |value| <= N + 1 always, and where all M_j are negative the value is that of ``code``;
    ``mean``: 1 / max(|Mm|, delta), which has no bound where contributions of both signs cancel;
    ``paper_plus``: 1 / Mm; ``code``: -1 / Mm (the published implementation); both 0 where Mm = 0.

    gradient: ``exact`` differentiates all of it but the constant of ``bounded``, ``stopgrad_mean`` holds Mm constant,
    ``none`` gives no gradient.
    """
    if sign not in SIGN_RULES:
        raise ValueError(f"ablation: sign must be one of {', '.join(SIGN_RULES)}, got {sign!r}")
    if gradient not in GRADIENTS:
        raise ValueError(f"ablation: gradient must be one of {', '.join(GRADIENTS)}, got {gradient!r}")
    contributions = loss - without
    mean = contributions.mean()
    factor, slope = _factor(loss, contributions, sign, delta)
    above = contributions - mean
    value = factor * above
    if gradient == "none":
        return Ablation(value, None, contributions)
    of_contribution = full_gradient if own_gradient is None else full_gradient - own_gradient
    if gradient == "stopgrad_mean":
        return Ablation(value, factor * of_contribution, contributions)
    if ablated_gradient is None:
        raise ValueError("ablation: ablated_gradient must be given for gradient='exact', got None")
    of_mean = full_gradient - ablated_gradient / without.numel()
    per_row = above.view(-1, *[1] * (full_gradient.dim() - 1))
    exact = factor * (of_contribution - of_mean)
    if slope is not None:
        exact = exact + slope * per_row * of_mean
    return Ablation(value, exact, contributions)


def _factor(loss: Tensor, contributions: Tensor, sign: str, delta: float) -> tuple[Tensor, Tensor | None]:
    """c of :func:`ablation` and its derivative with respect to the mean, None where c is a constant."""
    if sign == "bounded":
        size = torch.maximum(contributions.abs().mean(), delta * loss).detach()
        # A loss of exactly 0 without contributions has no size to measure by.
        return torch.where(size == 0, 0.0, size.reciprocal()), None
    mean = contributions.mean()
    if sign == "mean":
        size = mean.abs()
        factor = size.clamp_min(delta).reciprocal()
        return factor, torch.where(size < delta, 0.0, -mean.sign() * factor.square())
    inverse = torch.where(mean == 0, 0.0, torch.where(mean == 0, 1.0, mean).reciprocal())
    return (inverse, -inverse.square()) if sign == "paper_plus" else (-inverse, inverse.square())

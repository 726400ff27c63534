"""How architecture parameters become the weights of the ops on an edge. Add a relaxation by adding an entry."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Relaxation = Callable[[Tensor], Tensor]


def softmax(table: Tensor) -> Tensor:
    """Ops of an edge compete: softmax over the last axis (DARTS, Eq. 2)."""
    return torch.softmax(table, -1)


def sigmoid(table: Tensor) -> Tensor:
    """Every op by itself: the logistic function (FairDARTS, Eq. 2)."""
    return torch.sigmoid(table)


def cubic_softmax(table: Tensor) -> Tensor:
    """Ops compete, and those far behind give up: softmax of t = 2a, or t^3 below -1 (DA2S)."""
    doubled = 2 * table
    return torch.softmax(torch.where(doubled >= -1, doubled, doubled**3), -1)


RELAXATIONS: dict[str, Relaxation] = {"softmax": softmax, "sigmoid": sigmoid, "cubic_softmax": cubic_softmax}
NORMALISED = ("softmax", "cubic_softmax")
"""Those whose op weights sum to one on every edge."""

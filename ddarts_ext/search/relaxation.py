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


RELAXATIONS: dict[str, Relaxation] = {"softmax": softmax, "sigmoid": sigmoid}

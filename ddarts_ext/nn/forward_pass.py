"""How one forward pass treats its batch: how many groups it holds and where its norms take their statistics from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol

import torch
from torch import Tensor

from ddarts_ext.ops._checks import memory_format_of
from ddarts_ext.runs.share import own, whole

Statistics = Literal["update", "batch", "running"]


class NodeKey(NamedTuple):
    """Which node a sum belongs to, and which entries of its cell's [edges, ops] table its branches are."""

    cell: int
    node: int
    columns: tuple[int, ...]
    """Per branch its index in the flattened [edges * ops] table of the cell."""


class Observer(Protocol):
    """Sees what every node sums: the raw branches, and the statistics with which the sum normalises them."""

    def __call__(
        self, key: NodeKey, branches: Sequence[Tensor], mean: Tensor, rstd: Tensor, normalize: Sequence[bool]
    ) -> None: ...


class Running(Protocol):
    """Norms that have running statistics."""

    running_mean: Tensor | None
    running_var: Tensor | None
    eps: float
    momentum: float


class Update(NamedTuple):
    """What the running statistics of some norms follow: mean and rstd of ``elements`` values, a row for each norm."""

    norms: Sequence[Running]
    mean: Tensor
    rstd: Tensor
    elements: int


@dataclass(frozen=True)
class SkipDropout:
    """Op dropout on skip connections. rate: [] below 1, on the device. generator: of the draws."""

    rate: Tensor
    generator: torch.Generator | None

    def mask(self, like: Tensor) -> Tensor:
        """0 with the probability ``rate``, else 1 / (1 - rate), in the shape and layout of ``like``."""
        kept = (1 - self.rate).to(like.dtype)
        # Of a batch that lies on several ranks all is drawn.
        shape = (whole(len(like)), *like.shape[1:])
        drawn = torch.empty(shape, dtype=like.dtype, device=like.device, memory_format=memory_format_of(like))
        return (own(drawn.uniform_(generator=self.generator)) < kept).to(like.dtype) / kept


@dataclass(frozen=True)
class Pass:
    """One forward pass.

    groups: the batch is this many contiguous groups of equal size; every norm treats each group by itself.
    statistics: ``update``: those of the batch, and the running buffers follow group 0; ``batch``: those of the batch,
    buffers untouched; ``running``: the running buffers. A norm without running buffers always uses the batch's.
    observe: called at every mixed node with the very tensors that its sum reads.
    updates: where norms leave what their running buffers shall follow, for one update of them all at the end (see
    ``ddarts_ext.nn.norm.updating``); by default every norm updates its own at once.
    skip_dropout: what is dropped of skip connections, in networks that were built for it.
    only: [cells][E][O] the ops that are computed, where the weights of all others are 0; on the host.
    """

    groups: int = 1
    statistics: Statistics = "update"
    observe: Observer | None = None
    updates: list[Update] | None = None
    skip_dropout: SkipDropout | None = None
    only: Sequence[Sequence[Sequence[bool]]] | None = None

    def __post_init__(self) -> None:
        if self.groups < 1:
            raise ValueError(f"Pass: groups must be >= 1, got {self.groups}")
        if self.statistics not in ("update", "batch", "running"):
            raise ValueError(f"Pass: statistics must be update, batch or running, got {self.statistics!r}")

    @staticmethod
    def default(training: bool) -> Pass:
        """What ``module.train()`` and ``module.eval()`` mean."""
        return _TRAINING if training else _EVALUATION


_TRAINING = Pass()
_EVALUATION = Pass(statistics="running")

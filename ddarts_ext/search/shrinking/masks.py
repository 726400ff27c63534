"""A supernet that shrinks: its masks, what is left of it and of its optimiser, and their checkpoint."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from ddarts_ext.data import Dataset
from ddarts_ext.nn.graph import SearchGraph
from ddarts_ext.nn.layout import lay_out
from ddarts_ext.runs.draws import DrawsFrom
from ddarts_ext.search.architecture import ArchitectureParameters, owners
from ddarts_ext.search.settings import SearchSettings
from ddarts_ext.search.state import Kept, Optimizers, SearchState, assembled, build_supernet
from ddarts_ext.spaces import Space


class MaskedArchitecture(ArchitectureParameters):
    """``mask`` bool [rows, E, O]: the ops that are left.

    An op's weight is mask / O with O the number of ops that an edge had at first, so that removing one does not change
    the others; with ``by_alphas`` it is the softmax of the alphas in ``table`` over the ops that are left on its edge.
    """

    mask: Tensor

    def __init__(self, space: Space, owner: Sequence[int], *, by_alphas: bool, initial_scale: float = 0.0) -> None:
        super().__init__(len(space.edges), len(space.ops), owner, "softmax", initial_scale=initial_scale)
        self.register_buffer("mask", torch.ones_like(self.table, dtype=torch.bool))
        self.relax = self._of_alphas if by_alphas else self._equal

    def _equal(self, table: Tensor) -> Tensor:
        return self.mask.to(table.dtype) / table.shape[-1]

    def _of_alphas(self, table: Tensor) -> Tensor:
        # A large finite number, not infinity: an edge may have lost all its ops, and its softmax must not be NaN.
        left = table.masked_fill(~self.mask, -1e9)
        return torch.softmax(left, -1) * self.mask


@dataclass
class ShrinkState(SearchState):
    """The state of a search whose supernet shrinks."""

    @property
    def mask(self) -> Tensor:
        """Bool [rows, E, O], on the CPU: the ops that are left."""
        return cast(MaskedArchitecture, self.architecture).mask.cpu()

    def decided(self) -> dict[str, Tensor]:
        return {**super().decided(), "masks": self.mask}

    def shrink(self, mask: Tensor) -> None:
        """Keep the ops in ``mask`` [rows, E, O] alone: others have no weights and no momentum, and are not computed."""
        cast(MaskedArchitecture, self.architecture).mask.copy_(mask)
        for cell, row in zip(self.net.cells, self.architecture.owner, strict=True):
            cast(SearchGraph, cell).prune(mask[row])
        if self.architecture.table.device.type != "cpu":
            lay_out(self.net)
        forget(self.weight_optimizer, self.net.parameters())

    def checkpoint(self) -> dict[str, Any]:
        return {**super().checkpoint(), "mask": self.mask}

    def restore(self, checkpoint: dict[str, Any], history: list[dict[str, Any]]) -> None:
        """The network takes the shape it had before it takes the weights."""
        if "mask" not in checkpoint:
            raise ValueError("search: checkpoint must be of a search that shrinks, got one without masks")
        self.shrink(checkpoint["mask"])
        super().restore(checkpoint, history)


def forget(optimizer: torch.optim.Optimizer, parameters: Iterable[nn.Parameter]) -> None:
    """Let an optimiser keep the state of ``parameters`` alone, in the order they had."""
    left = {id(parameter) for parameter in parameters}
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            if id(parameter) not in left:
                optimizer.state.pop(parameter, None)
        group["params"] = [parameter for parameter in group["params"] if id(parameter) in left]


def initial_shrink_state(
    settings: SearchSettings,
    dataset: Dataset,
    device: torch.device,
    parts: tuple[Kept, ...] = (),
    own: Optimizers | None = None,
) -> ShrinkState:
    """The start of a search: all random numbers come from the seed, and the global generators are left as they were."""
    method, space = settings.method, settings.space()
    by_alphas = method.shrinking is not None and method.shrinking.shrink_by == "alphas"
    with DrawsFrom(torch.Generator().manual_seed(settings.seed)):
        net = build_supernet(settings, dataset)
        owner = owners(method.sharing, method.cells, net.reductions, settings.sequence)
        architecture = MaskedArchitecture(
            space, owner, by_alphas=by_alphas, initial_scale=method.architect.alpha_init if by_alphas else 0.0
        )
    return assembled(ShrinkState, settings, net, architecture, device, parts, own or Optimizers())

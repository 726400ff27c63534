"""A supernet that shrinks: its masks, what is left of it and of its optimiser, and their checkpoint."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ddarts_ext.data import Dataset
from ddarts_ext.runs.draws import DrawsFrom
from ddarts_ext.search.architecture import ArchitectureParameters, owners
from ddarts_ext.search.settings import SearchSettings
from ddarts_ext.search.start import assembled, build_supernet
from ddarts_ext.search.state import Kept, Optimizers, SearchState
from ddarts_ext.spaces import Space


class MaskedArchitecture(ArchitectureParameters):
    """``mask`` bool [rows, E, O]: the ops that are left.

    An op's weight is mask / O with O the number of ops that an edge had at first, so that removing one does not change
    the others; with ``by_alphas`` it is the softmax of the alphas in ``table`` over the ops that are left on its edge.
    """

    def __init__(self, space: Space, owner: Sequence[int], *, by_alphas: bool, initial_scale: float = 0.0) -> None:
        super().__init__(len(space.edges), len(space.ops), owner, "softmax", initial_scale=initial_scale, masked=True)
        self._by_alphas = by_alphas

    def relax(self, alphas: Tensor) -> Tensor:
        assert self.mask is not None
        if self._by_alphas:
            return torch.softmax(self.left(alphas), -1) * self.mask
        return self.mask.to(alphas.dtype) / alphas.shape[-1]


def initial_shrink_state(
    settings: SearchSettings,
    dataset: Dataset,
    device: torch.device,
    parts: tuple[Kept, ...] = (),
    own: Optimizers | None = None,
) -> SearchState:
    """The start of a search: all random numbers come from the seed, and the global generators are left as they were."""
    method, space = settings.method, settings.space()
    by_alphas = method.shrinking is not None and method.shrinking.shrink_by == "alphas"
    with DrawsFrom(torch.Generator().manual_seed(settings.seed)):
        net = build_supernet(settings, dataset)
        owner = owners(method.sharing, method.cells, net.reductions, settings.sequence)
        architecture = MaskedArchitecture(
            space, owner, by_alphas=by_alphas, initial_scale=method.architect.alpha_init if by_alphas else 0.0
        )
    return assembled(settings, net, architecture, device, parts, own or Optimizers())

"""``Shrinker``: search by shrinking a supernet (IS-DARTS, 2312.12648)."""

from __future__ import annotations

import functools
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ddarts_ext.data.batches import in_rows
from ddarts_ext.genotype import discretize
from ddarts_ext.runs.device import autocast
from ddarts_ext.runs.options import takes
from ddarts_ext.runs.sums import Sums
from ddarts_ext.search.iterations import Iterations
from ddarts_ext.search.methods import Method
from ddarts_ext.search.parts import limit_of
from ddarts_ext.search.result import SearchResult
from ddarts_ext.search.searcher import Searcher
from ddarts_ext.search.settings import OPTIONS
from ddarts_ext.search.shrinking.masks import initial_shrink_state
from ddarts_ext.search.shrinking.part import ShrinkingPart
from ddarts_ext.search.shrinking.steps import finished
from ddarts_ext.search.state import SearchState
from ddarts_ext.tables.nasbench201 import NASBench201Table

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from ddarts_ext.search.arguments import ShrinkArguments, ShrinkingName


@dataclass(frozen=True)
class ShrinkResult(SearchResult):
    """The outcome of a search by shrinking.

    mask: bool [cells, E, O], the ops that were kept.
    """

    mask: Tensor | None = None


@takes(OPTIONS)
class Shrinker(Searcher):
    """Searches an architecture by removing the ops whose feature maps tell least, step by step, from a supernet.

    All training images train the weights. There are no alphas: ops are mixed by binary masks, and compared by
    :func:`ddarts_ext.ops.channel_iim` of their outputs, on each edge (``nasbench201``, one op stays) or over all edges
    into a node (``darts``, two stay). A removed op is not computed any more.

    method: ``isdarts`` or a :class:`Method` with ``shrinking``. The other arguments are those of :class:`Searcher`;
    of its settings, space: ``nasbench201`` or ``darts``, with the published settings of each; cells: of the whole
    supernet, in ``nasbench201`` three stages share them; split: with ``shrink_by="alphas"``, the part of the images
    that trains weights, the rest trains the alphas; table: figures of NAS-Bench-201 (a path or a
    :class:`NASBench201Table`), looked up for the result; and any field of :class:`Shrinking`, such as
    ``shrink_steps=1``.

    Raises ValueError, TypeError or FileNotFoundError for wrong input, before anything is computed or written.
    """

    _shrinks = True

    def __init__(
        self,
        data: Any = "digits",
        method: ShrinkingName | Method = "isdarts",
        *,
        table: str | Path | NASBench201Table | None = None,
        **arguments: Unpack[ShrinkArguments],
    ) -> None:
        path = None if table is None or isinstance(table, NASBench201Table) else str(table)
        super().__init__(data, method, table=path, **arguments)  # type: ignore[arg-type]
        method = self.config.method
        assert method.shrinking is not None
        self.how = method.shrinking
        if isinstance(table, NASBench201Table) and method.space != "nasbench201":
            raise ValueError(f"search: table must not be given for space {method.space}: it is one of nasbench201")
        if isinstance(table, NASBench201Table):
            self.table = table
        runs = autocast(self.device, self.config.precision)
        self._parts = (ShrinkingPart(self.how, self.config, self.dataset, self.order, runs), *self._parts)

    @property
    def _by_alphas(self) -> bool:
        return self.how.shrink_by == "alphas"

    def _initial(self) -> SearchState:
        return initial_shrink_state(self.config, self.dataset, self.device, self._parts, self._optimizers)

    @functools.cached_property
    def _divided(self) -> tuple[Tensor, Tensor]:
        if self._by_alphas:
            return super()._divided
        return self.order, torch.empty(0, dtype=torch.long)

    def _moves_alphas(self, epoch: int) -> bool:
        return self._by_alphas and super()._moves_alphas(epoch)

    def _rows(self, part: Tensor, state: SearchState) -> list[Tensor]:
        if self.how.shuffle:
            return super()._rows(part, state)
        if state.epoch == 0:
            self.progress.say("search: shuffle=false shows the images in the order in which their source lists them")
        return in_rows(part.sort().values, self.config.method.batch)

    def _judge(self, iterations: Iterations, alpha_part: Tensor, sums: Sums) -> None:
        # Without alphas all images train the weights, and none is left to judge on.
        if self._by_alphas:
            super()._judge(iterations, alpha_part, sums)

    def _result(self, state: SearchState) -> ShrinkResult:
        if not finished(state.mask, state.space):
            raise ValueError(f"search: epochs must run to the end of the shrinking, got {state.epoch} of them")
        architecture, reductions, limit = state.architecture, state.net.reductions, limit_of(self._parts)
        rule = "darts" if state.space.selection == "every_edge" else "complete"
        genotype = discretize(
            state.mask.double(),
            state.space,
            rule,  # type: ignore[arg-type]
            seq=architecture.owner,
            reductions=reductions if self.config.reductions is not None else None,
        )
        if state.space.selection == "every_edge":
            # All cells are one: the genotype of this space is that of a cell, whatever the depth of the network.
            genotype = replace(genotype, seq=(0,))
        return ShrinkResult(
            genotype=genotype,
            rule="shrinking",
            note="",
            genotypes={"shrinking": genotype},
            history=state.history,
            alphas=architecture.by_cell(architecture.table.detach()).cpu(),
            classes=len(self.dataset.classes),
            in_channels=self.dataset.channels,
            stem=self.config.stem,
            metric=self.objective.metric_name,
            run=None if self.folder is None else self.folder.path,
            mask=state.mask[list(architecture.owner)],
            figures=self._figures(genotype),
            cost=None if limit is None else limit.judged(genotype),
        )

"""``Shrinker``: search by shrinking a supernet (IS-DARTS, 2312.12648)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ddarts_ext.data import Augmentation, Dataset, load
from ddarts_ext.genotype.discretisation import discretize
from ddarts_ext.runs.device import autocast
from ddarts_ext.runs.progress import Progress
from ddarts_ext.runs.sums import Sums
from ddarts_ext.search import methods
from ddarts_ext.search.methods import Method
from ddarts_ext.search.parts.part import Part
from ddarts_ext.search.result import SearchResult
from ddarts_ext.search.searcher import Searcher
from ddarts_ext.search.searcher import arguments_of as searcher_arguments
from ddarts_ext.search.shrinking.masks import ShrinkState, initial_shrink_state
from ddarts_ext.search.shrinking.part import ShrinkingPart
from ddarts_ext.search.shrinking.steps import finished
from ddarts_ext.search.state import SearchState
from ddarts_ext.search.step import Stepper

if TYPE_CHECKING:
    from ddarts_ext.tables.nasbench201 import Figures, NASBench201Table

SPACES = {"nasbench201": "nasbench201", "darts": "isdarts", "isdarts": "isdarts"}
"""The spaces by the names they are asked for: IS-DARTS has a DARTS space of its own (biases, pools without norm)."""


@dataclass(frozen=True)
class ShrinkResult(SearchResult):
    """The outcome of a search by shrinking.

    mask: bool [cells, E, O], the ops that were kept. figures: what a table of NAS-Bench-201 says of the architecture,
    where one was given.
    """

    mask: Tensor | None = None
    figures: Figures | None = None


class Shrinker(Searcher):
    """Searches an architecture by removing the ops whose feature maps tell least, step by step, from a supernet.

    All training images train the weights. There are no alphas: ops are mixed by binary masks, and compared by
    :func:`ddarts_ext.ops.channel_iim` of their outputs, on each edge (``nasbench201``, one op stays) or over all edges
    into a node (``darts``, two stay). A removed op is not computed any more.

    data: a name or path for :func:`ddarts_ext.data.load`, or a :class:`Dataset`. method: ``isdarts`` or a
    :class:`Method` with ``shrinking``. space: ``nasbench201`` or ``darts``, with the published settings of each.
    cells: of the whole supernet; in ``nasbench201`` three stages share them. epochs, channels, batch: of the search.
    seed: everything random follows from it. device: ``cpu``, ``cuda``; by default a GPU where there is one.
    out: folder of the run; without one nothing is written. resume: continue the run in it, if there is one.
    precision: ``float32`` or ``bf16`` (autocast). deterministic: only deterministic algorithms, on a GPU too.
    split: with ``shrink_by="alphas"``, the part of the images that trains weights; the rest trains the alphas.
    table: figures of NAS-Bench-201 (a path or a :class:`NASBench201Table`), looked up for the result.
    augmentation, parts, progress: as of :class:`Searcher`. settings: any field of :class:`Shrinking`, :class:`Weights`
    or :class:`Architect`, such as ``shrink_steps=1``.

    Raises ValueError, TypeError or FileNotFoundError for wrong input, before anything is computed or written.
    """

    _shrinks = True

    def __init__(
        self,
        data: str | Path | Dataset = "digits",
        method: str | Method = "isdarts",
        *,
        space: str | None = None,
        epochs: int | None = None,
        cells: int | None = None,
        channels: int | None = None,
        batch: int | None = None,
        seed: int = 0,
        device: str | torch.device | None = None,
        out: str | Path | None = None,
        resume: bool = False,
        precision: str = "float32",
        deterministic: bool = False,
        split: float = 0.5,
        stem: str = "cifar",
        reductions: Sequence[int] | None = None,
        table: str | Path | NASBench201Table | None = None,
        augmentation: Augmentation | None = None,
        parts: Sequence[Part] = (),
        progress: Progress | None = None,
        **settings: Any,
    ) -> None:
        dataset = load(data)
        chosen = variant(method, space)
        sizes = {"epochs": epochs, "cells": cells, "channels": channels, "batch": batch}
        given = {name: value for name, value in {**sizes, **settings}.items() if value is not None}
        small = preset(chosen, dataset) if isinstance(method, str) else {}
        super().__init__(
            dataset,
            chosen,
            seed=seed,
            device=device,
            out=out,
            resume=resume,
            precision=precision,
            deterministic=deterministic,
            split=split,
            stem=stem,
            reductions=reductions,
            augmentation=augmentation,
            parts=parts,
            progress=progress,
            **{**small, **given},
        )
        self.source = str(data) if isinstance(data, (str, Path)) else dataset.name
        method = self.config.method
        assert method.shrinking is not None
        self.how = method.shrinking
        self._check()
        self.table = _table(table, method)
        runs = autocast(self.device, self.config.precision)
        self._parts = (ShrinkingPart(self.how, self.config, self.dataset, runs), *self._parts)

    def _check(self) -> None:
        method = self.config.method
        if method.space == "nasbench201":
            if method.cells % 3:
                raise ValueError(f"search: cells must be a multiple of the 3 stages of nasbench201, got {method.cells}")
            if self.config.stem != "cifar":
                raise ValueError(f"search: stem must be cifar for nasbench201, got {self.config.stem!r}")
            if self.config.reductions:
                raise ValueError(f"search: reductions must be none for nasbench201, got {self.config.reductions}")

    @property
    def _by_alphas(self) -> bool:
        return self.how.shrink_by == "alphas"

    def _initial(self) -> ShrinkState:
        return initial_shrink_state(self.config, self.dataset, self.device, self._parts)

    def _divided(self) -> tuple[Tensor, Tensor]:
        if self._by_alphas:
            return super()._divided()
        return torch.arange(len(self.dataset.train)), torch.empty(0, dtype=torch.long)

    def _moves_alphas(self, epoch: int) -> bool:
        return self._by_alphas and super()._moves_alphas(epoch)

    def _rows(self, part: Tensor, state: SearchState) -> Tensor:
        if self.how.shuffle:
            return super()._rows(part, state)
        size = min(self.config.method.batch, len(part))
        return part[: len(part) // size * size].view(-1, size)

    def _judge(self, stepper: Stepper, alpha_part: Tensor, sums: Sums) -> None:
        # Without alphas all images train the weights, and none is left to judge on.
        if self._by_alphas:
            super()._judge(stepper, alpha_part, sums)

    def _result(self, state: SearchState) -> ShrinkResult:
        assert isinstance(state, ShrinkState)
        if not finished(state.mask, state.space):
            raise ValueError(f"search: epochs must run to the end of the shrinking, got {state.epoch} of them")
        architecture, reductions = state.architecture, getattr(state.net, "reductions", None)
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
        figures = None if self.table is None else self.table[genotype]
        if figures is not None and self.folder is not None:
            self.folder.write_json("nasbench201.json", figures.to_json())
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
            run=None if self.folder is None else self.folder.path,
            mask=state.mask[list(architecture.owner)],
            figures=figures,
        )


def variant(method: str | Method, space: str | None) -> Method:
    """The method with the published settings of a space: 4 steps in 30 epochs, or 7 in 50 with two ops per node."""
    chosen = methods.get(method)
    name = chosen.space if space is None else SPACES.get(space)
    if name is None:
        raise ValueError(f"search: space must be nasbench201 or darts for method {chosen.name}, got {space!r}")
    if chosen.shrinking is None or name == chosen.space:
        return chosen
    if name == "nasbench201":
        how = replace(chosen.shrinking, shrink_steps=4, shrink_interval=2, measure_samples=200)
        return replace(chosen, space=name, epochs=30, cells=15, shrinking=how)
    how = replace(chosen.shrinking, shrink_steps=7, shrink_interval=3, measure_samples=600)
    return replace(chosen, space=name, epochs=50, cells=8, shrinking=how)


def preset(method: Method, dataset: Dataset) -> Mapping[str, Any]:
    """Defaults that suit small images or few of them where the published ones do not; empty for large data."""
    if not methods.preset(dataset.size, len(dataset.train)) or max(dataset.size) > 16:
        return {}
    return {"cells": 3 if method.space == "nasbench201" else 5, "channels": 8, "weight_lr": 0.05}


def arguments_of(config: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of :class:`Shrinker` that a config.json was written with."""
    # What a search by shrinking has no use for.
    return {k: v for k, v in searcher_arguments(config).items() if k not in ("start", "steps", "sequence")}


def _table(table: str | Path | NASBench201Table | None, method: Method) -> NASBench201Table | None:
    if table is None:
        return None
    from ddarts_ext.tables.nasbench201 import NASBench201Table

    if method.space != "nasbench201":
        raise ValueError(f"search: table must not be given for space {method.space}: it is one of nasbench201")
    return table if isinstance(table, NASBench201Table) else NASBench201Table.load(table)

"""Starting a search from a network that exists (DARTOpti): its genotype becomes the start values of the alphas."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ddarts_ext import spaces
from ddarts_ext.genotype.cell import Cell
from ddarts_ext.genotype.value import Genotype
from ddarts_ext.spaces import Space

ON_LOGIT = 10.0
_NAME = "dartopti"


@dataclass(frozen=True)
class Start:
    """A genotype and how it is encoded (DARTOpti: D-DARTS, 2108.09306, and its implementation).

    off_logit: alpha of every op that the network does not have. 0, the published choice, lets all of them enter with
    weight sigmoid(0) = 1/2; -10 starts at the network itself. input_node: 1 lets edges that read node 0, the output of
    the cell before last, read node 1, the output of the last cell: in the published encodings of ResNet18 and ResNet50
    only node 0 is read, so that the output of every other cell is lost.
    """

    genotype: Genotype
    off_logit: float = 0.0
    input_node: int | None = None

    def __post_init__(self) -> None:
        if self.genotype.inputs != 2:
            raise ValueError(f"search: start must have cells with 2 inputs, got {self.genotype.inputs}")
        if isinstance(self.off_logit, bool) or not isinstance(self.off_logit, (int, float)):
            raise TypeError(f"search: off_logit must be a number, got {self.off_logit!r}")
        if not math.isfinite(self.off_logit) or self.off_logit >= ON_LOGIT:
            raise ValueError(f"search: off_logit must be a finite number below {ON_LOGIT:g}, got {self.off_logit!r}")
        if self.input_node not in (None, 0, 1):
            raise ValueError(f"search: input_node must be 0 or 1, got {self.input_node!r}")

    @classmethod
    def load(
        cls, source: str | Path | Genotype | Start, off_logit: float | None = None, input_node: int | None = None
    ) -> Start:
        """The start in ``source``: what :meth:`Genotype.load` reads (``ResNet18``, a file, a run) or a genotype."""
        if isinstance(source, Start):
            start = source
        else:
            start = cls(source if isinstance(source, Genotype) else Genotype.load(source))
        return replace(
            start,
            off_logit=start.off_logit if off_logit is None else off_logit,
            input_node=start.input_node if input_node is None else input_node,
        )

    @property
    def network(self) -> Genotype:
        """The genotype with its inputs as ``input_node`` says."""
        if self.input_node != 1:
            return self.genotype
        return replace(self.genotype, genes=tuple(map(_from_last_cell, self.genotype.genes)))

    def sizes(self, space: str = _NAME) -> dict[str, Any]:
        """What the genotype determines of a search: arguments of the Searcher.

        The space's number of output nodes stays: the published search of ResNet50 concatenates 4 of its 6 nodes.
        """
        genotype = self.genotype
        known = spaces.get(space)
        unknown = sorted(genotype.ops - {*known.ops, *known.genotype_ops, "none"})
        if unknown:
            raise ValueError(f"search: start must be of ops in {', '.join(known.ops)}, got {unknown[0]}")
        return {
            "cells": genotype.layers,
            "steps": genotype.steps,
            "reductions": genotype.reduction_cells,
            "sequence": genotype.seq,
        }

    def table(self, space: Space, owner: Sequence[int]) -> Tensor:
        """Alphas [rows, E, O] where cell c reads row owner[c]: ON_LOGIT where the network has the op, else off_logit.

        Raises ValueError if two cells that share a row differ.
        """
        rows: dict[int, Cell] = {}
        for index, (row, cell) in enumerate(zip(owner, self.network.cells, strict=True)):
            genes = tuple(entry for entry in cell if entry.op != "none")
            if set(rows.setdefault(row, genes)) != set(genes):
                raise ValueError(
                    f"search: start must have equal cells where alphas are shared, but cell {index} differs from "
                    f"cell {tuple(owner).index(row)}"
                )
        table = torch.full((len(rows), len(space.edges), len(space.ops)), float(self.off_logit))
        for row, genes in rows.items():
            table[row][torch.from_numpy(space.table(genes))] = ON_LOGIT
        return table

    def to_json(self) -> dict[str, Any]:
        """Plain data for config.json."""
        return {"genotype": self.genotype.to_json(), "off_logit": self.off_logit, "input_node": self.input_node}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Start:
        """What :meth:`to_json` gave."""
        return cls(Genotype.from_json(data["genotype"]), data["off_logit"], data["input_node"])


def _from_last_cell(cell: Cell) -> Cell:
    """Edges from node 0 start at node 1; an op that both inputs had stays once."""
    return tuple(dict.fromkeys(entry._replace(source=1) if entry.source == 0 else entry for entry in cell))

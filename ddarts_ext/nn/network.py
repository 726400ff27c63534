"""The network of an architecture, for training and evaluation (DARTS, FairDARTS, D-DARTS, DARTOpti, IS-DARTS)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ddarts_ext.genotype import Gene, Genotype
from ddarts_ext.nn.auxiliary import AuxiliaryHead
from ddarts_ext.nn.cell import preprocessing
from ddarts_ext.nn.discrete import NO_DROP, DiscreteGraph, Drop
from ddarts_ext.nn.features import Backbone, Level
from ddarts_ext.nn.forward_pass import Pass
from ddarts_ext.nn.nasbench201 import NASBench201Network
from ddarts_ext.nn.norm import updating
from ddarts_ext.nn.plain.convertible import Convertible
from ddarts_ext.nn.plain.network import PlainNetwork
from ddarts_ext.nn.primitives import EVALUATION
from ddarts_ext.nn.stem import Stem, check_images, check_network

DropPathOn = Literal["auto", "op", "node"]


class DiscreteCell(nn.Module):
    """One cell of a genotype: s0, s1 -> the nodes that its concat names, as far as they exist, by first appearance."""

    def __init__(
        self,
        genotype: Genotype,
        index: int,
        channels_0: int,
        channels_1: int,
        channels: int,
        *,
        previous_reduction: bool,
        drop_path_on: str,
    ) -> None:
        super().__init__()
        self.concat = genotype.joined(index)
        if not self.concat:
            raise ValueError(f"DiscreteNetwork: genotype must have a node in every cell, got none in cell {index}")
        self.preprocess0 = preprocessing(channels_0, channels, previous_reduction, EVALUATION)
        self.preprocess1 = preprocessing(channels_1, channels, False, EVALUATION)
        self.graph = DiscreteGraph(
            genotype.live(index),
            2,
            genotype.nodes(index),
            channels,
            reduction=index in genotype.reduction_cells,
            drop_path_on=drop_path_on,
        )
        self.out_channels = len(self.concat) * channels

    def forward(self, s0: Tensor, s1: Tensor, p: Pass, drop: Drop = NO_DROP) -> Tensor:
        states = self.graph.states((self.preprocess0(s0, p), self.preprocess1(s1, p)), p, drop)
        return torch.cat([states[node] for node in self.concat], 1)


class DiscreteNetwork(Convertible, Backbone, nn.Module):
    """The evaluation network of a genotype with two-input cells.

    A cell joins the nodes that its concat names. A node without entries does not exist, and a cell's channels follow
    the number of nodes that it joins (FairDARTS). Nodes that are not joined are built as all others, read or not.
    auxiliary: a second classifier on the output of the last reduction cell, used in training alone.
    auxiliary_norm: whether it has its second norm; by default always but in a DARTS network with ImageNet stem.
    stem: ``cifar``, ``imagenet`` (stride 8) or ``imagenet_stride4`` (D-DARTS, for three reductions).
    drop_path: probability, an attribute that a trainer may move, see :class:`.discrete.Drop`; it draws from the
    attribute ``generator``, or from torch's global one where that is None. drop_path_on: op outputs but pure skips
    (``op``, DARTS) or node sums (``node``, threshold genotypes); ``auto``: ``op`` where every node has exactly two
    entries.
    Raises ValueError for impossible sizes and for a cell that no entry reaches.
    """

    def __init__(
        self,
        genotype: Genotype,
        channels: int = 36,
        classes: int = 10,
        in_channels: int = 3,
        auxiliary: bool = False,
        stem: str = "cifar",
        drop_path: float = 0.0,
        *,
        drop_path_on: DropPathOn = "auto",
        auxiliary_norm: bool | None = None,
    ) -> None:
        super().__init__()
        check_network(
            "DiscreteNetwork", cells=genotype.layers, channels=channels, classes=classes, in_channels=in_channels
        )
        if genotype.inputs != 2:
            raise ValueError(f"DiscreteNetwork: genotype must have two inputs per cell, got {genotype.inputs}")
        if not 0.0 <= drop_path < 1.0:
            raise ValueError(f"DiscreteNetwork: drop_path must be in [0, 1), got {drop_path}")
        self.genotype, self.in_channels, self.classes = genotype, in_channels, classes
        self.drop_path: float | Tensor = drop_path
        self.generator: torch.Generator | None = None
        pairs = _has_pairs(genotype)
        on = ("op" if pairs else "node") if drop_path_on == "auto" else drop_path_on
        self.first_channels, self.drop_path_on = channels, on
        self.stem = Stem(stem, in_channels, channels)
        self.cells = nn.ModuleList()
        reductions = genotype.reduction_cells
        previous = current = self.stem.channels
        halved, self.auxiliary_after, auxiliary_channels = self.stem.reduces, -1, 0
        for i in range(genotype.layers):
            channels *= 2 if i in reductions else 1
            cell = DiscreteCell(genotype, i, previous, current, channels, previous_reduction=halved, drop_path_on=on)
            self.cells.append(cell)
            previous, current, halved = current, cell.out_channels, i in reductions
            if i == (max(reductions) if reductions else 2 * genotype.layers // 3):
                self.auxiliary_after, auxiliary_channels = i, current
        second = not (pairs and stem == "imagenet") if auxiliary_norm is None else auxiliary_norm
        stride = 3 if stem == "cifar" else 2
        self.auxiliary = (
            AuxiliaryHead(auxiliary_channels, classes, stride=stride, second_norm=second) if auxiliary else None
        )
        self.classifier: nn.Module = nn.Linear(current, classes)

    @property
    def divisor(self) -> int:
        """By which the sides of images are divided on the way."""
        return self.stem.stride * (1 << len(self.genotype.reduction_cells))

    def _plain_entries(self) -> list[tuple[Gene, ...]]:
        return [self.genotype.live(i) for i in range(self.genotype.layers)]

    def plain_arguments(self) -> dict[str, Any]:
        """The arguments of the :class:`PlainNetwork` that computes the same, as plain data."""
        genotype, reductions, head = self.genotype, self.genotype.reduction_cells, self.auxiliary
        return {
            "cells": [
                ([tuple(entry) for entry in entries], list(genotype.joined(i)), i in reductions)
                for i, entries in enumerate(self._plain_entries())
            ],
            "channels": self.first_channels,
            "classes": self.classes,
            "in_channels": self.in_channels,
            "stem": self.stem.kind,
            "auxiliary": None if head is None else (self.auxiliary_after, head.stride, head.norm1 is not None),
            "drop_path": self.drop_path,
            "drop_nodes": self.drop_path_on == "node",
        }

    def _plain_network(self) -> PlainNetwork:
        return PlainNetwork(**self.plain_arguments())

    def forward(self, x: Tensor, p: Pass | None = None) -> Tensor:
        """Logits [N, classes] of images [N, in_channels, H, W]."""
        return self._run(x, p, auxiliary=False)[0]

    def forward_auxiliary(self, x: Tensor, p: Pass | None = None) -> tuple[Tensor, Tensor]:
        """(logits, logits of the auxiliary head)."""
        logits, auxiliary = self._run(x, p, auxiliary=True)
        if auxiliary is None:
            raise ValueError("DiscreteNetwork: auxiliary must be True for forward_auxiliary, got False")
        return logits, auxiliary

    def forward_features(self, x: Tensor, p: Pass | None = None) -> Tensor:
        """The output of the last cell, [N, num_features, h, w]."""
        return self._cells(x, p)[0]

    def levels(self) -> list[Level]:
        """The resolutions on the way, from the largest."""
        stride, width, found = self.stem.stride, self.stem.channels, []
        if self.stem.reduces:
            found.append(Level(-2, width, stride // 2))
        last = Level(-1, width, stride)
        for i, cell in enumerate(self.cells):
            assert isinstance(cell, DiscreteCell)
            if i in self.genotype.reduction_cells:
                found.append(last)
                stride *= 2
            last = Level(i, cell.out_channels, stride)
        return [*found, last]

    def watched(self, x: Tensor, places: Sequence[int], p: Pass | None = None) -> dict[int, Tensor]:
        """The outputs that ``places`` names: -2, -1 the stem's, else a cell's."""
        return self._cells(x, p, watch=places)[2]

    def _run(self, x: Tensor, p: Pass | None, *, auxiliary: bool) -> tuple[Tensor, Tensor | None]:
        features, extra, _ = self._cells(x, p, auxiliary=auxiliary)
        return self.forward_head(features), extra

    def _cells(
        self, x: Tensor, p: Pass | None, *, auxiliary: bool = False, watch: Sequence[int] | None = None
    ) -> tuple[Tensor, Tensor | None, dict[int, Tensor]]:
        """The last output that is asked for, logits of the auxiliary head, and the outputs that ``watch`` names."""
        check_images("DiscreteNetwork", x, self.in_channels, self.divisor)
        drop, extra = Drop(self.drop_path, self.generator) if self.training else NO_DROP, None
        seen: dict[int, Tensor] = {}
        with updating(Pass.default(self.training) if p is None else p) as together:
            s0, s1 = self.stem(x, together)
            if watch is not None:
                seen = {place: state for place, state in ((-2, s0), (-1, s1)) if place in watch}
            for i, cell in enumerate(self.cells):
                if watch is not None and i > max(watch, default=-1):
                    break
                s0, s1 = s1, cell(s0, s1, together, drop)
                if watch is not None and i in watch:
                    seen[i] = s1
                if auxiliary and self.auxiliary is not None and i == self.auxiliary_after:
                    extra = self.auxiliary(s1, together)
        return s1, extra, seen


def build_network(
    genotype: Genotype,
    channels: int = 36,
    classes: int = 10,
    in_channels: int = 3,
    auxiliary: bool = False,
    stem: str = "cifar",
    drop_path: float = 0.0,
) -> DiscreteNetwork | NASBench201Network:
    """The network of any genotype: :class:`DiscreteNetwork`, or :class:`NASBench201Network` for one-input cells.

    Raises ValueError for that of a recurrent cell.
    """
    if genotype.recurrent:
        raise ValueError(
            "network: genotype must be that of a network for images, got a recurrent cell, which "
            "ddarts_ext.nn.recurrent.of_genotype builds"
        )
    if genotype.inputs == 1:
        return NASBench201Network(genotype, channels, classes=classes, in_channels=in_channels)
    return DiscreteNetwork(genotype, channels, classes, in_channels, auxiliary, stem, drop_path)


def _has_pairs(genotype: Genotype) -> bool:
    """Whether every node of the space has exactly two entries in every cell, as DARTS discretises."""
    nodes = range(genotype.inputs, genotype.inputs + genotype.steps)
    return all(
        [sum(entry.target == node for entry in cell) for node in nodes] == [2] * len(nodes) for cell in genotype.genes
    )

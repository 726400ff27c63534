"""Which network is meant when an architecture is said to cost something, and where its ops stand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch

from ddarts_ext.genotype import Genotype
from ddarts_ext.nn.nasbench201 import NASBench201Network
from ddarts_ext.nn.network import DiscreteNetwork
from ddarts_ext.spaces import Space


class OpPlace(NamedTuple):
    """An op of an evaluation network: its name, channels in and out, stride, and the size of what it reads."""

    op: str
    channels: int
    stride: int
    height: int
    width: int

    def __str__(self) -> str:
        stride = "" if self.stride == 1 else f", stride {self.stride}"
        return f"{self.op} on {self.channels}x{self.height}x{self.width}{stride}"


@dataclass(frozen=True)
class NetworkSizes:
    """The evaluation networks of one space and size, without auxiliary head.

    channels: of the first cell. size: (height, width) of the images. reductions: the cells that reduce. owner: the gene
    of each cell, that is, which cells are alike.
    """

    space: Space
    cells: int
    channels: int
    classes: int
    in_channels: int
    size: tuple[int, int]
    stem: str
    reductions: tuple[int, ...]
    owner: tuple[int, ...]

    def build(self, genotype: Genotype, device: str = "meta") -> DiscreteNetwork | NASBench201Network:
        """The network of an architecture, of these sizes. Raises ValueError for one that has none."""
        with torch.device(device):
            if genotype.inputs == 1:
                return NASBench201Network(
                    genotype, self.channels, self.cells // 3, self.classes, in_channels=self.in_channels
                )
            if genotype.layers != self.cells:
                genotype = genotype.with_layers(self.cells)
            return DiscreteNetwork(genotype, self.channels, self.classes, self.in_channels, stem=self.stem)

    @property
    def image(self) -> tuple[int, int, int]:
        return self.in_channels, *self.size

    def genotype(self, genes: Sequence[Any]) -> Genotype:
        """The architecture with these cells, one for each number in ``owner``."""
        return Genotype(tuple(genes), self.order, self.space.concat, self.reductions, self.space.inputs)

    @property
    def order(self) -> tuple[int, ...]:
        """The gene of each cell of a genotype, which has one cell where a space keeps every edge (NAS-Bench-201)."""
        return (0,) if self.space.selection == "every_edge" else self.owner

    def place(self, cell: int, edge: int, op: int) -> OpPlace:
        """Where the op of that number on an edge of a cell stands, by its name in a genotype."""
        staged = self.space.selection == "every_edge"
        # Of NAS-Bench-201 the blocks between the stages reduce.
        halved = cell // (self.cells // 3) if staged else sum(index < cell for index in self.reductions)
        reduction = cell in self.reductions
        channels = self.channels << (halved + reduction)
        stride = self.space.stride(self.space.edges[edge], reduction)
        before = {"cifar": 0, "imagenet_stride4": 2, "imagenet": 3}[self.stem]
        halvings = before + halved + (reduction and stride == 1)
        height, width = (-(-side // (1 << halvings)) for side in self.size)
        return OpPlace(self.space.genotype_ops[op], channels, stride, height, width)

    def to_json(self) -> dict[str, Any]:
        """What a table of times must agree in."""
        return {
            "space": self.space.name,
            "ops": list(self.space.genotype_ops),
            "nodes": len(self.space.nodes),
            "cells": self.cells,
            "channels": self.channels,
            "classes": self.classes,
            "image": list(self.image),
            "stem": self.stem,
            "reductions": list(self.reductions),
        }

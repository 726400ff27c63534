"""NAS-Bench-201: the supernet of its space and the network of one architecture (Dong and Yang, ICLR 2020)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from ddarts_ext.genotype import Gene, Genotype
from ddarts_ext.nn.cell import Normed
from ddarts_ext.nn.discrete import DiscreteGraph
from ddarts_ext.nn.features import Backbone, Level
from ddarts_ext.nn.forward_pass import Pass
from ddarts_ext.nn.graph import SearchGraph
from ddarts_ext.nn.norm import GroupedNorm, updating
from ddarts_ext.nn.plain.convertible import Convertible
from ddarts_ext.nn.plain.network import PlainStagedNetwork
from ddarts_ext.nn.pointwise import conv_weight, pointwise
from ddarts_ext.nn.primitives import EVALUATION, ReluConv
from ddarts_ext.nn.stem import Stem, check_images, check_network
from ddarts_ext.nn.supernet import cell_weights
from ddarts_ext.spaces import get


class ResidualBlock(nn.Module):
    """Two ReLU-conv3x3-norm with stride 2 on the first, plus average pooling and a 1x1 convolution beside them."""

    def __init__(self, channels_in: int, channels: int) -> None:
        super().__init__()
        self.first = Normed(ReluConv(channels_in, channels, 3, 2, EVALUATION), channels, EVALUATION)
        self.second = Normed(ReluConv(channels, channels, 3, 1, EVALUATION), channels, EVALUATION)
        self.shortcut = conv_weight(channels, channels_in, 1, 1)

    def forward(self, x: Tensor, p: Pass) -> Tensor:
        # ceil_mode halves odd sides as the convolution does; for even ones it changes nothing.
        pooled = nn.functional.avg_pool2d(x, 2, 2, ceil_mode=True, count_include_pad=False)
        out: Tensor = self.second(self.first(x, p), p) + pointwise(pooled, self.shortcut)
        return out


class _Staged(nn.Module):
    """Stem, three stages of N cells with residual blocks between them, norm, ReLU, pooling, classifier."""

    def __init__(self, name: str, channels: int, cells: int, classes: int, in_channels: int) -> None:
        super().__init__()
        check_network(name, cells=cells, channels=channels, classes=classes, in_channels=in_channels)
        self.name, self.in_channels, self.classes, self.cells_per_stage = name, in_channels, classes, cells
        self.stage_channels = (channels, 2 * channels, 4 * channels)
        self.stem = Stem("cifar", in_channels, channels, multiplier=1)
        self.blocks = nn.ModuleList((ResidualBlock(channels, 2 * channels), ResidualBlock(2 * channels, 4 * channels)))
        self.cells = nn.ModuleList()
        self.norm = GroupedNorm(4 * channels, affine=True)
        self.classifier: nn.Module = nn.Linear(4 * channels, classes)

    divisor = 4
    """By which the sides of images are divided on the way."""
    reductions: tuple[int, ...] = ()
    """No cell reduces: the blocks between the stages do."""

    def _start(self, x: Tensor, p: Pass) -> Tensor:
        check_images(self.name, x, self.in_channels, self.divisor)
        state: Tensor = self.stem(x, p)[0]
        return state

    def _between(self, index: int, x: Tensor, p: Pass) -> Tensor:
        """The residual block that stands before cell ``index``, if one does."""
        stage, first = divmod(index, self.cells_per_stage)
        return self.blocks[stage - 1](x, p) if first == 0 and stage > 0 else x

    def head(self, x: Tensor, p: Pass) -> Tensor:
        logits: Tensor = self.classifier(self.norm(x, p, relu=True).mean((2, 3)))
        return logits


class NASBench201Supernet(_Staged):
    """All five ops on all six edges of 3 * ``cells_per_stage`` cells, mixed by weights.

    IS-DARTS searches it with masks as weights, mask / 5 (its Algorithm 1). Convolutions in cells have biases, pools no
    norm, and the norms of cells always use the statistics of their batch. partial, drop_skips: see
    :class:`.SearchGraph`.
    """

    def __init__(
        self,
        channels: int = 16,
        cells_per_stage: int = 5,
        classes: int = 10,
        *,
        in_channels: int = 3,
        partial: int = 1,
        drop_skips: bool = False,
    ) -> None:
        super().__init__("NASBench201Supernet", channels, cells_per_stage, classes, in_channels)
        self.space = get("nasbench201")
        for i in range(3 * cells_per_stage):
            width = self.stage_channels[i // cells_per_stage]
            self.cells.append(SearchGraph(self.space, width, index=i, partial=partial, drop_skips=drop_skips))

    def forward(self, x: Tensor, weights: Tensor, p: Pass | None = None) -> Tensor:
        """Logits [N, classes]; weights [3 * cells_per_stage, 6, 5] or [groups, ...]."""
        with updating(Pass.default(self.training) if p is None else p) as together:
            state = self._start(x, together)
            for i, row in enumerate(cell_weights(self.name, weights, len(self.cells))):
                cell = self.cells[i]
                assert isinstance(cell, SearchGraph)
                state = cell.states((self._between(i, state, together),), row, together)[-1]
            return self.head(state, together)


class NASBench201Network(Convertible, Backbone, _Staged):
    """The network of one architecture: the same cell 3 * ``cells_per_stage`` times, norms affine."""

    def __init__(
        self,
        genotype: Genotype,
        channels: int = 16,
        cells_per_stage: int = 5,
        classes: int = 10,
        *,
        in_channels: int = 3,
    ) -> None:
        super().__init__("NASBench201Network", channels, cells_per_stage, classes, in_channels)
        if genotype.inputs != 1 or genotype.layers != 1:
            raise ValueError(
                f"NASBench201Network: genotype must have one cell with one input, got {genotype.layers} cells "
                f"with {genotype.inputs}"
            )
        if len(genotype.concat) != 1:
            raise ValueError(
                f"NASBench201Network: genotype must have one output node, got concat {list(genotype.concat)}"
            )
        self.genotype = genotype
        (self.last,) = genotype.concat
        # Every node exists here: one that no op reaches is zero, and what reads it is computed all the same.
        self.entries = tuple(entry for entry in genotype.cells[0] if entry.op != "none")
        for i in range(3 * cells_per_stage):
            width = self.stage_channels[i // cells_per_stage]
            self.cells.append(DiscreteGraph(self.entries, 1, range(1, genotype.steps + 1), width, reduction=False))

    def _plain_entries(self) -> list[tuple[Gene, ...]]:
        return [self.entries] * len(self.cells)

    def plain_arguments(self) -> dict[str, Any]:
        """The arguments of the :class:`PlainStagedNetwork` that computes the same, as plain data."""
        return {
            "entries": [tuple(entry) for entry in self.entries],
            "steps": self.genotype.steps,
            "output": self.last,
            "channels": self.stage_channels[0],
            "cells_per_stage": self.cells_per_stage,
            "classes": self.classes,
            "in_channels": self.in_channels,
        }

    def _plain_network(self) -> PlainStagedNetwork:
        return PlainStagedNetwork(**self.plain_arguments())

    def forward(self, x: Tensor, p: Pass | None = None) -> Tensor:
        """Logits [N, classes]."""
        return self.forward_head(self.forward_features(x, p))

    def forward_features(self, x: Tensor, p: Pass | None = None) -> Tensor:
        """The output of the last cell after norm and ReLU, [N, num_features, h, w]."""
        last = len(self.cells) - 1
        return self.watched(x, (last,), p)[last]

    def levels(self) -> list[Level]:
        """The ends of the three stages."""
        return [
            Level((stage + 1) * self.cells_per_stage - 1, width, 1 << stage)
            for stage, width in enumerate(self.stage_channels)
        ]

    def watched(self, x: Tensor, places: Sequence[int], p: Pass | None = None) -> dict[int, Tensor]:
        """The outputs that ``places`` names: -1 the stem's, else a cell's; norm and ReLU are part of the last one."""
        seen: dict[int, Tensor] = {}
        with updating(Pass.default(self.training) if p is None else p) as together:
            state = self._start(x, together)
            if -1 in places:
                seen[-1] = state
            for i, cell in enumerate(self.cells):
                if i > max(places, default=-1):
                    break
                assert isinstance(cell, DiscreteGraph)
                state = cell.states((self._between(i, state, together),), together)[self.last]
                if i in places:
                    seen[i] = state
            if (last := len(self.cells) - 1) in places:
                seen[last] = self.norm(state, together, relu=True)
        return seen

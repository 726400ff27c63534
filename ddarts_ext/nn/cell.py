"""The search cell of the two-input spaces (DARTS, FairDARTS, D-DARTS, DARTOpti, IS-DARTS)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ddarts_ext.nn.forward_pass import Pass
from ddarts_ext.nn.graph import SearchGraph, search_style
from ddarts_ext.nn.norm import GroupedNorm, updating
from ddarts_ext.nn.primitives import FactorizedReduce, PointwiseConv, Primitive, Style
from ddarts_ext.spaces import Space


class Normed(nn.Module):
    """A primitive with its last norm as a module of its own."""

    def __init__(self, op: Primitive, channels: int, style: Style) -> None:
        super().__init__()
        self.op = op
        self.norm = style.norm(channels) if op.normalized else None

    def forward(self, x: Tensor, p: Pass) -> Tensor:
        return self.after(self.op(x, p), p)

    def after(self, raw: Tensor, p: Pass) -> Tensor:
        """What is left to do once the op has run."""
        if self.norm is None:
            return raw
        assert isinstance(self.norm, GroupedNorm)
        return self.norm(raw, p)  # type: ignore[no-any-return]


def preprocessing(channels_in: int, channels: int, reduce: bool, style: Style) -> Normed:
    """What brings a cell's input to its channels, and to half the size where the previous cell was a reduction."""
    if reduce:
        return Normed(FactorizedReduce(channels_in, channels, style), channels, style)
    return Normed(PointwiseConv(channels_in, channels, 1, style), channels, style)


class Cell(SearchGraph):
    """s0, s1 -> the concatenation of the last ``multiplier`` nodes, [.., multiplier * C, H/stride, W/stride].

    channels_0, channels_1: channels of the outputs of the two cells before. index: which cell of the network it is.
    """

    def __init__(
        self,
        space: Space,
        channels_0: int,
        channels_1: int,
        channels: int,
        *,
        reduction: bool = False,
        previous_reduction: bool = False,
        index: int = 0,
        partial: int = 1,
        drop_skips: bool = False,
    ) -> None:
        if space.inputs != 2:
            raise ValueError(f"Cell: space must have two inputs, got {space.name} with {space.inputs}")
        super().__init__(space, channels, reduction=reduction, index=index, partial=partial, drop_skips=drop_skips)
        style = search_style(space)
        self.preprocess0 = preprocessing(channels_0, channels, previous_reduction, style)
        self.preprocess1 = preprocessing(channels_1, channels, False, style)
        self.out_channels = space.multiplier * channels

    def forward(self, s0: Tensor, s1: Tensor, weights: Tensor, p: Pass) -> Tensor:
        """s0, s1: outputs of the cells before last and last. weights: [E, O] or [groups, E, O], already relaxed."""
        with updating(p) as together:
            p0, p1 = self.preprocess0(s0, together), self.preprocess1(s1, together)
            return self.combine(p0, p1, weights, together)

    def combine(self, p0: Tensor, p1: Tensor, weights: Tensor, p: Pass) -> Tensor:
        """The cell after its preprocessing."""
        return torch.cat(self.states((p0, p1), weights, p)[-self.space.multiplier :], 1)

    def bypass(self, p1: Tensor) -> Tensor:
        """What stands in for the output of a removed cell: ``multiplier`` copies of p1, subsampled in a reduction.

        It has the shape of the output and does not depend on the cell's weights.
        """
        stride = 2 if self.reduction else 1
        return p1[:, :, ::stride, ::stride].repeat(1, self.space.multiplier, 1, 1)

    def removed(self, s1: Tensor, p: Pass) -> Tensor:
        """:meth:`bypass` from the output of the last cell."""
        return self.bypass(self.preprocess1(s1, p))

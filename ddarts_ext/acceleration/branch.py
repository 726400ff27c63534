"""Outputs of ops that await their norm, and what the branches of one pass share."""

from __future__ import annotations

from torch import Tensor, nn

from ddarts_ext.acceleration import norms


class Pass:
    """What the sums of one pass through an accelerated module share.

    running: statistics to follow at the end. waiting: branches whose norm nothing has applied yet. sums: how many sums
    of the outputs of several ops were taken.
    """

    def __init__(self) -> None:
        self.running = norms.Running()
        self.waiting: dict[Branch, None] = {}
        self.sums = 0


class Branch:
    """A term of a sum: the output of an op, before the affine-free norm that it awaits, if any, or another tensor.

    raw is None for an op of zeros. op: whether it is the output of an op.
    """

    __slots__ = ("counted", "norm", "op", "raw", "shape", "shared", "source", "zero")

    def __init__(
        self,
        shared: Pass,
        source: Tensor,
        raw: Tensor,
        norm: nn.BatchNorm2d | None = None,
        zero: int = 0,
        op: bool = False,
    ) -> None:
        self.shared, self.source, self.norm, self.zero, self.counted = shared, source, norm, zero, False
        self.op = op
        self.raw: Tensor | None = None if zero else raw
        self.shape = raw[:, :, ::zero, ::zero].shape if zero else raw.shape
        if norm is not None:
            shared.waiting[self] = None

    def plain(self) -> Tensor:
        """The output with its norm applied."""
        if self.raw is None:
            self.raw = self.source[:, :, :: self.zero, :: self.zero].mul(0.0)
        if self.norm is not None:
            running = self.shared.running if self.first_use() else norms.Running()
            self.raw, self.norm = norms.normalise(self.raw, self.norm, running), None
        return self.raw

    def first_use(self) -> bool:
        """Whether the norm is applied for the first time: only then the running statistics follow it."""
        first, self.counted = not self.counted, True
        self.shared.waiting.pop(self, None)
        return first

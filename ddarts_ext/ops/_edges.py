"""What ``mixed_edges`` computes: the ops on the edges that leave a node."""

from __future__ import annotations

from dataclasses import dataclass

SKIP, MAXIMUM, AVERAGE = -1, -2, -3
"""Kinds of ops that are no convolution: the identity and the 3x3 pools."""


@dataclass(frozen=True)
class Edges:
    """The ops on the edges that leave a node, K of them.

    targets: which sum each op adds to, 0 ... T-1. kinds: ``SKIP``, ``MAXIMUM`` and ``AVERAGE`` (pools), or >= 0: the
    number of a convolution. normalize: whether an op ends in a batch norm. dilations: of the first stage of every
    convolution, 1 or 2. seconds: the convolutions that have a second stage, which has dilation 1. stride: of all first
    stages and pools, 1 or 2.
    """

    targets: tuple[int, ...]
    kinds: tuple[int, ...]
    normalize: tuple[bool, ...]
    dilations: tuple[int, ...] = ()
    seconds: tuple[int, ...] = ()
    stride: int = 1

    def __post_init__(self) -> None:
        count, convolutions = len(self.kinds), [kind for kind in self.kinds if kind >= 0]
        if not count or min(self.kinds) < AVERAGE or sorted(convolutions) != list(range(len(self.dilations))):
            raise ValueError(
                f"Edges: kinds must be SKIP, MAXIMUM, AVERAGE and each of {len(self.dilations)} convolutions once, "
                f"got {self.kinds}"
            )
        if len(self.targets) != count or set(self.targets) != set(range(max(self.targets) + 1)):
            raise ValueError(f"Edges: targets must be {count} numbers of sums, each from 0 on used, got {self.targets}")
        if len(self.normalize) != count:
            raise ValueError(f"Edges: normalize must be {count} flags, got {len(self.normalize)}")
        if not {1, 2}.issuperset(self.dilations):
            raise ValueError(f"Edges: dilations must be 1 or 2, got {self.dilations}")
        if len(set(self.seconds)) != len(self.seconds) or not set(self.seconds) <= set(convolutions):
            raise ValueError(f"Edges: seconds must be different ones of {sorted(convolutions)}, got {self.seconds}")
        if self.stride not in (1, 2):
            raise ValueError(f"Edges: stride must be 1 or 2, got {self.stride}")
        if self.stride == 2 and SKIP in self.kinds:
            raise ValueError("Edges: kinds must not have SKIP at stride 2, where it is an op with weights")

    @property
    def sums(self) -> int:
        """T, the number of nodes that the edges enter."""
        return max(self.targets) + 1

    @property
    def stages(self) -> int:
        """How many stages the convolutions have in all."""
        return len(self.dilations) + len(self.seconds)

"""What ``mixed_edges`` computes: the ops on the edges that leave a node."""

from __future__ import annotations

from dataclasses import dataclass

from ddarts_ext.ops._checks import flags_of, integers, stride_of

SKIP, MAXIMUM, AVERAGE = -1, -2, -3
"""Kinds of ops that are no convolution: the identity and the 3x3 pools."""


@dataclass(frozen=True)
class Edges:
    """The ops on the edges that leave a node, K of them; lists become tuples.

    targets: which sum each op adds to, 0 ... T-1, each of them used. kinds: ``SKIP`` (the identity, at stride 1 alone:
    at stride 2 it has weights), ``MAXIMUM`` and ``AVERAGE`` (pools), any number of times, or >= 0: the number of a
    convolution, each exactly once. normalize: whether an op ends in a batch norm. dilations: of the first stage of
    every convolution, 1 or 2. seconds: the convolutions that have a second stage, which has dilation 1. stride: of all
    first stages and pools, 1 or 2. Raises TypeError for what is no integer, flag or sequence of them, ValueError for
    the rest.
    """

    targets: tuple[int, ...]
    kinds: tuple[int, ...]
    normalize: tuple[bool, ...]
    dilations: tuple[int, ...] = ()
    seconds: tuple[int, ...] = ()
    stride: int = 1

    def __post_init__(self) -> None:
        for name in ("targets", "kinds", "dilations", "seconds"):
            object.__setattr__(self, name, tuple(integers("Edges", name, getattr(self, name))))
        object.__setattr__(self, "normalize", tuple(flags_of("Edges", "normalize", self.normalize)))
        object.__setattr__(self, "stride", stride_of("Edges", self.stride))
        count, convolutions = len(self.kinds), [kind for kind in self.kinds if kind >= 0]
        if not count or min(self.kinds) < AVERAGE or sorted(convolutions) != list(range(len(self.dilations))):
            raise ValueError(
                f"Edges: kinds must be SKIP, MAXIMUM, AVERAGE and each of len(dilations)={len(self.dilations)} "
                f"convolutions once, got {self.kinds}"
            )
        if len(self.targets) != count or sorted(used := set(self.targets)) != list(range(len(used))):
            raise ValueError(f"Edges: targets must be {count} numbers of sums, each from 0 on used, got {self.targets}")
        if len(self.normalize) != count:
            raise ValueError(f"Edges: normalize must be {count} flags, got {len(self.normalize)}")
        if not {1, 2}.issuperset(self.dilations):
            raise ValueError(f"Edges: dilations must be 1 or 2, got {self.dilations}")
        if len(set(self.seconds)) != len(self.seconds) or not set(self.seconds) <= set(convolutions):
            raise ValueError(f"Edges: seconds must be different ones of {sorted(convolutions)}, got {self.seconds}")
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

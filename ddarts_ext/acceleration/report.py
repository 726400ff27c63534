"""What :func:`ddarts_ext.accelerate` did to a model, and why it left alone what it left alone."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Replaced:
    """A module whose forward runs on the kernels now.

    kind: ``cell`` (one launch a node) or ``mixed op`` (one launch an edge). methods: which of its methods were proved
    to take sums of several ops, and routed. difference: the largest relative difference that the proof saw, over
    outputs, gradients and buffers. gain: how much faster forward and backward of the module, or of another of its kind,
    became at the shapes of the example (of a small search where there was none); None where it was not timed.
    """

    path: str
    kind: str
    methods: tuple[str, ...]
    difference: float
    gain: float | None

    def __str__(self) -> str:
        gain = "" if self.gain is None else f", {self.gain:.1f}x"
        return f"{self.path}: {self.kind}, {', '.join(self.methods)} (proved to {self.difference:.0e}{gain})"


@dataclass(frozen=True)
class Left:
    """A module, or a method of one, that runs as it did.

    difference: by how much the two differed, if that is why. gain: what it would have gained, if that is why.
    """

    path: str
    reason: str
    difference: float | None = None
    gain: float | None = None

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}"


@dataclass(frozen=True)
class Report:
    """replaced: what runs on the kernels. left: what looked like it could, and does not.

    raw: ops inside replaced modules that run as they are, beside the accelerated ones. already: paths of modules that
    an earlier call replaced.
    """

    replaced: tuple[Replaced, ...] = ()
    left: tuple[Left, ...] = ()
    raw: tuple[Left, ...] = ()
    already: tuple[str, ...] = ()

    @property
    def gain(self) -> float | None:
        """The smallest gain measured at any replaced module."""
        gains = [entry.gain for entry in self.replaced if entry.gain is not None]
        return min(gains) if gains else None

    def __bool__(self) -> bool:
        return bool(self.replaced)

    def __str__(self) -> str:
        lines = [self._headline()]
        for title, entries in (("replaced", self.replaced), ("left", self.left), ("runs as it is inside", self.raw)):
            alike: dict[str, list[Replaced | Left]] = {}
            for entry in entries:
                alike.setdefault(entry.reason if isinstance(entry, Left) else entry.path, []).append(entry)
            for found in alike.values():
                more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
                lines.append(f"  {title}: {found[0]}{more}")
        return "\n".join(lines)

    def _headline(self) -> str:
        already = f"already accelerated: {len(self.already)} modules; " if self.already else ""
        if self.replaced:
            return f"accelerate: {already}{len(self.replaced)} replaced, {len(self.left)} left as they were"
        if self.already:
            return f"accelerate: {already}nothing new was replaced"
        if self.left:
            return "accelerate: nothing was replaced; the model is untouched"
        return "accelerate: nothing to replace: no module mixes a list of ops; the model is untouched"

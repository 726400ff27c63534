"""The bytes of a plan that reads and writes every stored tensor once: docs/kernels/bytes.md.

Stored are the images that a forward pass cannot do without: outputs of convolutions and pools before their norms, and
sums over edges. Norms are applied where an image is read, their moments come with the launch that writes it, and
gradients behind a norm or a weighted sum, a g + s y + d, are evaluated where they are read. So a stored image of B
bytes costs

    write + read              2 B   in the forward pass, whatever the number of its readers
    read                    + 1 B   if a backward pass needs it
    read                    + 1 B   if that pass goes through a norm by its batch: s and d are sums over g and y of the
                                    whole batch, which must be known before the first gradient is evaluated
    gradient: write + read  + 2 B   if other ops than weighted sums read it, and it has a backward pass

The optimiser's own traffic is added as it is. This follows the calls of a real step, so it covers whatever network
runs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from torch.utils._pytree import tree_leaves

from ddarts_ext.benchmark.launches.traffic import OPTIMISERS, of_edges
from ddarts_ext.ops._edges import SKIP
from ddarts_ext.ops._mixed_edges_reference import branch_of


@dataclass
class _Stored:
    """An image, held so that no other takes its place in memory.

    back: a backward pass reads it. normed: a norm by its batch does. apart: another op than a weighted sum does.
    total: it is a weighted sum.
    """

    image: Tensor
    back: bool = False
    normed: bool = False
    apart: bool = False
    total: bool = False

    @property
    def bytes(self) -> int:
        size = int(self.image.untyped_storage().nbytes())
        if not self.back:
            return 2 * size
        gradient = 2 if self.apart and self.image.is_floating_point() else 0
        return (3 + self.normed + gradient) * size


class Plan:
    """Follows the calls of a step, in order."""

    def __init__(self) -> None:
        self._stored: dict[int, _Stored] = {}
        self._same: dict[int, list[int]] = {}  # what holds no values of its own in the plan -> those that it is made of
        self._kept: list[Tensor] = []
        self._optimizer = 0

    @property
    def bytes(self) -> int:
        return self._optimizer + sum(stored.bytes for stored in self._stored.values())

    def see(self, name: str, args: Sequence[Any], moved: int, out: Any) -> None:
        """A call of the op ``name``, which moves so many bytes today; out: what it gives."""
        if name in OPTIMISERS:
            self._optimizer += moved
            return
        if name == "ddarts_ext::mixed_edges":
            self._see_edges(args, out)
            return
        if name == "aten::add" and all(self._is_total(x) for x in args[:2]):
            self._replace(args[:2], [out])
            return
        for stored in self._of(_read_by_edges(args) if name == "ddarts_ext::mixed_edges_backward" else args):
            if name.endswith("_backward"):
                stored.back = True
            elif name in _WRITES and name != "ddarts_ext::mixed_sum":
                stored.apart = True
        for stored in self._of(_NORMED[name](args)) if name in _NORMED else ():
            stored.normed = True
        if name in _WRITES:
            for image in tree_leaves(_WRITES[name](out)):
                if image.numel():
                    self._stored[_key(image)] = _Stored(image, total=name == "ddarts_ext::mixed_sum")
        elif name in _JOINS:
            given = [x for x in tree_leaves(_JOINS[name](args)) if isinstance(x, Tensor)]
            image = out[0] if isinstance(out, tuple) else out
            if image.dim() == 4 and any(self._parts(x) for x in given):
                self._same[_key(image)] = [key for x in given for key in self._parts(x)]
                self._kept.append(image)
                if name == "ddarts_ext::grouped_batch_norm":
                    for stored in self._of(given):
                        stored.apart = True  # the sum of the gradients of its readers is needed before the norm's

    def _see_edges(self, args: Sequence[Any], out: Any) -> None:
        """All that leaves a state at once: it reads the state, stores what its ops give, and goes on with the sums."""
        x, previous, kinds, dilations, seconds, normalize, sums, mean = (args[i] for i in (0, 1, 6, 7, 8, 9, 10, 12))
        for stored in self._of(x):
            stored.apart = True
        totals, outputs, inner, pooled = of_edges(out[0], sums, dilations, seconds)
        for image in (*outputs, *inner, *pooled):
            if image.numel():
                self._stored[_key(image)] = _Stored(image)
        self._replace(previous, totals)
        normed = [branch_of(kind, x, outputs, pooled) for kind, flag in zip(kinds, normalize, strict=True) if flag]
        for stored in self._of(normed + inner):
            stored.normed = mean is None
        for stored in self._of(inner):
            stored.apart = True

    def _is_total(self, x: Any) -> bool:
        return isinstance(x, Tensor) and _key(x) in self._stored and self._stored[_key(x)].total

    def _replace(self, before: Sequence[Tensor], after: Sequence[Tensor]) -> None:
        """Sums so far are stored once, when all is added."""
        self._kept += before
        for image in before:
            self._stored.pop(_key(image), None)
        for image in after:
            self._stored[_key(image)] = _Stored(image, total=True)

    def _of(self, args: Any) -> list[_Stored]:
        return [self._stored[key] for x in tree_leaves(args) if isinstance(x, Tensor) for key in self._parts(x)]

    def _parts(self, x: Tensor) -> list[int]:
        key = _key(x)
        return self._same.get(key, [key] if key in self._stored else [])


def _read_by_edges(args: Sequence[Any]) -> list[Tensor]:
    """What a backward of ``mixed_edges`` reads of what was saved: of weights alone, outputs only."""
    x, saved, kinds, input_grad, parameters_grad = args[1], args[5], args[7], args[-3], args[-2]
    _, outputs, inner, pooled = of_edges(saved, 0, args[8], args[9])
    read = [*outputs, *pooled[:2], *(pooled[2:] if input_grad else [])]
    return [*read, *inner, x] if input_grad or parameters_grad else [*read, *([x] if SKIP in kinds else [])]


def _key(x: Tensor) -> int:
    return int(x.untyped_storage()._cdata)


_WRITES: dict[str, Callable[[Any], Any]] = {
    "ddarts_ext::relu_separable_conv2d": lambda out: out[0],
    "ddarts_ext::relu_depthwise_conv2d": lambda out: out[0],
    "ddarts_ext::relu_pointwise_conv2d": lambda out: out,
    "ddarts_ext::pool3x3": lambda out: out,
    "ddarts_ext::mixed_sum": lambda out: out[0],
    "ddarts_ext::spawn_group": lambda out: out,
    "aten::convolution": lambda out: out,
}
"""Ops that give images which the plan stores."""
_NORMED: dict[str, Callable[[Sequence[Any]], Any]] = {
    "ddarts_ext::grouped_batch_norm": lambda args: args[0] if args[3] is None else None,
    "ddarts_ext::relu_separable_conv2d": lambda args: args[0] if args[6] and args[7] is None else None,
    "ddarts_ext::mixed_sum": lambda args: (
        [x for x, flag in zip(args[0], args[2], strict=True) if flag] if args[3] is None else None
    ),
}
"""Images that an op normalises by their batch, of its arguments."""
_JOINS: dict[str, Callable[[Sequence[Any]], Any]] = {
    "ddarts_ext::grouped_batch_norm": lambda args: args[0],
    "aten::cat": lambda args: args[0],
}
"""Ops whose images the plan does not store: a norm is applied where it is read, channels are read where they lie."""

"""The cell of an architecture that has been decided on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ddarts_ext.genotype import Gene
from ddarts_ext.nn.cell import Normed
from ddarts_ext.nn.forward_pass import Pass
from ddarts_ext.nn.mixed import Launch, launches
from ddarts_ext.nn.primitives import EVALUATION, Primitive, primitive
from ddarts_ext.runs.share import own, whole


class Drop(NamedTuple):
    """Drop path of one pass. generator: on the device of the images, None for torch's global one.

    A probability in a tensor (float32 [], on that device) may change under a graph, compiled or captured, which then
    stays. A compiled one knows no generator but torch's.
    """

    probability: float | Tensor = 0.0
    generator: torch.Generator | None = None


def drops(drop: Drop) -> bool:
    """Whether there is anything to draw; always with a tensor, which is not looked into."""
    return isinstance(drop.probability, Tensor) or drop.probability > 0


NO_DROP = Drop()


def drop_path(x: Tensor, drop: Drop) -> Tensor:
    """Zero whole samples with this probability and scale the others by 1 / (1 - probability)."""
    keep = 1.0 - drop.probability
    if isinstance(keep, Tensor):
        if drop.generator is None:
            kept = torch.rand(x.shape[0], 1, 1, 1, device=x.device) < keep
        else:
            kept = own(torch.rand(whole(x.shape[0]), 1, 1, 1, device=x.device, generator=drop.generator)) < keep
        return x * kept.to(x.dtype).div(keep.to(x.dtype))
    mask = torch.empty(whole(x.shape[0]), 1, 1, 1, dtype=x.dtype, device=x.device)
    return x * own(mask.bernoulli_(keep, generator=drop.generator)).div(keep)


class DiscreteGraph(nn.Module):
    """The nodes of a cell, each the sum of its entries; norms affine, pools without norm.

    entries: (op, target, source), none of op ``none``. nodes: the intermediate nodes there are; one without entries
    is zero. drop_path_on: ``op`` drops op outputs but those of a pure skip (DARTS), ``node`` drops the sum (FairDARTS).
    """

    def __init__(
        self,
        entries: Sequence[Gene],
        inputs: int,
        nodes: Sequence[int],
        channels: int,
        *,
        reduction: bool,
        drop_path_on: str = "op",
    ) -> None:
        super().__init__()
        self.entries, self.inputs, self.nodes = tuple(entries), inputs, tuple(sorted(nodes))
        self.reduction, self.drop_path_on = reduction, drop_path_on
        self.ops = nn.ModuleList()
        leaving: dict[int, list[tuple[int, Primitive]]] = {}
        for slot, (name, _, source) in enumerate(self.entries):
            op = primitive(name, channels, 2 if reduction and source < inputs else 1, EVALUATION)
            if op is None:
                raise ValueError("DiscreteGraph: entries must not hold op none, got one")
            self.ops.append(Normed(op, channels, EVALUATION))
            leaving.setdefault(source, []).append((slot, op))
        self._launches: dict[int, tuple[Launch[int], ...]] = {s: launches(found) for s, found in leaving.items()}

    def states(self, inputs: Sequence[Tensor], p: Pass, drop: Drop = NO_DROP) -> dict[int, Tensor]:
        """The state of every node, inputs included; ``drop`` is the drop path of this pass."""
        states = dict(enumerate(inputs))
        outputs: list[Tensor | None] = [None] * len(self.entries)
        for node in range(max((*self.nodes, self.inputs - 1)) + 1):
            if node in self.nodes:
                states[node] = self._sum(node, outputs, inputs[0], drop)
            for launch in self._launches.get(node, ()):
                for slot, raw in launch.run([states[node]] * launch.reads, p):
                    outputs[slot] = self._finish(slot, raw, p, drop)
        return states

    def _finish(self, slot: int, raw: Tensor, p: Pass, drop: Drop) -> Tensor:
        op = self.ops[slot]
        assert isinstance(op, Normed)
        out = op.after(raw, p)
        return drop_path(out, drop) if drops(drop) and self.drop_path_on == "op" and not op.op.pure else out

    def _sum(self, node: int, outputs: Sequence[Tensor | None], x: Tensor, drop: Drop) -> Tensor:
        terms = [out for entry, out in zip(self.entries, outputs, strict=True) if entry.target == node]
        total: Tensor | None = None
        for term in terms:
            total = term if total is None or term is None else total + term
        if total is None:
            stride = 2 if self.reduction else 1
            return torch.zeros_like(x[:, :, ::stride, ::stride])
        return drop_path(total, drop) if drops(drop) and self.drop_path_on == "node" else total

"""SGD over parameters that lie side by side in memory: what a step launches does not grow with how many they are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor
from torch.optim import sgd

from ddarts_ext.ops._stacked import Place, place_of

_CLIP_EPS = 1e-6
"""As in ``torch.nn.utils.clip_grad_norm_``."""


@dataclass(frozen=True)
class _Buffers:
    """places: of the parameters. order: their numbers, as they lie. gradient: room for all of them, [values]. momenta:
    by number, parts of one buffer as the parameters are of theirs; none without momentum."""

    places: list[Place]
    order: list[int]
    gradient: Tensor
    momenta: list[Tensor]


class JoinedSGD(torch.optim.SGD):
    """``torch.optim.SGD`` that can take a step of all its parameters at once, :meth:`descend`.

    State and state dict are those of ``SGD``; the momenta are parts of one buffer. Parameters that do not lie side by
    side (``ddarts_ext.nn.layout.lay_out``) move as well, with more launches.
    """

    steps_as_sgd = True  # as runs/optimizers.py asks
    _buffers: _Buffers | None = None

    def joins(self) -> bool:
        """Whether :meth:`descend` serves these parameters: one group that moves by the fused rule of a device where
        every launch counts."""
        if len(self.param_groups) != 1:
            return False
        group = self.param_groups[0]
        first = group["params"][0]
        plain = group["fused"] and not group["maximize"] and not group["dampening"] and _counts_launches(first)
        return plain and all(
            p.requires_grad and p.dtype == first.dtype and p.device == first.device and _layout(p) is not None
            for p in group["params"]
        )

    @torch.no_grad()
    def descend(self, gradients: Sequence[Tensor | None], clip: float = 0.0) -> Tensor | None:
        """One step along ``gradients`` of the parameters, in their order; those whose gradient is None rest.

        clip: largest norm of all gradients together, 0 for none. Returns the norm before, [], where there is a limit.
        """
        group = self.param_groups[0]
        buffers = self._up_to_date(group, gradients)
        taken = [i for i in buffers.order if gradients[i] is not None]
        if not taken:
            return None
        parameters = cast("list[Tensor]", group["params"])
        pieces = [_laid_as(cast(Tensor, gradients[i]), parameters[i]) for i in taken]
        total = buffers.gradient[: sum(piece.numel() for piece in pieces)]
        torch.cat(_flat(pieces, _runs([pieces])), out=total)
        norm = None
        if clip:
            norm = torch.linalg.vector_norm(total)
            total.mul_(torch.clamp(clip / (norm + _CLIP_EPS), max=1.0))
        moved = [parameters[i] for i in taken]
        momenta = [buffers.momenta[i] for i in taken] if buffers.momenta else []
        runs = _runs([moved, momenta] if momenta else [moved])
        sgd.sgd(
            _flat(moved, runs),
            list(torch.split(total, [sum(moved[i].numel() for i in run) for run in runs])),
            list(_flat(momenta, runs)) if momenta else [None] * len(runs),
            fused=True, weight_decay=group["weight_decay"], momentum=group["momentum"], lr=group["lr"], dampening=0.0,
            nesterov=group["nesterov"], maximize=False,
        )  # fmt: skip
        return norm

    def _up_to_date(self, group: dict[str, Any], gradients: Sequence[Tensor | None]) -> _Buffers:
        """The buffers of the parameters as they lie, with the momenta that the state has, whoever put them there."""
        parameters = group["params"]
        places, buffers = [place_of(p) for p in parameters], self._buffers
        kept = [self.state[p].get("momentum_buffer") if p in self.state else None for p in parameters]
        ours = buffers is not None and buffers.places == places
        if ours and group["momentum"]:
            assert buffers is not None
            ours = len(buffers.momenta) == len(kept) and all(
                held is None or held is own for held, own in zip(kept, buffers.momenta, strict=True)
            )
        if not ours or buffers is None:
            buffers = self._buffers = _made(parameters, places, kept if group["momentum"] else None)
            for p, held, own in zip(parameters, kept, buffers.momenta, strict=False):
                if held is not None:
                    self.state[p]["momentum_buffer"] = own
        for p, held, gradient, own in zip(parameters, kept, gradients, buffers.momenta, strict=False):
            if held is None and gradient is not None:
                self.state[p]["momentum_buffer"] = own
        return buffers


def _counts_launches(x: Tensor) -> bool:
    return x.device.type != "cpu"


def _made(parameters: Sequence[Tensor], places: list[Place], kept: Sequence[Tensor | None] | None) -> _Buffers:
    # Memories in the order of their first parameters: their addresses differ from run to run, and sums with them.
    memories = {memory: number for number, (memory, _) in reversed(list(enumerate(places)))}
    order = sorted(range(len(parameters)), key=lambda i: (memories[places[i][0]], places[i][1]))
    sizes = [parameters[i].numel() for i in order]
    first = parameters[0]
    momenta: dict[int, Tensor] = {}
    if kept is not None:
        for i, row in zip(order, torch.split(first.new_zeros(sum(sizes)), sizes), strict=True):
            momenta[i] = row.as_strided(parameters[i].shape, parameters[i].stride())
            held = kept[i]
            if held is not None:
                momenta[i].copy_(held)
    return _Buffers(places, order, first.new_empty(sum(sizes)), [momenta[i] for i in sorted(momenta)])


def _layout(x: Tensor) -> torch.memory_format | None:
    """In which order a dense tensor lies in memory; None where it is neither of those that there are."""
    if x.is_contiguous():
        return torch.contiguous_format
    return torch.channels_last if x.dim() == 4 and x.is_contiguous(memory_format=torch.channels_last) else None


def _laid_as(gradient: Tensor, parameter: Tensor) -> Tensor:
    """The gradient in the order of its parameter's values."""
    layout = _layout(parameter)
    assert layout is not None
    return gradient if gradient.is_contiguous(memory_format=layout) else gradient.contiguous(memory_format=layout)


def _runs(lists: Sequence[Sequence[Tensor]]) -> list[list[int]]:
    """The numbers of tensors in runs that fill one piece of memory without gaps, in every list."""
    runs: list[list[int]] = []
    ends: list[Place] = []
    for i in range(len(lists[0])):
        begins = [place_of(tensors[i]) for tensors in lists]
        if runs and begins == ends:
            runs[-1].append(i)
        else:
            runs.append([i])
        ends = [(memory, begin + tensors[i].numel()) for tensors, (memory, begin) in zip(lists, begins, strict=True)]
    return runs


def _flat(tensors: Sequence[Tensor], runs: Sequence[Sequence[int]]) -> list[Tensor]:
    """Every run as one vector."""
    return [tensors[run[0]].as_strided((sum(tensors[i].numel() for i in run),), (1,)) for run in runs]

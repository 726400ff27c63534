"""Ops that stop training by themselves, once they learn what the other images do not bear out (OLES, NeurIPS 2023)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ddarts_ext.nn.graph import SearchGraph


class OpStop:
    """How much the gradients of every op on both halves of the images point the same way, and which ops have stopped.

    In every step in which alphas move, s_o = cos(d L_train / d w_o, d L_valid / d w_o) of all weights w_o of op o, both
    at the weights before the step. After every ``window`` such steps an op stops whose mean is below ``similarity``;
    from then on its weights stay as they are. All is done on the device, where nothing branches on a value: gradients
    of ops that have stopped are computed all the same.
    """

    def __init__(self, cells: Iterable[nn.Module], similarity: float, window: int) -> None:
        self.similarity, self.window = similarity, window
        self.names: list[tuple[int, int, str]] = []
        """Per op that has weights its cell, its edge, and what it is."""
        self.parameters: list[nn.Parameter] = []
        sizes: list[int] = []
        for number, cell in enumerate(cells):
            assert isinstance(cell, SearchGraph)
            for edge, ops in enumerate(cell.edges):
                assert isinstance(ops, nn.ModuleDict)
                for name, op in ops.items():
                    own = list(op.parameters())
                    if own:
                        self.names.append((number, edge, name))
                        self.parameters += own
                        sizes.append(sum(parameter.numel() for parameter in own))
        like = self.parameters[0]
        self._sizes = torch.tensor(sizes, device=like.device)
        self._shapes = [parameter.numel() for parameter in self.parameters]
        self.total = torch.zeros(len(sizes), device=like.device)
        self.steps = torch.zeros((), device=like.device)
        self.stopped = torch.zeros(len(sizes), dtype=torch.bool, device=like.device)
        self._valid = torch.zeros(sum(sizes), device=like.device)
        self._waiting = False

    def validation(self, gradients: Sequence[Tensor]) -> None:
        """Take the gradients of :attr:`parameters` on a batch of judging images."""
        self._valid.copy_(_flat(gradients))
        self._waiting = True

    def training(self) -> None:
        """Compare them with those that the parameters hold, and let ops stop when it is time."""
        if not self._waiting:  # alphas rest
            return
        self._waiting = False
        held = [p.grad if p.grad is not None else torch.zeros_like(p) for p in self.parameters]
        self.total += self._cosines(_flat(held), self._valid)
        self.steps += 1
        full = self.steps == self.window
        self.stopped |= full & (self.total / self.window < self.similarity)
        self.total *= ~full
        self.steps *= ~full

    def before(self) -> Tensor:
        """The weights of all ops, for :meth:`put_back`."""
        return _flat([parameter.detach() for parameter in self.parameters])

    @torch.no_grad()
    def put_back(self, before: Tensor) -> None:
        """Give ops that have stopped the weights that they had ``before`` the step."""
        still = self.stopped.repeat_interleave(self._sizes, output_size=len(before))
        kept = torch.where(still, before, self.before())
        parts = torch.split(kept, self._shapes)
        views = [part.view_as(p) for part, p in zip(parts, self.parameters, strict=True)]
        torch._foreach_copy_(list[Tensor](self.parameters), views)

    def _cosines(self, one: Tensor, other: Tensor) -> Tensor:
        sums = [self._sum(one * other), self._sum(one * one), self._sum(other * other)]
        return sums[0] / (sums[1] * sums[2]).sqrt().clamp_min(torch.finfo(one.dtype).tiny)

    def _sum(self, values: Tensor) -> Tensor:
        """Per op the sum of its values; unlike additions by index it is the same every time on a GPU."""
        found: Tensor = torch.segment_reduce(values, "sum", lengths=self._sizes, unsafe=True)
        return found

    def figures(self) -> dict[str, Any]:
        """For the history: how many ops have stopped, of each kind."""
        stopped = self.stopped.tolist()
        kinds: dict[str, int] = {}
        for (_, _, name), still in zip(self.names, stopped, strict=True):
            kinds[name] = kinds.get(name, 0) + still
        return {"ops": len(stopped), "stopped": sum(stopped), "of": kinds}

    def state_dict(self) -> dict[str, Tensor]:
        return {"total": self.total, "steps": self.steps, "stopped": self.stopped}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        for name, value in state.items():
            getattr(self, name).copy_(value)


def _flat(tensors: Sequence[Tensor]) -> Tensor:
    return torch.cat([tensor.detach().float().reshape(-1) for tensor in tensors])

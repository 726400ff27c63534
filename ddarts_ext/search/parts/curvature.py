"""How curved the loss is around the alphas, epoch by epoch, and the rule that ends a search where it grows much."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ddarts_ext.nn.forward_pass import Pass
from ddarts_ext.runs.ranks import current
from ddarts_ext.search.contributions.marginal import frozen
from ddarts_ext.search.parts.part import Part, Surroundings
from ddarts_ext.search.state import SearchState


def dominant_eigenvalue(gradient: Tensor, leaf: Tensor, start: Tensor, steps: int) -> tuple[Tensor, Tensor]:
    """([] the largest magnitude of an eigenvalue, its vector) of the Hessian of a loss with respect to ``leaf``, whose
    ``gradient`` can be differentiated, by ``steps`` power iterations: |H v| of a unit vector v, never above it."""
    vector, size = start, start.norm()
    for _ in range(steps):
        vector = vector / size.clamp_min(torch.finfo(leaf.dtype).tiny)
        (vector,) = torch.autograd.grad(gradient, leaf, vector, retain_graph=True)
        size = vector.norm()
    return size, vector


def growth(values: Sequence[float], window: int, delay: int) -> float | None:
    """The mean of ``window`` values up to ``delay`` before the last, over that of those up to the last; None where
    there are too few, or the latter is 0."""
    if len(values) < window + delay:
        return None
    now, before = sum(values[-window:]), sum(values[-window - delay : len(values) - delay])
    return before / now if now else None


class CurvaturePart(Part):
    """Adds to every record in which alphas moved ``curvature``: ``eigenvalue``, the dominant one of the Hessian of the
    loss on a random batch of the judging images with respect to the alphas, and ``growth``, its mean over
    ``window`` epochs ``delay`` epochs ago over that of now. Where growth is below ``ratio`` the search ends, and the
    alphas are those of ``delay`` epochs ago again: ``returned_to`` (RobustDARTS, 1909.09656, DARTS-ES).
    """

    def __init__(self, around: Surroundings) -> None:
        self.around, self.how = around, around.config.method.curvature
        self.values: list[float] = []
        self.tables: list[list[Tensor]] = []
        """The parameters of the architecture of the last epochs, as far as they may be returned to."""
        self.vector: Tensor | None = None
        """Where the iterations of the last epoch came to: the next ones begin there."""

    def after_epoch(self, state: SearchState, epoch: int, record: dict[str, Any]) -> bool:
        how, method = self.how, self.around.config.method
        if epoch < method.architect.alpha_start:
            return False
        self.values.append(float(self._eigenvalue(state, epoch)))
        parameters = list(state.architecture.parameters())
        self.tables = [*self.tables, [p.detach().clone() for p in parameters]][-how.curvature_delay - 1 :]
        record["curvature"] = {"eigenvalue": self.values[-1]}
        found = growth(self.values, how.curvature_window, how.curvature_delay)
        if found is None:
            return False
        record["curvature"]["growth"] = found
        if found >= how.curvature_ratio:
            return False
        with torch.no_grad():
            for parameter, before in zip(parameters, self.tables[0], strict=True):
                parameter.copy_(before)
        record["curvature"]["returned_to"] = epoch - how.curvature_delay
        return True

    def _eigenvalue(self, state: SearchState, epoch: int) -> Tensor:
        config, part = self.around.config, self.around.judging()
        # The batch follows from the epoch, so that a search that was killed takes the same one.
        generator = torch.Generator().manual_seed(config.seed + 3 + 1000 * epoch)
        rows = part[torch.randperm(len(part), generator=generator)[: config.method.batch]]
        (batch,) = self.around.dataset.train.batches(rows[None])
        images, labels = self.around.dataset.normalise(batch[0]), batch[1]
        leaf = state.architecture.leaf()
        with frozen(state.net), torch.enable_grad(), self.around.autocast():
            logits = state.net(images, state.architecture.to_weights(leaf), Pass(statistics="batch"))
            (gradient,) = torch.autograd.grad(self.around.objective.loss(logits, labels), leaf, create_graph=True)
            start = self.vector
            if start is None or not bool(start.any()):
                start = torch.randn(leaf.shape, generator=generator, dtype=leaf.dtype)
            found = dominant_eigenvalue(gradient, leaf, start.to(leaf), self.how.curvature_steps)
        # All ranks have taken the same batch, and must stop together.
        size, self.vector = current().average(found)
        return size

    def state_dict(self) -> dict[str, Any]:
        return {"values": list(self.values), "tables": self.tables, "vector": self.vector}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.values = [float(value) for value in state["values"]]
        self.tables = [[tensor.clone() for tensor in tables] for tables in state["tables"]]
        self.vector = state["vector"]

"""Statistics of the user's own ``BatchNorm2d`` modules, taken and followed as torch does."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from ddarts_ext import ops
from ddarts_ext.nn.norm import elements_per_group, unbiased_variance


def uses_batch(norm: nn.BatchNorm2d) -> bool:
    """Whether the norm takes the statistics of the batch (torch: in training, or without running statistics)."""
    return norm.training or (norm.running_mean is None and norm.running_var is None)


def given(norm: nn.BatchNorm2d) -> tuple[Tensor | None, Tensor | None]:
    """(mean, rstd) [1,C] where the norm uses its running statistics, else (None, None)."""
    if uses_batch(norm) or norm.running_mean is None or norm.running_var is None:
        return None, None
    return norm.running_mean.unsqueeze(0), (norm.running_var + norm.eps).rsqrt().unsqueeze(0)


class Running:
    """Running statistics to update at the end of a scope, all of them in a few calls."""

    def __init__(self) -> None:
        self._pending: dict[nn.BatchNorm2d, tuple[Tensor, Tensor, int]] = {}

    def record(self, norms: Sequence[nn.BatchNorm2d], mean: Tensor, rstd: Tensor, values: int) -> None:
        """mean, rstd: [len(norms), C] of batches with ``values`` values a channel."""
        for norm, row, scale in zip(norms, mean.unbind(0), rstd.unbind(0), strict=True):
            if not (norm.training and norm.track_running_stats):
                continue
            if norm in self._pending:  # used twice: one update after the other
                self.flush()
            self._pending[norm] = (row, scale, values)

    @torch.no_grad()
    def flush(self) -> None:
        """Update the buffers, with one call for all norms of equal momentum."""
        pending, self._pending = self._pending, {}
        counters = [norm.num_batches_tracked for norm in pending if norm.num_batches_tracked is not None]
        if counters:
            torch._foreach_add_(counters, 1)
        by_momentum: dict[float, tuple[list[Tensor], list[Tensor]]] = {}
        for norm, rows in _moments(pending):
            for buffer, row in zip((norm.running_mean, norm.running_var), rows, strict=True):
                if buffer is None:
                    continue
                row = row.to(buffer.dtype)
                if norm.momentum is None:  # the average over all batches so far
                    assert norm.num_batches_tracked is not None
                    buffer.add_((row - buffer) / norm.num_batches_tracked.to(buffer.dtype))
                    continue
                buffers, values = by_momentum.setdefault(norm.momentum, ([], []))
                buffers.append(buffer)
                values.append(row)
        for momentum, (buffers, values) in by_momentum.items():
            torch._foreach_lerp_(buffers, values, momentum)


def _moments(
    pending: dict[nn.BatchNorm2d, tuple[Tensor, Tensor, int]],
) -> Iterator[tuple[nn.BatchNorm2d, tuple[Tensor, Tensor]]]:
    """Each norm with its mean and unbiased variance."""
    alike: dict[tuple[object, ...], list[nn.BatchNorm2d]] = {}
    for norm, (_, rstd, values) in pending.items():
        alike.setdefault((norm.eps, values, rstd.shape, rstd.dtype, rstd.device), []).append(norm)
    for norms in alike.values():
        values = pending[norms[0]][2]
        rstd = torch.stack([pending[norm][1] for norm in norms])
        variance = unbiased_variance(rstd, norms[0].eps, values)
        for norm, row in zip(norms, variance.unbind(0), strict=True):
            yield norm, (pending[norm][0], row)


def normalise(x: Tensor, norm: nn.BatchNorm2d, running: Running, relu: bool = False) -> Tensor:
    """``norm(x)``, and the ReLU after it, in one kernel."""
    mean, rstd = given(norm)
    result = ops.grouped_batch_norm(x, norm.weight, norm.bias, mean=mean, rstd=rstd, eps=norm.eps, relu=relu)
    if mean is None:
        running.record([norm], result.mean, result.rstd, elements_per_group(x, 1))
    return result.out

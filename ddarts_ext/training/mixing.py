"""Batches whose images are mixed in pairs, with their labels: MixUp (Zhang et al., 1710.09412) and CutMix (Yun et al.,
1905.04899)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from torch import Tensor

from ddarts_ext.runs.objective import Objective


@dataclass(frozen=True)
class Mix:
    """How one batch is mixed: every image with its neighbour in the batch, which is in random order.

    kept: the share of an image's own label. box: (top, bottom, left, right) that comes from the neighbour in CutMix;
    without one the whole images are added, ``kept`` to 1 - ``kept`` (MixUp).
    """

    kept: float
    box: tuple[int, int, int, int] | None = None

    @classmethod
    def drawn(cls, mixup: float, cutmix: float, size: tuple[int, int], seed: int, epoch: int, step: int) -> Mix | None:
        """What step ``step`` of ``epoch`` does; None for nothing. mixup, cutmix: the a of Beta(a, a), 0 for never; of
        both, each step takes one by the toss of a coin.

        It follows from its arguments alone, so that a run that was resumed mixes as one that was not, and no device is
        waited for.
        """
        if not mixup and not cutmix:
            return None
        random = np.random.default_rng([seed, epoch, step])
        cut = bool(cutmix) and (not mixup or random.random() < 0.5)
        kept = float(random.beta(*2 * (cutmix if cut else mixup,)))
        if not cut:
            return cls(kept)
        # A box of the share 1 - kept, its centre uniform, cut off at the border: the label follows what is left of it.
        (height, width), side = size, 0.5 * np.sqrt(1.0 - kept)
        y, x = random.integers(height), random.integers(width)
        top, bottom = max(int(y - side * height), 0), min(int(y + side * height), height)
        left, right = max(int(x - side * width), 0), min(int(x + side * width), width)
        return cls(1.0 - (bottom - top) * (right - left) / (height * width), (top, bottom, left, right))

    def images(self, x: Tensor) -> Tensor:
        """[N, C, H, W] mixed."""
        if self.box is None:
            return x.mul(self.kept).add(x.roll(1, 0), alpha=1.0 - self.kept)
        top, bottom, left, right = self.box
        out = x.clone()
        out[:, :, top:bottom, left:right] = x.roll(1, 0)[:, :, top:bottom, left:right]
        return out


def mixed_loss(
    logits: Tensor,
    labels: Tensor,
    others: Tensor | None,
    kept: float,
    smoothing: float,
    objective: Objective | None = None,
) -> Tensor:
    """Loss with the label of an image, and with that of the image mixed into it, by their shares. objective: what the
    loss is, by default the cross-entropy."""
    how = objective or Objective()
    loss = how.loss(logits, labels, smoothing)
    if others is None:
        return loss
    return kept * loss + (1.0 - kept) * how.loss(logits, others, smoothing)

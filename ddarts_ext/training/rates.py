"""The learning rate of every step of a training."""

from __future__ import annotations

from ddarts_ext.runs.schedule import cosine
from ddarts_ext.training.config import TrainConfig


def rate(config: TrainConfig, epoch: int, part: float = 0.0) -> float:
    """The learning rate ``part`` of the way through ``epoch`` (from 0).

    In the ``warmup`` first epochs W it rises with every step: lr (epoch + part) / W (as AutoDL and IS-DARTS do). From
    there it changes by the epoch, e = epoch - W of E = epochs - W: ``cosine`` gives lr_min + (lr - lr_min)
    (1 + cos(pi e / E)) / 2, ``exponential`` lr gamma^e.
    """
    if epoch < config.warmup:
        return config.lr * (epoch + part) / config.warmup
    past = epoch - config.warmup
    if config.schedule == "exponential":
        return float(config.lr * config.gamma**past)
    return cosine(config.lr, config.lr_min, past, config.epochs - config.warmup)

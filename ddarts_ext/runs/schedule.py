"""Learning rates and drop probabilities over epochs."""

import math


def cosine(start: float, end: float, epoch: int, epochs: int) -> float:
    """Rate in epoch ``epoch`` (from 0) of ``epochs``: end + (start - end)(1 + cos(pi epoch / epochs)) / 2."""
    return end + 0.5 * (start - end) * (1 + math.cos(math.pi * epoch / epochs))

"""Columns of a table by slices."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def take_columns(table: Tensor, columns: Sequence[int]) -> Tensor:
    """``table[:, columns]`` by slices: a list becomes an index on the host, and the host waits for its copy."""
    parts: list[tuple[int, int]] = []
    for column in columns:
        if parts and parts[-1][1] == column:
            parts[-1] = parts[-1][0], column + 1
        else:
            parts.append((column, column + 1))
    slices = [table[:, begin:end] for begin, end in parts]
    return slices[0] if len(slices) == 1 else torch.cat(slices, 1)

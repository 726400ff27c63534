"""Columns by slices are the columns that an index gives, and no index is made."""

from __future__ import annotations

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from ddarts_ext.ops._columns import take_columns


class Names(TorchDispatchMode):
    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        seen.append(str(func))
        return func(*args, **(kwargs or {}))


seen: list[str] = []


@pytest.mark.parametrize("columns", [[0], [2, 3, 4], [0, 1, 4, 5, 6], [3, 0, 1], [6, 5, 4], list(range(7))])
def test_columns_by_slices(columns: list[int]) -> None:
    table = torch.arange(21.0).view(3, 7)
    seen.clear()
    with Names():
        found = take_columns(table, columns)
    assert not [name for name in seen if "index" in name or "copy" in name or "tensor" in name]
    assert torch.equal(found, table[:, columns])

"""The architecture parameters of all cells, in one tensor, with cells that share rows."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import torch
from torch import Tensor, nn

from ddarts_ext.search.relaxation import RELAXATIONS

SHARINGS = ("individual", "normal_reduction", "sequence")


def owners(
    sharing: str, cells: int, reductions: Collection[int], sequence: Sequence[int] | None = None
) -> tuple[int, ...]:
    """The row of the table that each cell reads.

    individual: one row per cell (D-DARTS). normal_reduction: one for the normal, one for the reduction cells (DARTS).
    sequence: cells of one sequence number share a row (DARTOpti); ``sequence`` gives the numbers.
    """
    if sharing == "individual":
        return tuple(range(cells))
    if sharing == "normal_reduction":
        return _numbered([cell in reductions for cell in range(cells)])
    if sharing == "sequence":
        if sequence is None or len(sequence) != cells:
            raise ValueError(f"search: sequence must have one number for each of {cells} cells, got {sequence}")
        return _numbered(sequence)
    raise ValueError(f"search: sharing must be one of {', '.join(SHARINGS)}, got {sharing!r}")


def _numbered(keys: Sequence[int | bool]) -> tuple[int, ...]:
    rows: dict[int | bool, int] = {}
    return tuple(rows.setdefault(key, len(rows)) for key in keys)


class ArchitectureParameters(nn.Module):
    """``table`` [rows, edges, ops]: all alphas. ``owner[c]``: the row that cell c reads.

    initial_scale: standard deviation of the start values; 0 starts at zero, where every op weighs the same.
    """

    def __init__(
        self,
        edges: int,
        ops: int,
        owner: Sequence[int],
        relaxation: str,
        *,
        initial_scale: float = 0.0,
        generator: torch.Generator | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__()
        if relaxation not in RELAXATIONS:
            raise ValueError(f"search: relaxation must be one of {', '.join(RELAXATIONS)}, got {relaxation!r}")
        self.owner = tuple(owner)
        self.relax = RELAXATIONS[relaxation]
        shape = (max(self.owner) + 1, edges, ops)
        self.table = nn.Parameter(torch.randn(shape, generator=generator, dtype=dtype) * initial_scale)
        self.register_buffer("rows", torch.tensor(self.owner), persistent=False)
        self.rows: Tensor

    @property
    def individual(self) -> bool:
        """Whether cell i reads row i, every cell its own."""
        return self.owner == tuple(range(len(self.owner)))

    def to_weights(self, table: Tensor) -> Tensor:
        """Op weights [cells, edges, ops] of any table of this shape: relaxed, then handed to all cells of a row."""
        relaxed = self.relax(table)
        return relaxed if self.individual else relaxed.index_select(0, self.rows)

    def weights(self) -> Tensor:
        """Op weights [cells, edges, ops] of the current table."""
        return self.to_weights(self.table)

    def by_cell(self, rows: Tensor) -> Tensor:
        """What is known per row [rows, ...], per cell [cells, ...]."""
        return rows if self.individual else rows.index_select(0, self.rows)

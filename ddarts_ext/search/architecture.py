"""The architecture parameters of all cells, in one tensor, with cells that share rows."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import torch
from torch import Tensor, nn

from ddarts_ext.search.edge_weights import EdgeWeights
from ddarts_ext.search.relaxation import RELAXATIONS
from ddarts_ext.search.samplers import SAMPLERS

_REMOVED = -1e9
"""The alpha of an op that was removed."""
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
    """``table`` [rows, edges, ops]: all alphas. ``owner[c]``: the row that cell c reads. ``edge_table`` [rows, edges]:
    the betas of methods with edge weights, else None.

    initial_scale: standard deviation of the start values; 0 starts at zero, where every op weighs the same.
    sampler: draws op weights, see :mod:`.samplers`, at ``temperature`` []. skip: the column of the op skip_connect, to
    whose weights ``auxiliary`` [] is added. Both are changed in place, from epoch to epoch. masked: ops may be removed:
    ``mask``, bool like the table, says which are left; it is changed in place too.

    What is differentiated is one tensor, :meth:`leaf`: the alphas, or [rows, edges, ops + 1] with the betas last.
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
        edge_weights: EdgeWeights | None = None,
        sampler: str = "none",
        skip: int | None = None,
        masked: bool = False,
    ) -> None:
        super().__init__()
        if relaxation not in RELAXATIONS:
            raise ValueError(f"search: relaxation must be one of {', '.join(RELAXATIONS)}, got {relaxation!r}")
        self.owner = tuple(owner)
        self._relaxation = RELAXATIONS[relaxation]
        shape = (max(self.owner) + 1, edges, ops)
        self.table = nn.Parameter(torch.randn(shape, generator=generator, dtype=dtype) * initial_scale)
        self.edge_weights = edge_weights
        self.edge_table: nn.Parameter | None = None
        if edge_weights is not None:
            self.edge_table = nn.Parameter(edge_weights.start(shape[0], initial_scale, generator, dtype))
        self.sampler = None if sampler == "none" else SAMPLERS[sampler]
        self.register_buffer("rows", torch.tensor(self.owner), persistent=False)
        self.register_buffer("temperature", torch.ones((), dtype=dtype), persistent=False)
        self.register_buffer("auxiliary", torch.zeros((), dtype=dtype), persistent=False)
        column = None if skip is None else torch.arange(ops).eq(skip).to(dtype)
        self.register_buffer("skip", column, persistent=False)
        self.register_buffer("mask", torch.ones(shape, dtype=torch.bool) if masked else None, persistent=False)
        self.rows: Tensor
        self.mask: Tensor | None
        self.temperature: Tensor
        self.auxiliary: Tensor
        self.skip: Tensor | None

    @property
    def individual(self) -> bool:
        """Whether cell i reads row i, every cell its own."""
        return self.owner == tuple(range(len(self.owner)))

    def joined(self) -> Tensor:
        """All parameters, [rows, edges, ops] or [rows, edges, ops + 1]."""
        return self.table if self.edge_table is None else torch.cat((self.table, self.edge_table.unsqueeze(-1)), -1)

    def leaf(self, requires_grad: bool = True) -> Tensor:
        """:meth:`joined` as a tensor of its own, to be differentiated."""
        return self.joined().detach().requires_grad_(requires_grad)

    def alphas(self, leaf: Tensor) -> Tensor:
        """The part of :meth:`leaf` that ``table`` is."""
        return leaf if self.edge_table is None else leaf[..., :-1]

    def take_gradient(self, gradient: Tensor | None) -> None:
        """Give the parameters their gradient, shaped as :meth:`leaf`, or none."""
        for parameter in self.parameters():
            parameter.grad = None
        if gradient is not None:
            # Fused optimisers read a gradient as it lies in memory.
            self.table.grad = self.alphas(gradient).to(self.table.dtype).contiguous()
            if self.edge_table is not None:
                self.edge_table.grad = gradient[..., -1].to(self.table.dtype).contiguous()

    def left(self, alphas: Tensor) -> Tensor:
        """Alphas [rows, edges, ops], those of removed ops so low that no other feels them."""
        # A large finite number, not infinity: an edge may have lost all its ops, and its softmax must not be NaN.
        return alphas if self.mask is None else alphas.masked_fill(~self.mask, _REMOVED)

    def relax(self, alphas: Tensor) -> Tensor:
        """The weights of the ops that are left on every edge, like the alphas; an op that is left alone weighs 1."""
        if self.mask is None:
            return self._relaxation(alphas)
        mask = self.mask.to(alphas.dtype)
        return torch.where(mask.sum(-1, keepdim=True) == 1, mask, self._relaxation(self.left(alphas)) * mask)

    def _of_those_left(self, weights: Tensor) -> Tensor:
        """Drawn weights, given that they are of an op that is left."""
        if self.mask is None:
            return weights
        found = weights * self.mask
        return found / found.sum(-1, keepdim=True).clamp_min(torch.finfo(found.dtype).tiny)

    def to_weights(self, leaf: Tensor) -> Tensor:
        """What ops are mixed by, [cells, edges, ops], from a tensor like :meth:`leaf`, without chance."""
        return self.mixing(self.relax(self.alphas(leaf)), leaf)

    def drawn(self, leaf: Tensor, generator: torch.Generator | None) -> Tensor:
        """What ops are mixed by in one pass: as :meth:`to_weights`, or drawn by the sampler, once for every row."""
        if self.sampler is None:
            return self.to_weights(leaf)
        draw = self.sampler.draw(self.left(self.alphas(leaf)), self.temperature, generator)
        return self.mixing(self._of_those_left(draw), leaf)

    def mixing(self, relaxed: Tensor, leaf: Tensor) -> Tensor:
        """[cells, edges, ops] from op weights [rows, edges, ops]: with the auxiliary skip connection, times the weights
        of their edges, handed to all cells of a row."""
        if self.skip is not None:
            relaxed = relaxed + self.auxiliary * self.skip
        if self.edge_weights is not None:
            relaxed = relaxed * self.edge_weights.weights(leaf[..., -1]).unsqueeze(-1)
        return self.by_cell(relaxed)

    def weights(self) -> Tensor:
        """What ops are mixed by when the supernet is judged, [cells, edges, ops]; never drawn."""
        leaf = self.joined()
        if self.sampler is None:
            return self.to_weights(leaf)
        return self.mixing(self._of_those_left(self.sampler.judged(self.left(self.table))), leaf)

    def op_weights(self) -> Tensor:
        """The weights of the ops of every edge by themselves, [rows, edges, ops], without gradient."""
        return self.relax(self.table.detach())

    def read_weights(self) -> Tensor:
        """What the result is read from, [rows, edges, ops]: with normalised edges, op weights times those of their
        edges."""
        found = self.op_weights()
        if self.edge_table is None or self.edge_weights is None or not self.edge_weights.normalised:
            return found
        return found * self.edge_weights.weights(self.edge_table.detach()).unsqueeze(-1)

    def by_cell(self, rows: Tensor) -> Tensor:
        """What is known per row [rows, ...], per cell [cells, ...]."""
        return rows if self.individual else rows.index_select(0, self.rows)

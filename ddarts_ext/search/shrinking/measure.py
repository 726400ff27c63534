"""The measure of every op of a supernet, taken from the tensors that its nodes sum, in one pass (IS-DARTS)."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from ddarts_ext.nn.forward_pass import NodeKey, Pass
from ddarts_ext.ops import channel_iim

CURVE = (1, 2, 3, 5, 7, 10, 15, 20, 30, 50, 70, 100, 150, 200, 300, 400, 500, 600, 800, 1000)


class Scorer:
    """Observer that measures every branch of every node where the node's sum reads it: raw, with its statistics.

    owner: the row of the result that each cell adds to; cells of one type share a row. form: see ``channel_iim``.
    """

    def __init__(self, owner: Sequence[int], edges: int, ops: int, form: str = "code") -> None:
        self.owner, self.form = tuple(owner), form
        self.shape = (max(owner) + 1, edges, ops)
        self.cells = tuple(self.owner.count(row) for row in range(self.shape[0]))
        self._tables: dict[object, Tensor] = {}
        self.reset()

    def reset(self) -> None:
        """Forget all samples."""
        self._total: Tensor | None = None
        self._seen: set[tuple[int, int]] = set()

    def __call__(
        self, key: NodeKey, branches: Sequence[Tensor], mean: Tensor, rstd: Tensor, normalize: Sequence[bool]
    ) -> None:
        values = channel_iim(branches, mean=mean, rstd=rstd, normalize=normalize, form=self.form)  # type: ignore[arg-type]
        if self._total is None:
            rows, edges, ops = self.shape
            self._total = values.new_zeros((rows, edges * ops, values.shape[1]), dtype=torch.float64)
        row = self.owner[key.cell]
        columns = self._table(key.columns, key.columns, values.device)
        self._total[row].index_add_(0, columns, values.double())
        self._seen.update((row, column) for column in key.columns)

    def _table(self, key: Hashable, values: Sequence[Any], device: torch.device) -> Tensor:
        """A small tensor of constants, made once: a copy from the host for every batch would make it wait."""
        if (key, device) not in self._tables:
            self._tables[key, device] = torch.tensor(values, device=device)
        return self._tables[key, device]

    def table(self) -> Tensor:
        """[rows, E, O, samples] of the batch since :meth:`reset`: the mean over the cells of a row.

        Ops that are not computed have the measure of a map of zeros, the worst there is.
        """
        if self._total is None:
            raise RuntimeError("Scorer: a network must run with the scorer as observer before its table is read")
        rows, columns, _ = self._total.shape
        mean = self._total / self._table("cells", self.cells, self._total.device)[:, None, None]
        seen = tuple(tuple((row, column) in self._seen for column in range(columns)) for row in range(rows))
        missing = ~self._table(seen, seen, mean.device)
        return mean.masked_fill(missing[..., None], worst(self.form)).view(*self.shape, -1)


def worst(form: str) -> float:
    """The measure of an op whose output does not vary over channels, ``none`` above all."""
    return torch.inf if form == "code" else 0.0


def badness(scores: Tensor, form: str) -> Tensor:
    """Scores turned so that the largest goes first: the ``code`` form is an information, ``paper`` its inverse."""
    return scores if form == "code" else -scores


@torch.no_grad()
def measured(
    net: nn.Module,
    weights: Tensor,
    batches: Iterable[Tensor],
    owner: Sequence[int],
    *,
    form: str = "code",
    autocast: Callable[[], AbstractContextManager[object]] = nullcontext,
) -> Iterator[Tensor]:
    """For every batch of images the measure of every op and sample, [rows, E, O, samples], float64.

    The network runs in evaluation mode and is left in the mode it was in. Norms that keep running statistics use them;
    those in cells of the IS-DARTS spaces keep none and use the batch's.
    """
    scorer = Scorer(owner, weights.shape[-2], weights.shape[-1], form)
    training = net.training
    net.eval()
    try:
        for images in batches:
            scorer.reset()
            with autocast():
                net(images, weights, Pass(statistics="running", observe=scorer))
            yield scorer.table()
    finally:
        net.train(training)


def average(tables: Iterable[Tensor]) -> Tensor:
    """[rows, E, O]: the mean over all samples of all batches."""
    total, samples = None, 0
    for table in tables:
        part = table.sum(-1)
        total = part if total is None else total + part
        samples += table.shape[-1]
    if total is None:
        raise ValueError("measure: there must be at least one sample, got none")
    return total / samples


def growing(tables: Iterable[Tensor]) -> tuple[list[int], Tensor]:
    """Numbers of samples, and the mean over so many of the first ones: [len, rows, E, O]."""
    table = torch.cat(list(tables), -1)
    sizes = [size for size in CURVE if size < table.shape[-1]] + [table.shape[-1]]
    mean = table.cumsum(-1)[..., [size - 1 for size in sizes]] / torch.tensor(sizes, device=table.device)
    return sizes, mean.movedim(-1, 0)

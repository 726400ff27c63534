"""A language model around a recurrent cell: embedded words, the cell, and a decoder that shares the embedding."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ddarts_ext.genotype import Genotype
from ddarts_ext.nn.forward_pass import Pass
from ddarts_ext.nn.recurrent.cell import INITIAL, RecurrentCell
from ddarts_ext.nn.recurrent.dropout import Dropout, Masks, mask, masked
from ddarts_ext.ops import ACTIVATIONS
from ddarts_ext.spaces import Space


class Output(NamedTuple):
    """logits [T,B,V]; hidden [B,H], the state after the last step; states [T,B,H] of the cell, and as the decoder reads
    them, after dropout."""

    logits: Tensor
    hidden: Tensor
    states: Tensor
    dropped: Tensor

    def loss(self, targets: Tensor, activation: float = 0.0, slowness: float = 0.0) -> tuple[Tensor, Tensor]:
        """Cross-entropy of targets [T,B], with and without the penalties, both []: ``activation`` times the mean square
        of the dropped states, ``slowness`` times that of what the states change by from step to step (1708.01009)."""
        logits = self.logits if self.logits.dtype == torch.float64 else self.logits.float()
        plain = F.cross_entropy(logits.flatten(0, 1), targets.flatten())
        total = plain
        if activation:
            total = total + activation * self.dropped.square().mean()
        if slowness and len(self.states) > 1:
            total = total + slowness * (self.states[1:] - self.states[:-1]).square().mean()
        return total, plain


class LanguageModel(nn.Module):
    """Predicts the next word. words: size of the vocabulary. The embedding is as wide as the cell and is the decoder's
    matrix too."""

    reductions: tuple[int, ...] = ()

    def __init__(self, words: int, cell: RecurrentCell, dropout: Dropout | None = None) -> None:
        super().__init__()
        if cell.inputs != cell.hidden:
            raise ValueError(f"language model: inputs must be as wide as hidden, {cell.hidden}, got {cell.inputs}")
        self.encoder = nn.Embedding(words, cell.hidden)
        self.cells = nn.ModuleList([cell])
        self.bias = nn.Parameter(torch.zeros(words))
        self.dropout = Dropout() if dropout is None else dropout
        nn.init.uniform_(self.encoder.weight, -INITIAL, INITIAL)

    @property
    def cell(self) -> RecurrentCell:
        cell = self.cells[0]
        assert isinstance(cell, RecurrentCell)
        return cell

    def start(self, batch: int) -> Tensor:
        """The state before the first word, [batch, H]: zeros."""
        return self.encoder.weight.new_zeros(batch, self.cell.hidden)

    def masks(self, batch: int, generator: torch.Generator | None = None) -> Masks:
        """Masks of dropout for one pass over ``batch`` columns, drawn from ``generator``."""
        like, rate = self.encoder.weight, self.dropout
        wide = (batch, self.cell.hidden)
        return Masks(
            mask((len(self.bias), 1), rate.words, like, generator),
            mask(wide, rate.embedding, like, generator),
            mask(wide, rate.inputs, like, generator),
            mask(wide, rate.hidden, like, generator),
            mask(wide, rate.output, like, generator),
        )

    def forward(
        self,
        words: Tensor,
        hidden: Tensor,
        weights: Tensor | None = None,
        p: Pass | None = None,
        masks: Masks | None = None,
    ) -> Output:
        """words: [T,B], int64. hidden: [B,H]. weights: [1, edges, ops] of a supernet, with `none` in the first column.
        masks: of :meth:`masks`; without them nothing is dropped."""
        by = Masks() if masks is None else masks
        embedded = masked(F.embedding(words, masked(self.encoder.weight, by.words)), by.embedding)
        mixing = None if weights is None else self._mixing(weights)
        states, hidden = self.cell(embedded, hidden, mixing, of_inputs=by.inputs, of_hidden=by.hidden, p=p)
        read = masked(states, by.output)
        return Output(F.linear(read, self.encoder.weight, self.bias), hidden, states, read)

    def _mixing(self, weights: Tensor) -> list[Tensor]:
        return list(torch.split(weights[0, :, 1:], [len(node) for node in self.cell.sources]))


def supernet(space: Space, words: int, hidden: int, dropout: Dropout | None = None) -> LanguageModel:
    """The search network of a recurrent space: every node reads every state before it, through every activation."""
    if space.ops != ("none", *ACTIVATIONS):
        raise ValueError(f"supernet: ops must be none, {', '.join(ACTIVATIONS)}, got {', '.join(space.ops)}")
    sources = [range(node) for node in space.nodes]
    cell = RecurrentCell(hidden, hidden, sources, [ACTIVATIONS] * space.steps, space.concat, norm=True)
    return LanguageModel(words, cell, dropout)


def of_genotype(genotype: Genotype, words: int, hidden: int, dropout: Dropout | None = None) -> LanguageModel:
    """The language model whose cell is that of a genotype. Where a node has several ops, it is their sum."""
    if not genotype.recurrent:
        raise ValueError(f"language model: genotype must be that of a recurrent cell, got ops {sorted(genotype.ops)}")
    entries = genotype.live(0)
    missing = sorted(set(range(1, genotype.steps + 1)) - {entry.target for entry in entries})
    if missing:
        raise ValueError(f"language model: genotype must have an op for every node, got none for {missing}")
    sources, activations, mixing = [], [], []
    for node in range(1, genotype.steps + 1):
        own = [entry for entry in entries if entry.target == node]
        sources.append(sorted({entry.source for entry in own}))
        activations.append([name for name in ACTIVATIONS if any(entry.op == name for entry in own)])
        present = {(entry.source, entry.op) for entry in own}
        mixing.append(torch.tensor([[float((j, name) in present) for name in activations[-1]] for j in sources[-1]]))
    cell = RecurrentCell(hidden, hidden, sources, activations, genotype.concat, mixing=mixing)
    return LanguageModel(words, cell, dropout)

"""The recurrent cell of DARTS (section 2.1 and appendix A.1.2): highway updates along the edges of a small graph."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ddarts_ext.nn.forward_pass import Pass
from ddarts_ext.nn.recurrent.dropout import masked
from ddarts_ext.ops import recurrent_node

INITIAL = 0.04
"""Weights begin uniformly between -0.04 and 0.04."""


class RecurrentCell(nn.Module):
    """One cell, over a whole sequence.

    inputs, hidden: widths of what it reads and of its states. sources: for every node 1, 2, ... the states that it
    reads, 0 being the first one. activations: for every node the names of its activations, see
    :func:`ddarts_ext.ops.recurrent_node`. mixing: for every node [sources, activations], what they are mixed by; a
    supernet leaves it out and is told in every pass. output: the states whose mean the cell gives. norm: states go
    through one batch norm without weights, as in the search.

    ``first`` [inputs + hidden, 2 hidden] makes the first state, ``nodes`` [nodes, hidden, 2 hidden] have one matrix for
    every node, which all its edges and activations share.
    """

    def __init__(
        self,
        inputs: int,
        hidden: int,
        sources: Sequence[Sequence[int]],
        activations: Sequence[Sequence[str]],
        output: Sequence[int],
        *,
        mixing: Sequence[Tensor] | None = None,
        norm: bool = False,
    ) -> None:
        super().__init__()
        self.inputs, self.hidden, self.output = inputs, hidden, tuple(output)
        self.sources = tuple(tuple(node) for node in sources)
        self.activations = tuple(tuple(node) for node in activations)
        self.first = nn.Parameter(torch.empty(inputs + hidden, 2 * hidden).uniform_(-INITIAL, INITIAL))
        self.nodes = nn.Parameter(torch.empty(len(self.sources), hidden, 2 * hidden).uniform_(-INITIAL, INITIAL))
        self.norm = nn.BatchNorm1d(hidden, affine=False) if norm else None
        self.register_buffer("one", torch.ones(1, 1), persistent=False)
        self.one: Tensor
        self.fixed = mixing is not None
        for node, weights in enumerate(mixing or ()):
            self.register_buffer(f"mixing{node}", weights, persistent=False)

    def forward(
        self,
        inputs: Tensor,
        hidden: Tensor,
        mixing: Sequence[Tensor] | None = None,
        *,
        of_inputs: Tensor | None = None,
        of_hidden: Tensor | None = None,
        p: Pass | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Outputs [T,B,H] and the last hidden state [B,H], of inputs [T,B,I] and the state before them [B,H].

        of_inputs [B,I], of_hidden [B,H]: masks of dropout, the same for all steps.
        """
        if self.fixed:
            mixing = [getattr(self, f"mixing{node}") for node in range(len(self.sources))]
        assert mixing is not None
        # The same for all steps: products of the inputs, and for every state the matrices of the nodes that read it.
        products = masked(inputs, of_inputs) @ self.first[: self.inputs]
        recurrent, columns = self.first[self.inputs :], self._columns()
        p, outputs = p or Pass(), []
        for product in products.unbind(0):
            before = masked(hidden, of_hidden) @ recurrent
            state = recurrent_node([hidden], [product + before], self.one, ("tanh",))
            hidden = self._step(self._normalised(state, p), columns, mixing, of_hidden, p)
            outputs.append(hidden)
        return torch.stack(outputs), hidden

    def _columns(self) -> list[Tensor | None]:
        """Per state the matrices of the nodes that read it, side by side, [H, readers * 2H]; None for no reader."""
        matrices = self.nodes.unbind(0)
        readers = [
            [matrix for matrix, node in zip(matrices, self.sources, strict=True) if state in node]
            for state in range(len(self.sources) + 1)
        ]
        return [torch.cat(found, 1) if found else None for found in readers]

    def _step(
        self,
        state: Tensor,
        columns: Sequence[Tensor | None],
        mixing: Sequence[Tensor],
        of_hidden: Tensor | None,
        p: Pass,
    ) -> Tensor:
        states, gates = [state], dict[tuple[int, int], Tensor]()
        for node, (sources, names) in enumerate(zip(self.sources, self.activations, strict=True)):
            matrices = columns[node]
            if matrices is not None:
                readers = [reader for reader, read in enumerate(self.sources) if node in read]
                product = masked(states[node], of_hidden) @ matrices
                for reader, gate in zip(readers, torch.split(product, 2 * self.hidden, 1), strict=True):
                    gates[reader, node] = gate
            read, products = [states[source] for source in sources], [gates[node, source] for source in sources]
            states.append(self._normalised(recurrent_node(read, products, mixing[node], names), p))
        return torch.stack([states[node] for node in self.output]).mean(0)

    def _normalised(self, state: Tensor, p: Pass) -> Tensor:
        norm = self.norm
        if norm is None:
            return state
        if p.statistics == "batch":
            return F.batch_norm(state, None, None, training=True, eps=norm.eps)
        training = p.statistics == "update"
        momentum = 0.1 if norm.momentum is None else norm.momentum
        return F.batch_norm(
            state, norm.running_mean, norm.running_var, training=training, momentum=momentum, eps=norm.eps
        )

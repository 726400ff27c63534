"""``recurrent_node``: the mixed update of a node of the recurrent cell, over all its predecessors at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from ddarts_ext.ops._checks import accumulate_dtype, check_floating, check_same_device, check_shape, listed
from ddarts_ext.ops._double_backward import through_reference
from ddarts_ext.ops._library import define_op

_OP = "recurrent_node"
ACTIVATIONS = ("tanh", "relu", "sigmoid", "identity")
MOST_STATES = 32
"""Predecessors of a node: their addresses travel as arguments of one launch."""

_FUNCTIONS: tuple[Callable[[Tensor], Tensor], ...] = (torch.tanh, torch.relu, torch.sigmoid, lambda h: h)


def recurrent_node(
    states: Sequence[Tensor], gates: Sequence[Tensor], weights: Tensor, activations: Sequence[str] = ACTIVATIONS
) -> Tensor:
    """Sum over predecessors and activations of highway updates (DARTS, the recurrent cell's search space):

        s = sum_p sum_f w[p,f] (s_p + sigmoid(c_p) (f(h_p) - s_p)),    [c_p | h_p] = gates[p].

    states: P tensors [B,H], the predecessors. gates: P tensors [B,2H], each the product of a predecessor with the
    weights of this node, its carry c_p in the first half. Floating; rows may be strided (slices of one product are read
    in place). weights: [P,F], what the activations are mixed by; they need not sum to 1, as `none` takes a part.
    activations: F names of ``tanh``, ``relu``, ``sigmoid``, ``identity``, each at most once.

    Returns [B,H] in the promoted dtype of states and gates; sums are float32, or float64 if any of them is. Gradients:
    of all states, gates and weights. At most 32 predecessors.
    """
    states, gates = listed(_OP, "states", states), listed(_OP, "gates", gates)
    chosen = _check(states, gates, weights, activations)
    dtype = states[0].dtype
    for x in (*states, *gates):
        dtype = torch.promote_types(dtype, x.dtype)
    if any(x.dtype != dtype for x in (*states, *gates)):
        states, gates = [x.to(dtype) for x in states], [x.to(dtype) for x in gates]
    result: Tensor = _forward(states, gates, weights, chosen)
    return result


def recurrent_node_reference(
    states: Sequence[Tensor], gates: Sequence[Tensor], weights: Tensor, activations: Sequence[int]
) -> Tensor:
    """The same with all predecessors stacked. activations: indices into ``ACTIVATIONS``."""
    carried, gate, hidden, mix = _widened(states, gates, weights)
    values = [_FUNCTIONS[activation](hidden) for activation in activations]
    updates = [mix[:, k, None, None] * (carried + gate * (value - carried)) for k, value in enumerate(values)]
    return torch.stack(updates).sum((0, 1)).to(states[0].dtype)


def _widened(states: Sequence[Tensor], gates: Sequence[Tensor], weights: Tensor) -> tuple[Tensor, ...]:
    """States, sigmoid of the carry and hidden part [P,B,H], weights [P,F], all in the dtype of sums."""
    sums = accumulate_dtype(states[0].dtype)
    carry, hidden = torch.stack(list(gates)).to(sums).chunk(2, -1)
    return torch.stack(list(states)).to(sums), carry.sigmoid(), hidden, weights.to(sums)


def _check(states: list[Tensor], gates: list[Tensor], weights: Tensor, activations: Sequence[str]) -> list[int]:
    if not 1 <= len(states) <= MOST_STATES:
        raise ValueError(f"{_OP}: states must be 1 to {MOST_STATES} tensors, got {len(states)}")
    if len(gates) != len(states):
        raise ValueError(f"{_OP}: gates must be one per state, {len(states)}, got {len(gates)}")
    check_floating(_OP, "states[0]", states[0])
    if states[0].dim() != 2:
        raise ValueError(f"{_OP}: states[0] must be [B,H], got {list(states[0].shape)}")
    batch, hidden = states[0].shape
    for name, tensors, columns, letters in (
        ("states", states, hidden, "[B,H]"),
        ("gates", gates, 2 * hidden, "[B,2H]"),
    ):
        for i, x in enumerate(tensors):
            check_floating(_OP, f"{name}[{i}]", x)
            check_same_device(_OP, f"{name}[{i}]", x, states[0].device)
            check_shape(_OP, f"{name}[{i}]", x, [batch, columns], letters)
    activations = listed(_OP, "activations", activations, "names")
    if any(not isinstance(name, str) or name not in ACTIVATIONS for name in activations):
        raise ValueError(f"{_OP}: activations must be names of {', '.join(ACTIVATIONS)}, got {activations!r}")
    if not activations or len(set(activations)) != len(activations):
        raise ValueError(f"{_OP}: activations must be distinct and at least one, got {list(activations)}")
    check_floating(_OP, "weights", weights)
    check_same_device(_OP, "weights", weights, states[0].device)
    check_shape(_OP, "weights", weights, [len(states), len(activations)], "[P,F]")
    return [ACTIVATIONS.index(name) for name in activations]


def _fake(states: Sequence[Tensor], gates: Sequence[Tensor], weights: Tensor, activations: Sequence[int]) -> Tensor:
    return states[0].new_empty(states[0].shape)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    states, gates, weights, ctx.activations = inputs
    ctx.count = len(states)
    ctx.save_for_backward(*states, *gates, weights)


def _backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    *rows, weights = ctx.saved_tensors
    states, gates = rows[: ctx.count], rows[ctx.count :]
    of_states, of_gates, of_weights = torch.ops.ddarts_ext.recurrent_node_backward(
        grad, states, gates, weights, ctx.activations
    )
    return list(of_states.unbind(0)), list(of_gates.unbind(0)), of_weights, None


def recurrent_node_backward_reference(
    grad: Tensor, states: Sequence[Tensor], gates: Sequence[Tensor], weights: Tensor, activations: Sequence[int]
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of the states [P,B,H], of the gates [P,B,2H] and of the weights [P,F].

    With g = sigmoid(c), m = sum_f w_f f(h), W = sum_f w_f: grad_s = grad W (1 - g), grad_c = grad (m - W s) g (1 - g),
    grad_h = grad g sum_f w_f f'(h), grad_w_f = sum over B and H of grad (s + g (f(h) - s)).
    """
    carried, gate, hidden, mix = _widened(states, gates, weights)
    sent = grad.to(carried.dtype)
    value, slope, of_weights = torch.zeros_like(hidden), torch.zeros_like(hidden), []
    for k, activation in enumerate(activations):
        found = _FUNCTIONS[activation](hidden)
        value = value + mix[:, k, None, None] * found
        slope = slope + mix[:, k, None, None] * _slope(activation, hidden, found)
        of_weights.append((sent * (carried + gate * (found - carried))).sum((1, 2)))
    total = mix.sum(1)[:, None, None]
    of_states = sent * total * (1 - gate)
    of_gates = torch.cat((sent * (value - total * carried) * gate * (1 - gate), sent * gate * slope), -1)
    dtype = states[0].dtype
    return of_states.to(dtype), of_gates.to(dtype), torch.stack(of_weights, 1).to(weights.dtype)


def _slope(activation: int, hidden: Tensor, value: Tensor) -> Tensor:
    if activation == 0:
        return 1 - value.square()
    if activation == 1:
        return (hidden > 0).to(hidden.dtype)
    if activation == 2:
        return value * (1 - value)
    return torch.ones_like(hidden)


def _backward_fake(
    grad: Tensor, states: Sequence[Tensor], gates: Sequence[Tensor], weights: Tensor, activations: Sequence[int]
) -> tuple[Tensor, Tensor, Tensor]:
    batch, hidden = states[0].shape
    count = len(states)
    of_states = states[0].new_empty((count, batch, hidden))
    return of_states, states[0].new_empty((count, batch, 2 * hidden)), weights.new_empty(weights.shape)


define_op(
    "recurrent_node_backward(Tensor grad, Tensor[] states, Tensor[] gates, Tensor weights, int[] activations)"
    " -> (Tensor, Tensor, Tensor)",
    reference=recurrent_node_backward_reference,
    fake=_backward_fake,
    **through_reference(recurrent_node_backward_reference),
)
_forward = define_op(
    "recurrent_node(Tensor[] states, Tensor[] gates, Tensor weights, int[] activations) -> Tensor",
    reference=recurrent_node_reference,
    fake=_fake,
    backward=_backward,
    setup_context=_setup_context,
)

"""recurrent_node: equal to the highway updates added up one by one, in values, gradients and on the emulated GPU."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from ops.tolerances import DTYPES, assert_close
from torch import Tensor

from ddarts_ext.ops._library import has_kernel
from ddarts_ext.ops.recurrent_node import (
    ACTIVATIONS,
    recurrent_node,
    recurrent_node_backward_reference,
    recurrent_node_reference,
)

SHAPES = [(3, 5), (1, 16), (7, 33), (4, 1), (0, 4), (3, 0), (20, 300)]
SUBSETS: list[tuple[str, ...]] = [
    subset for size in range(1, 5) for subset in itertools.combinations(ACTIVATIONS, size)
]


def by_hand(
    states: Sequence[Tensor], gates: Sequence[Tensor], weights: Tensor, activations: Sequence[str] = ACTIVATIONS
) -> Tensor:
    """One update after the other, as the cell's equations have them."""
    functions = {"tanh": torch.tanh, "relu": torch.relu, "sigmoid": torch.sigmoid, "identity": lambda h: h}
    total = torch.zeros_like(states[0])
    for p, (state, gate) in enumerate(zip(states, gates, strict=True)):
        carry, hidden = gate[:, : state.shape[1]], gate[:, state.shape[1] :]
        for k, name in enumerate(activations):
            total = total + weights[p, k] * (state + carry.sigmoid() * (functions[name](hidden) - state))
    return total


def tensors(
    count: int, shape: tuple[int, int], dtype: torch.dtype, columns: int = 4, scale: float = 2.0
) -> tuple[list[Tensor], list[Tensor], Tensor]:
    batch, hidden = shape
    states = [torch.randn(batch, hidden).to(dtype) for _ in range(count)]
    gates = [(scale * torch.randn(batch, 2 * hidden)).to(dtype) for _ in range(count)]
    return states, gates, torch.rand(count, columns).to(torch.float64 if dtype == torch.float64 else torch.float32)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("count", [1, 3, 9])
def test_equals_the_updates_one_by_one(dtype: torch.dtype, shape: tuple[int, int], count: int) -> None:
    states, gates, weights = tensors(count, shape, dtype)
    leaves = [leaf.requires_grad_() for leaf in (*states, *gates, weights)]
    out = recurrent_node(states, gates, weights)
    exact = [leaf.detach().double().requires_grad_() for leaf in leaves]
    expected = by_hand(exact[:count], exact[count:-1], exact[-1])
    assert out.dtype == dtype
    assert_close(out, expected, dtype)
    grad = torch.randn_like(out)
    found = torch.autograd.grad(out, leaves, grad)
    for ours, theirs, leaf in zip(found, torch.autograd.grad(expected, exact, grad.double()), leaves, strict=True):
        assert ours.dtype == leaf.dtype
        assert_close(ours, theirs, dtype, gradient=True)


@pytest.mark.parametrize("activations", SUBSETS, ids="-".join)
def test_every_choice_of_activations(activations: tuple[str, ...]) -> None:
    states, gates, weights = tensors(2, (4, 19), torch.float32, len(activations))
    leaves = [leaf.requires_grad_() for leaf in (*states, *gates, weights)]
    out = recurrent_node(states, gates, weights, activations[::-1])
    exact = [leaf.detach().double().requires_grad_() for leaf in leaves]
    expected = by_hand(exact[:2], exact[2:-1], exact[-1], activations[::-1])
    assert_close(out, expected)
    for ours, theirs in zip(
        torch.autograd.grad(out.sum(), leaves), torch.autograd.grad(expected.sum(), exact), strict=True
    ):
        assert_close(ours, theirs, gradient=True)


@pytest.mark.parametrize("scale", [1e-4, 1e-2, 1.0, 30.0, 1e4])
def test_activations_are_exact_to_a_few_roundings_at_every_size(scale: float) -> None:
    gates = scale * torch.randn(64, 200)
    state = torch.zeros(64, 100)
    open_gate = torch.cat((torch.full((64, 100), 50.0), gates[:, 100:]), 1)
    for name, function in (("tanh", torch.tanh), ("sigmoid", torch.sigmoid)):
        found = recurrent_node([state], [open_gate], torch.ones(1, 1), [name])
        torch.testing.assert_close(found, function(gates[:, 100:].double()).float(), rtol=1e-6, atol=1e-37)


def test_what_is_not_finite_stays_so() -> None:
    inf, nan = float("inf"), float("nan")
    hidden = torch.tensor([[inf, -inf, nan, 0.0]])
    gate = torch.cat((torch.zeros(1, 4), hidden), 1)
    for names in (["tanh"], ["relu"], ["sigmoid"], ["tanh", "sigmoid"], list(ACTIVATIONS)):
        weights = torch.ones(1, len(names))
        found = recurrent_node([torch.zeros(1, 4)], [gate], weights, names)
        expected = by_hand([torch.zeros(1, 4)], [gate], weights, names)
        torch.testing.assert_close(found, expected, equal_nan=True)


def test_strided_rows_and_columns_and_mixed_dtypes() -> None:
    product, (states, gates, weights) = torch.randn(6, 40), tensors(3, (6, 5), torch.float32)
    slices = list(product[:, 10:].split(10, 1))
    columns = [torch.randn(10, 6).t() for _ in range(3)]
    expanded = [torch.randn(1, 10).expand(6, 10) for _ in range(3)]
    for given in (slices, columns, expanded, [gate.half() for gate in gates], [gate.double() for gate in gates]):
        found = recurrent_node(states, given, weights)
        wide = torch.float64 if given[0].dtype == torch.float64 else torch.float32
        assert found.dtype == wide
        assert_close(found, by_hand(states, [gate.to(wide) for gate in given], weights), torch.float32)
    wide_weights = torch.rand(3, 5)[:, 1:]
    assert_close(recurrent_node(states, slices, wide_weights), by_hand(states, slices, wide_weights))


@pytest.mark.skipif(not has_kernel("recurrent_node", "cpu"), reason="torch's sums promise no such thing")
def test_results_do_not_depend_on_the_number_of_threads() -> None:
    states, gates, weights = tensors(4, (64, 300), torch.float32)
    leaves = [leaf.requires_grad_() for leaf in (*states, *gates, weights)]
    before, results = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            out = recurrent_node(states, gates, weights)
            results.append([out, *torch.autograd.grad(out.square().sum(), leaves)])
    finally:
        torch.set_num_threads(before)
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


@pytest.mark.parametrize("activations", [ACTIVATIONS, ("sigmoid", "tanh")])
def test_gradcheck_and_gradgradcheck(activations: Sequence[str]) -> None:
    states, gates, weights = tensors(2, (2, 3), torch.float64, len(activations))
    leaves = [leaf.requires_grad_() for leaf in (*states, *gates, weights)]

    def node(*given: Tensor) -> Tensor:
        return recurrent_node(given[:2], given[2:4], given[4], activations).sin()

    assert torch.autograd.gradcheck(node, leaves)
    assert torch.autograd.gradgradcheck(node, leaves)


def test_second_derivatives_are_those_of_the_formula() -> None:
    states, gates, weights = tensors(3, (2, 4), torch.float64)
    leaves = [leaf.requires_grad_() for leaf in (*states, *gates, weights)]
    products = []
    for node in (recurrent_node, by_hand):
        slopes = torch.autograd.grad(node(leaves[:3], leaves[3:6], leaves[6]).cos().sum(), leaves, create_graph=True)
        products.append(torch.autograd.grad(torch.stack([s.square().sum() for s in slopes]).sum(), leaves))
    for ours, theirs in zip(*products, strict=True):
        assert_close(ours, theirs, gradient=True)


def test_opcheck() -> None:
    states, gates, weights = tensors(2, (3, 4), torch.float32)
    states[0].requires_grad_()
    op, backward = torch.ops.ddarts_ext.recurrent_node.default, torch.ops.ddarts_ext.recurrent_node_backward.default
    torch.library.opcheck(op, (states, gates, weights.requires_grad_(), [0, 1, 2, 3]))
    torch.library.opcheck(backward, (torch.randn(3, 4), states, gates, weights, [0, 1, 2, 3]))


def test_compile() -> None:
    states, gates, weights = tensors(2, (3, 4), torch.float32)
    weights.requires_grad_()

    def step(states: list[Tensor], gates: list[Tensor], weights: Tensor) -> Tensor:
        return recurrent_node(states, gates, weights) * 2

    compiled = torch.compile(step, fullgraph=True)
    grads = [torch.autograd.grad(f(states, gates, weights).square().sum(), weights)[0] for f in (step, compiled)]
    assert_close(grads[1], grads[0], gradient=True)


@pytest.mark.not_on_meta
def test_autocast_leaves_the_states_wide() -> None:
    states, _, weights = tensors(1, (3, 4), torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        gate = states[0] @ torch.randn(4, 8)
        assert gate.dtype == torch.bfloat16
        assert recurrent_node(states, [gate], weights).dtype == torch.float32


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda s, g, w: recurrent_node([], [], w), ValueError, "states must be 1 to 32 tensors, got 0"),
        (lambda s, g, w: recurrent_node(s * 20, g * 20, w), ValueError, "states must be 1 to 32 tensors, got 40"),
        (lambda s, g, w: recurrent_node(s, g[:1], w), ValueError, "gates must be one per state, 2, got 1"),
        (lambda s, g, w: recurrent_node([s[0][0]] * 2, g, w), ValueError, r"states\[0\] must be \[B,H\], got \[4\]"),
        (lambda s, g, w: recurrent_node([s[0].int()] * 2, g, w), TypeError, r"states\[0\] must be float64"),
        (
            lambda s, g, w: recurrent_node([s[0], s[1][:1]], g, w),
            ValueError,
            r"states\[1\] must be \[B,H\]=\[3, 4\], got \[1, 4\]",
        ),
        (lambda s, g, w: recurrent_node(s, s, w), ValueError, r"gates\[0\] must be \[B,2H\]=\[3, 8\], got \[3, 4\]"),
        (lambda s, g, w: recurrent_node(s, g, w[:, :3]), ValueError, r"weights must be \[P,F\]=\[2, 4\], got \[2, 3\]"),
        (lambda s, g, w: recurrent_node(s, g, w, ["elu"]), ValueError, "activations must be names of tanh, relu"),
        (
            lambda s, g, w: recurrent_node(s, g, w, "tanh"),
            TypeError,
            "activations must be a sequence of names, got str",
        ),
        (lambda s, g, w: recurrent_node(s, g, w, []), ValueError, r"activations must be distinct and at least one"),
        (lambda s, g, w: recurrent_node(s, g, w, ["relu"] * 4), ValueError, r"activations must be distinct"),
    ],
)
def test_errors(call: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=f"^recurrent_node: {message}"):
        call(*tensors(2, (3, 4), torch.float32))


@pytest.mark.parametrize("dtype", DTYPES)
def test_emulated_cuda_kernels(emulated: Any, dtype: torch.dtype) -> None:
    forward, backward = emulated.op("recurrent_node"), emulated.op("recurrent_node_backward")
    cases = itertools.product([(3, 5), (7, 32), (0, 4), (40, 64)], (1, 3), ([0, 1, 2, 3], [2, 0], [1]))
    for shape, count, activations in cases:
        states, gates, weights = tensors(count, shape, dtype, len(activations))
        if shape[1] == 32:
            gates = list(torch.cat(gates, 1).split(2 * shape[1], 1))
        grad = torch.randn(shape).to(dtype)
        exact = [x.double() for x in states], [x.double() for x in gates], weights.double()
        expected = recurrent_node_reference(*exact, activations)
        gradients = recurrent_node_backward_reference(grad.double(), *exact, activations)
        for _ in emulated.orders():
            assert_close(forward(states, gates, weights, activations), expected, dtype)
            found = backward(grad, states, gates, weights, activations)
            for ours, theirs in zip(found, gradients, strict=True):
                assert_close(ours, theirs, dtype, gradient=True)
            assert found[2].dtype == weights.dtype


def test_emulated_cuda_kernels_stay_inside_their_tensors(emulated: Any) -> None:
    emulated.check_addresses(
        "recurrent_node",
        """
for dtype in (torch.float32, torch.float16):
    for batch, hidden in ((3, 5), (7, 32)):
        states = [torch.randn(batch, hidden).to(dtype) for _ in range(3)]
        gates = [torch.randn(batch, 2 * hidden).to(dtype) for _ in range(3)]
        weights = torch.rand(3, 4)
        out = ops.recurrent_node(states, gates, weights, [0, 1, 2, 3])
        ops.recurrent_node_backward(out, states, gates, weights, [0, 1, 2, 3])
""",
    )

"""Arguments of a wrong type are refused by the op itself, in words that name them; none reaches the dispatcher."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from ddarts_ext import ops

X, TAPS, MIXING = torch.randn(4, 8, 6, 6), torch.ones(8, 1, 3, 3), torch.ones(8, 8, 1, 1)
EDGES = ops.Edges((0,), (0,), (True,), (1,), (0,))
CALLS: dict[Callable[..., Any], dict[str, Any]] = {
    ops.Edges: {
        "targets": (0,), "kinds": (0,), "normalize": (True,), "dilations": (1,), "seconds": (0,), "stride": 1,
    },
    ops.channel_iim: {"maps": [X]},
    ops.grouped_batch_norm: {"x": X},
    ops.mixed_edges: {
        "x": X, "edges": EDGES, "depthwise": [TAPS] * 2, "pointwise": [MIXING] * 2, "weights": torch.ones(1, 1),
    },
    ops.mixed_sum: {"branches": [X, X], "weights": torch.ones(1, 2)},
    ops.pool3x3: {"x": X},
    ops.recurrent_node: {"states": [X[0, 0]], "gates": [X[0, 0].repeat(1, 2)], "weights": torch.ones(1, 4)},
    ops.relu_depthwise_conv2d: {"x": X, "weights": [TAPS], "dilations": [1]},
    ops.relu_pointwise_conv2d: {"x": X, "weights": [MIXING]},
    ops.relu_separable_conv2d: {"inputs": [X], "weights": [TAPS], "pointwise": [MIXING], "dilations": [1]},
    ops.spawn_group: {"groups": None, "source": X},
}  # fmt: skip
"""Arguments that are right."""
WRONG: list[Any] = [
    *(None, 1.0, True, 3, -1, 1 << 70, "a", X[0, 0, 0], torch.tensor(1)),
    *([1.5], ["a"], [None], [[1]], [True], [1 << 70], {}, object()),
]


def fits(value: Any, annotation: str) -> bool:
    """Whether a value of WRONG is right for an argument after all, and may be taken."""
    if value is None:
        return "None" in annotation
    if isinstance(value, Tensor):
        return False
    if annotation.startswith(("Sequence", "tuple")):
        return "bool" in annotation and value == [True]
    kinds: dict[str, tuple[type, ...]] = {"bool": (bool,), "int": (int,), "float": (int, float)}
    return type(value) in kinds.get(annotation, ())


def refusal(call: Callable[..., Any], arguments: dict[str, Any]) -> str | None:
    try:
        call(**arguments)
    except (TypeError, ValueError) as error:
        return str(error)
    return None


@pytest.mark.parametrize("call", CALLS, ids=lambda call: call.__name__)
def test_wrong_types_are_refused_by_name(call: Callable[..., Any]) -> None:
    call(**CALLS[call])
    for name, parameter in inspect.signature(call).parameters.items():
        for wrong in WRONG:
            if isinstance(wrong, Tensor) and "Tensor" in str(parameter.annotation).split("[")[0]:
                continue  # a tensor of another shape, for which there are other tests
            said = refusal(call, CALLS[call] | {name: wrong})
            if said is None:
                assert fits(wrong, str(parameter.annotation)), (name, wrong)
            else:
                assert said.startswith(f"{call.__name__}: "), (name, wrong, said)
                assert name in said, (name, wrong, said)


def test_a_target_far_off_is_refused_at_once() -> None:
    for far in (10**7, 1 << 62):
        with pytest.raises(ValueError, match=r"^Edges: targets must be 1 numbers of sums"):
            ops.Edges((far,), (ops.SKIP,), (False,))


def test_lists_serve_as_tuples() -> None:
    edges = ops.Edges([0, 0], [ops.SKIP, 0], [False, True], [1])  # type: ignore[arg-type]
    assert edges == ops.Edges((0, 0), (ops.SKIP, 0), (False, True), (1,))
    assert hash(edges) == hash(ops.Edges((0, 0), (ops.SKIP, 0), (False, True), (1,)))


@pytest.mark.not_on_meta
def test_numbers_of_numpy_serve_as_pythons() -> None:
    edges = ops.Edges(np.array([0]), np.array([0]), np.array([True]), np.array([2]))  # type: ignore[arg-type]
    assert json.dumps(asdict(edges)) == json.dumps(asdict(ops.Edges((0,), (0,), (True,), (2,))))
    two = np.int64(2)
    calls = (
        lambda two: ops.pool3x3(X, stride=two).maximum,
        lambda two: ops.relu_depthwise_conv2d(X, [TAPS], dilations=[two], stride=two, groups=two).outputs[0],
        lambda two: ops.relu_separable_conv2d([X], [TAPS], [MIXING], dilations=[two], stride=two, groups=two).outputs[
            0
        ],
        lambda two: ops.grouped_batch_norm(X, groups=two).out,
        lambda two: ops.spawn_group(None, X, copies=two, stride=two),
    )
    for call in calls:
        assert torch.equal(call(two), call(2))
    flags = np.array([True, False])
    assert ops.mixed_sum([X, X], torch.ones(1, 2), normalize=flags).rstd[0, 1].eq(1).all()  # type: ignore[arg-type]


@pytest.mark.not_on_meta
def test_edges_of_numpy_compile() -> None:
    edges = ops.Edges(np.array([0]), np.array([0]), [True], np.array([2]))  # type: ignore[arg-type]

    def total(x: Tensor) -> Tensor:
        return ops.mixed_edges(x, edges, [TAPS], [MIXING], torch.ones(1, 1)).sums[0].square().sum()

    compiled = torch.compile(total, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(X), total(X))

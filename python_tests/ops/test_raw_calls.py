"""The raw ops, without the checks of the public functions: wrong arguments are an exception, never a signal."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from fuzzing import count
from ops.calls import valid_calls
from torch import Tensor

import ddarts_ext
from ddarts_ext import ops as public
from ddarts_ext.ops import Edges
from ddarts_ext.ops._library import defined_ops, has_kernel

CALLS = count(4000)
ops = torch.ops.ddarts_ext


def test_every_op_has_a_valid_call() -> None:
    calls = valid_calls()
    assert set(calls) == set(defined_ops())
    for name, args in calls.items():
        getattr(ops, name)(*args)


@pytest.mark.parametrize("seed", [0, 1])
def test_no_raw_call_ends_the_process(seed: int, tmp_path: Path) -> None:
    last = tmp_path / "last.txt"
    script = Path(__file__).with_name("fuzz_raw_calls.py")
    package = str(Path(ddarts_ext.__file__).parents[1])  # the one under test, installed or not
    done = subprocess.run(
        [sys.executable, str(script), str(seed), str(CALLS), str(last)],
        env=os.environ | {"PYTHONPATH": os.pathsep.join([package, os.environ.get("PYTHONPATH", "")])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, (
        f"exit {done.returncode} in {last.read_text()}\n{done.stderr[:3000]}\n...\n{done.stderr[-2000:]}"
    )
    assert f"{CALLS} calls" in done.stdout


def refused(name: str, place: int, value: Any) -> str:
    """The words with which a raw op refuses this value in this place."""
    args = list(valid_calls()[name])
    args[place] = value
    with pytest.raises(RuntimeError) as error:
        getattr(ops, name)(*args)
    return str(error.value)


@pytest.mark.not_on_meta
@pytest.mark.parametrize(
    ("name", "place", "value", "words"),
    [
        ("pool3x3", 1, 0, "pool3x3: stride must be 1 or 2, got 0"),
        ("pool3x3_backward", 3, 1000, "pool3x3_backward: the gradient must be [*,*,500,3], got [4,3,3,3]"),
        ("pool3x3_readers_backward", 2, [torch.ones(4, 3, 3, 3)], "others must be [4,3,6,5], got [4,3,3,3]"),
        ("grouped_batch_norm", 5, 0, "grouped_batch_norm: groups must be at least 1, got 0"),
        ("grouped_batch_norm", 1, torch.ones(2), "grouped_batch_norm: weight must be [3], got [2]"),
        ("mixed_sum", 2, [True], "mixed_sum: normalize must be 2 entries, got 1"),
        ("mixed_sum", 1, torch.ones(3, 2), "mixed_sum: the batch must be divisible by groups=3, got 4"),
        ("spawn_group", 2, 10**9, "spawn_group: copies must be from 1 to 65536, got 1000000000"),
        ("spawn_group_backward", 3, 5, "spawn_group_backward: grad must have a multiple of copies=5 channels, got 6"),
        ("channel_iim", 3, [], "channel_iim: normalize must be 2 entries, got 0"),
        ("relu_depthwise_conv2d", 2, [1, 3], "relu_depthwise_conv2d: dilations must be 1 or 2, got 3"),
        ("relu_separable_conv2d", 3, [0, 9], "relu_separable_conv2d: sources must be from 0 to 0, got 9"),
        ("relu_pointwise_conv2d", 2, 7, "relu_pointwise_conv2d: stride must be 1 or 2, got 7"),
        ("recurrent_node", 3, [0, 3, 4], "recurrent_node: activations must be from 0 to 3, got 4"),
        ("recurrent_node", 3, [0, 3, 3], "recurrent_node: activations must be distinct, got 3 twice"),
        ("recurrent_node", 3, [], "recurrent_node: activations must be at least one"),
        ("recurrent_node", 2, torch.ones(3, 3), "recurrent_node: weights must be [2,3], got [3,3]"),
        ("recurrent_node_backward", 1, [], "recurrent_node_backward: states must be 1 to 32 tensors, got 0"),
        ("mixed_edges", 6, [-2, 0, -1, -3, 7], "mixed_edges: kinds must be from -3 to 1, got 7"),
        ("mixed_edges", 5, [0, 0, 1, 0, 2], "mixed_edges: targets must be from 0 to 1, got 2"),
        ("mixed_edges", 8, [5], "mixed_edges: seconds must be from 0 to 1, got 5"),
    ],
)
def test_a_kernel_says_what_it_will_not_do(name: str, place: int, value: Any, words: str) -> None:
    if not has_kernel(name, torch.get_default_device().type):
        pytest.skip("no kernel on this device")
    assert words in refused(name, place, value)


@pytest.mark.not_on_meta
@pytest.mark.parametrize("name", [name for name in defined_ops() if name.endswith("_backward")])
def test_a_backward_asks_for_the_dtype_of_its_gradient(name: str) -> None:
    if not has_kernel(name, torch.get_default_device().type):
        pytest.skip("no kernel on this device")
    if name == "spawn_group_backward":
        pytest.skip("the gradient is its only tensor")
    place = 1 if name == "pool3x3_backward" else 0
    grad = valid_calls()[name][place]
    wide = grad.double() if isinstance(grad, Tensor) else [g.double() for g in grad]
    assert "dtype that does not fit" in refused(name, place, wide)


def refused_tensor(kind: str) -> Tensor:
    x = torch.randn(4, 3, 6, 5)
    if kind == "_mkldnn" and x.device.type != "cpu":
        pytest.skip("a layout of the CPU")
    made: dict[str, Callable[[], Tensor]] = {
        "sparse_coo": x.to_sparse,
        "sparse_csr": x[0, 0].to_sparse_csr,
        "_mkldnn": x.to_mkldnn,
        "nested": lambda: torch.nested.nested_tensor([x[0], x[1]]),
        "complex64": lambda: x.to(torch.complex64),
        "quint8": lambda: torch.quantize_per_tensor(x, 0.1, 0, torch.quint8),
    }
    return made[kind]()


@pytest.mark.not_on_meta
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", ["sparse_coo", "sparse_csr", "_mkldnn", "nested", "complex64", "quint8"])
def test_tensors_that_are_not_dense_floats_are_refused_in_one_line(kind: str) -> None:
    x, dense = refused_tensor(kind), torch.randn(4, 3, 6, 5)
    for call in (
        lambda: public.pool3x3(x),
        lambda: public.grouped_batch_norm(x),
        lambda: public.mixed_sum([dense, x], torch.ones(2)),
        lambda: public.channel_iim([dense, x]),
        lambda: public.spawn_group(dense, x),
        lambda: public.relu_depthwise_conv2d(x, [torch.ones(3, 1, 3, 3)], dilations=[1]),
        lambda: public.relu_pointwise_conv2d(dense, [x]),
        lambda: public.recurrent_node([dense[0, 0]], [x], torch.ones(1, 4)),
    ):
        with pytest.raises(TypeError, match=f"must be .*, got .*{kind}") as error:
            call()
        assert "\n" not in str(error.value)


@pytest.mark.not_on_meta
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", ["sparse_coo", "complex64", "quint8"])
def test_raw_ops_refuse_them_as_well(kind: str) -> None:
    with pytest.raises(
        (TypeError, RuntimeError), match=r"^pool3x3: (tensors must be dense, real and|x must be float64)"
    ):
        ops.pool3x3(refused_tensor(kind), 1, True, True)


@pytest.mark.filterwarnings("ignore")
def test_a_negated_view_is_resolved_unless_it_is_quantised() -> None:
    image = torch.randn(4, 3, 6, 5, dtype=torch.complex64).conj().imag
    plain = image.resolve_neg().clone()
    assert image.is_neg()
    assert not plain.is_neg()
    assert torch.equal(ops.pool3x3(image, 1, True, False)[0], ops.pool3x3(plain, 1, True, False)[0])
    weights, flags = torch.rand(1, 2, requires_grad=True), [True, False]
    found = ops.mixed_sum([image, image], weights, flags, None, None, 1e-5)[0]
    torch.testing.assert_close(found, ops.mixed_sum([plain, plain], weights, flags, None, None, 1e-5)[0])
    compiled = torch.compile(lambda x: public.pool3x3(x).average, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(image), ops.pool3x3(plain, 1, False, True)[1])

    x = torch._neg_view(refused_tensor("quint8"))
    for name, place in {"pool3x3": 0, "spawn_group_backward": 0, "channel_iim": 0, "mixed_edges": 0}.items():
        args = list(valid_calls()[name])
        args[place] = [x, *args[place][1:]] if isinstance(args[place], list) else x
        with pytest.raises(TypeError, match=f"^{name}: tensors must be dense, real and not quantised, got quint8"):
            getattr(ops, name)(*args)


@pytest.mark.parametrize("eps", [float("nan"), float("inf"), -1e-5])
def test_eps_is_finite_and_not_negative(eps: float) -> None:
    x, filters = torch.randn(4, 3, 6, 5), [torch.ones(3, 1, 3, 3)]
    mixing, edges = [torch.ones(3, 3, 1, 1)], Edges((0,), (0,), (True,), (1,))
    for name, call in {
        "grouped_batch_norm": lambda: public.grouped_batch_norm(x, eps=eps),
        "mixed_sum": lambda: public.mixed_sum([x], torch.ones(1), eps=eps),
        "relu_depthwise_conv2d": lambda: public.relu_depthwise_conv2d(x, filters, dilations=[1], eps=eps),
        "relu_separable_conv2d": lambda: public.relu_separable_conv2d([x], filters, mixing, dilations=[1], eps=eps),
        "mixed_edges": lambda: public.mixed_edges(x, edges, filters, mixing, torch.ones(1, 1), eps=eps),
    }.items():
        with pytest.raises(ValueError, match=f"^{name}: eps must be finite and at least 0, got {eps}"):
            call()


EMULATED = [
    *("pool3x3", "pool3x3_readers", "grouped_batch_norm", "mixed_sum", "spawn_group", "channel_iim"),
    *("relu_depthwise_conv2d", "relu_separable_conv2d", "relu_pointwise_conv2d", "recurrent_node", "mixed_edges"),
]


@pytest.mark.parametrize("op", EMULATED)
def test_emulated_kernels_ask_the_same(emulated: Any, op: str) -> None:
    calls = valid_calls()
    wrong: dict[str, tuple[int, Any]] = {
        "pool3x3": (1, 0),
        "pool3x3_backward": (3, 1000),
        "pool3x3_readers_backward": (2, [torch.ones(4, 3, 3, 3)]),
        "grouped_batch_norm": (5, 0),
        "grouped_batch_norm_backward": (0, calls["grouped_batch_norm_backward"][0].double()),
        "mixed_sum": (2, [True]),
        "mixed_sum_backward": (0, calls["mixed_sum_backward"][0].double()),
        "spawn_group": (2, 10**9),
        "spawn_group_backward": (3, 5),
        "channel_iim": (3, []),
        "recurrent_node": (3, [4, 0, 1]),
        "recurrent_node_backward": (0, calls["recurrent_node_backward"][0].double()),
        "relu_depthwise_conv2d": (3, 3),
        "relu_depthwise_conv2d_backward": (0, [g.double() for g in calls["relu_depthwise_conv2d_backward"][0]]),
        "relu_separable_conv2d": (3, [0, 9]),
        "relu_separable_conv2d_backward": (0, [g.double() for g in calls["relu_separable_conv2d_backward"][0]]),
        "mixed_edges": (6, [-2, 0, -1, -3, 7]),
        "mixed_edges_backward": (0, [g.double() for g in calls["mixed_edges_backward"][0]]),
        "relu_pointwise_conv2d": (2, 7),
        "relu_pointwise_conv2d_backward": (0, calls["relu_pointwise_conv2d_backward"][0].double()),
    }
    for name in (op, f"{op}_backward"):
        if name not in wrong:
            continue
        args = list(calls[name])
        place, value = wrong[name]
        args[place] = value
        with pytest.raises(RuntimeError, match=f"{name}: "):
            emulated.op(name)(*args)

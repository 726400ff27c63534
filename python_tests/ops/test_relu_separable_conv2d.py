"""relu_separable_conv2d equals depthwise convolutions of several inputs, each followed by a 1x1 convolution."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from ops.filters import LAYOUTS, eager, make, normal
from ops.tolerances import DTYPES, assert_close
from torch import Tensor

from ddarts_ext.ops._library import has_kernel
from ddarts_ext.ops.relu_separable_conv2d import (
    composed,
    relu_separable_conv2d,
    relu_separable_conv2d_backward_reference,
)

FILTERS = [(3, 1), (5, 2), (3, 2)]
SOURCES = [1, 0, 1]


def problem(
    shape: Sequence[int], out: int = 8, dtype: torch.dtype = torch.float32, filters: Sequence[tuple[int, int]] = FILTERS
) -> tuple[list[Tensor], list[Tensor], list[Tensor], list[int]]:
    """Two inputs, depthwise and pointwise weights, dilations."""
    x, weights, dilations = make(shape, filters, dtype)
    other = normal(shape, dtype, 50)
    pointwise = [normal((out, shape[1], 1, 1), dtype, 60 + f) / shape[1] ** 0.5 for f in range(len(filters))]
    return [x, other], weights, pointwise, dilations


def definition(
    inputs: Sequence[Tensor],
    weights: Sequence[Tensor],
    pointwise: Sequence[Tensor],
    dilations: Sequence[int],
    stride: int,
    normalize: bool,
    groups: int,
    mean: Tensor | None = None,
    rstd: Tensor | None = None,
) -> list[Tensor]:
    outputs = []
    for source, weight, point, dilation in zip(SOURCES, weights, pointwise, dilations, strict=True):
        given = [None if table is None else table[:, source] for table in (mean, rstd)]
        (y,) = eager(inputs[source], [weight], [dilation], stride, normalize, groups, *given)
        outputs.append(F.conv2d(y, point))
    return outputs


def compare(
    inputs: list[Tensor], weights: list[Tensor], pointwise: list[Tensor], dilations: list[int], *, stride: int = 1,
    normalize: bool = False, groups: int = 1, mean: Tensor | None = None, rstd: Tensor | None = None,
) -> None:  # fmt: skip
    """Outputs and all gradients against the definition in float64."""
    leaves = [t.detach().requires_grad_() for t in (*inputs, *weights, *pointwise)]
    exact = [t.detach().double().requires_grad_() for t in leaves]
    count, filters = len(inputs), len(weights)

    def split(tensors: list[Tensor]) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
        return tensors[:count], tensors[count : count + filters], tensors[count + filters :]

    got = relu_separable_conv2d(
        *split(leaves), sources=SOURCES, dilations=dilations, stride=stride, normalize=normalize, mean=mean, rstd=rstd,
        groups=groups,
    ).outputs  # fmt: skip
    statistics = [s if s is None else s.double() for s in (mean, rstd)]
    want = definition(*split(exact), dilations, stride, normalize, groups, *statistics)
    for a, b, source in zip(got, want, SOURCES, strict=True):
        assert a.dtype == inputs[source].dtype
        assert_close(a, b)
    grads = [normal(w.shape, inputs[0].dtype, 100 + i) for i, w in enumerate(want)]
    found = torch.autograd.grad(got, leaves, grads)
    expected = torch.autograd.grad(want, exact, [g.double() for g in grads])
    for a, b, leaf in zip(found, expected, leaves, strict=True):
        assert a.dtype == leaf.dtype
        assert_close(a, b, gradient=True)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_equals_eager_for_every_dtype_layout_and_prologue(dtype: torch.dtype, layout: str) -> None:
    inputs, *rest = problem((6, 16, 9, 8), 24, dtype)
    inputs = [x.contiguous(memory_format=LAYOUTS[layout]) for x in inputs]
    for stride, groups in itertools.product((1, 2), (1, 3)):
        compare(inputs, *rest, stride=stride)
        compare(inputs, *rest, stride=stride, normalize=True, groups=groups)
        mean, rstd = normal((2, groups, 2, 16), torch.float32, 7).mul(0.3).abs().add(0.5)
        compare(inputs, *rest, stride=stride, normalize=True, groups=groups, mean=mean, rstd=rstd)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("size", [(1, 1), (1, 5), (3, 7), (4, 4), (8, 8), (9, 17), (40, 33)], ids=str)
def test_any_size_and_number_of_channels(size: tuple[int, int], stride: int, layout: str) -> None:
    for channels, out in ((1, 1), (3, 5), (8, 8), (20, 3), (16, 40), (24, 16)):
        inputs, *rest = problem((2, channels, *size), out, filters=[(7, 1), (5, 2), (3, 1)])
        compare([x.contiguous(memory_format=LAYOUTS[layout]) for x in inputs], *rest, stride=stride)


def test_images_larger_than_a_tile() -> None:
    for layout, stride in itertools.product(LAYOUTS.values(), (1, 2)):
        inputs, *rest = problem((2, 16, 71, 136), 16)
        compare([x.contiguous(memory_format=layout) for x in inputs], *rest, stride=stride, normalize=True, groups=2)


def test_strided_inputs_and_gradients_keep_their_layout() -> None:
    inputs, weights, pointwise, dilations = problem((4, 16, 12, 12))
    for view in (lambda x: x[:, 3:12], lambda x: x[:, :, 1:-1, ::2], lambda x: x[:1].expand(3, -1, -1, -1)):
        seen = [view(x) for x in inputs]
        channels = seen[0].shape[1]
        compare(seen, [w[:channels] for w in weights], [u[:, :channels] for u in pointwise], dilations, stride=2)
    for layout in LAYOUTS.values():
        leaves = [x.contiguous(memory_format=layout).requires_grad_() for x in inputs]
        outputs = relu_separable_conv2d(leaves, weights, pointwise, sources=SOURCES, dilations=dilations).outputs
        gradients = torch.autograd.grad(sum(out.sum() for out in outputs), leaves)  # type: ignore[arg-type]
        assert all(t.is_contiguous(memory_format=layout) for t in (*outputs, *gradients))


def test_statistics_are_those_of_each_input_and_group() -> None:
    inputs, weights, pointwise, dilations = problem((6, 5, 7, 9))
    settings: dict[str, Any] = {"sources": SOURCES, "dilations": dilations}
    got = relu_separable_conv2d(inputs, weights, pointwise, normalize=True, groups=3, **settings)
    for i, x in enumerate(inputs):
        variance, mean = torch.var_mean(x.double().unflatten(0, (3, 2)), (1, 3, 4), correction=0)
        torch.testing.assert_close(got.mean[:, i].double(), mean, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(got.rstd[:, i].double(), (variance + 1e-5).rsqrt(), rtol=1e-5, atol=0)
    plain = relu_separable_conv2d(inputs, weights, pointwise, **settings)
    assert plain.mean.shape == plain.rstd.shape == (0, 2, 5)


@pytest.mark.parametrize("normalize", [False, True])
def test_unused_outputs_get_no_gradient(normalize: bool) -> None:
    inputs, weights, pointwise, dilations = problem((2, 4, 5, 5))
    leaves = [t.requires_grad_() for t in (*inputs, *weights, *pointwise)]
    outputs = relu_separable_conv2d(
        inputs, weights, pointwise, sources=SOURCES, dilations=dilations, normalize=normalize
    ).outputs
    found = torch.autograd.grad(outputs[1].square().sum(), leaves, allow_unused=True)
    alone = relu_separable_conv2d(
        inputs[:1], weights[1:2], pointwise[1:2], sources=[0], dilations=dilations[1:2], normalize=normalize
    ).outputs[0]
    expected = torch.autograd.grad(alone.square().sum(), [inputs[0], weights[1], pointwise[1]])
    for place, gradient in zip((0, 3, 6), expected, strict=True):
        assert torch.equal(found[place], gradient)  # type: ignore[arg-type]
    assert all(found[place] is None or not found[place].any() for place in (1, 2, 4, 5, 7))


def test_empty_batch() -> None:
    for normalize in (False, True):
        inputs, weights, pointwise, dilations = problem((0, 4, 5, 5))
        leaves = [t.requires_grad_() for t in (*inputs, *weights, *pointwise)]
        outputs = relu_separable_conv2d(
            inputs, weights, pointwise, sources=SOURCES, dilations=dilations, stride=2, normalize=normalize
        ).outputs
        assert outputs[0].shape == (0, 8, 3, 3)
        gradients = torch.autograd.grad([out.sum() for out in outputs], leaves)
        assert all(not gradient.any() for gradient in gradients)


@pytest.mark.parametrize("settings", [{}, {"stride": 2}, {"normalize": True, "groups": 2}], ids=str)
def test_first_and_second_derivatives(settings: dict[str, Any]) -> None:
    inputs, weights, pointwise, dilations = problem((4, 3, 4, 3), 2, torch.float64)
    leaves = [t.requires_grad_() for t in (*inputs, *weights, *pointwise)]

    def function(*t: Tensor) -> tuple[Tensor, ...]:
        found = relu_separable_conv2d(t[:2], t[2:5], t[5:], sources=SOURCES, dilations=dilations, **settings)
        return tuple(found.outputs)

    assert torch.autograd.gradcheck(function, leaves)
    assert torch.autograd.gradgradcheck(function, leaves, fast_mode=True)


def test_opcheck() -> None:
    for layout, (stride, normalize, groups) in itertools.product(LAYOUTS.values(), ((1, False, 1), (2, True, 2))):
        inputs, weights, pointwise, dilations = problem((4, 8, 5, 4))
        inputs = [x.contiguous(memory_format=layout) for x in inputs]
        plain = (inputs, weights, pointwise, SOURCES, dilations, stride, normalize)
        leaves = [[t.detach().requires_grad_() for t in group] for group in (inputs, weights, pointwise)]
        forward, backward = (getattr(torch.ops.ddarts_ext, f"relu_separable_conv2d{end}") for end in ("", "_backward"))
        torch.library.opcheck(forward.default, (*leaves, *plain[3:], None, None, groups, 1e-5))
        outputs, mean, rstd = forward(*plain, None, None, groups, 1e-5)
        grads = [torch.randn_like(output) for output in outputs]
        for wanted in ((True, True), (True, False), (False, True)):
            torch.library.opcheck(backward.default, (grads, *plain, mean, rstd, normalize, groups, *wanted))


def test_compiles_without_graph_breaks(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    inputs, weights, pointwise, dilations = problem((2, 8, 6, 6))

    def loss(x: Tensor) -> Tensor:
        found = relu_separable_conv2d(
            [x, inputs[1]], weights, pointwise, sources=SOURCES, dilations=dilations, normalize=True
        )
        return sum((output.sin().sum() for output in found.outputs), found.mean.sum())

    leaf = inputs[0].requires_grad_()
    expected = torch.autograd.grad(loss(leaf), leaf)[0]
    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    assert_close(torch.autograd.grad(compiled(leaf), leaf)[0], expected)


def test_autocast_casts_as_conv2d_does() -> None:
    inputs, weights, pointwise, dilations = problem((2, 8, 6, 6))
    settings: dict[str, Any] = {"sources": SOURCES, "dilations": dilations}
    with torch.autocast(torch.get_default_device().type, torch.bfloat16):
        got = relu_separable_conv2d([x.requires_grad_() for x in inputs], weights, pointwise, **settings).outputs[0]
    exact = relu_separable_conv2d(inputs, weights, pointwise, **settings).outputs[0]
    assert got.dtype == torch.bfloat16
    assert_close(got, exact)
    assert torch.autograd.grad(got.sum(), inputs[1])[0].dtype == torch.float32


@pytest.mark.skipif(not has_kernel("relu_separable_conv2d", "cpu"), reason="torch's products promise no such thing")
def test_result_does_not_depend_on_the_number_of_threads() -> None:
    inputs, weights, pointwise, dilations = problem((5, 24, 40, 40), 16)
    leaves = [t.requires_grad_() for t in (*inputs, *weights, *pointwise)]
    results = []
    before = torch.get_num_threads()
    try:
        for threads in (1, 2, 3, 2):
            torch.set_num_threads(threads)
            outputs = relu_separable_conv2d(
                inputs, weights, pointwise, sources=SOURCES, dilations=dilations, normalize=True
            ).outputs
            gradients = torch.autograd.grad(sum(o.square().sum() for o in outputs), leaves)  # type: ignore[arg-type]
            results.append([*outputs, *gradients])
    finally:
        torch.set_num_threads(before)
    for result in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(result, results[0], strict=True))


@pytest.mark.parametrize("normalize", [False, True])
def test_where_there_is_no_fused_kernel_it_is_composed_of_other_ops(normalize: bool) -> None:
    inputs, weights, pointwise, dilations = problem((4, 8, 6, 5), dtype=torch.float64)
    got = composed(inputs, weights, pointwise, SOURCES, dilations, 2, normalize, None, None, 2, 1e-5)
    want = relu_separable_conv2d(
        inputs, weights, pointwise, sources=SOURCES, dilations=dilations, stride=2, normalize=normalize, groups=2
    )
    for a, b in zip((*got.outputs, got.mean, got.rstd), (*want.outputs, want.mean, want.rstd), strict=True):
        assert_close(a, b)


@pytest.mark.parametrize("normalize", [False, True])
def test_backward_reference_is_the_definition(normalize: bool) -> None:
    inputs, weights, pointwise, dilations = problem((4, 3, 6, 5), 2, torch.float64)
    leaves = [t.requires_grad_() for t in (*inputs, *weights, *pointwise)]
    want = definition(inputs, weights, pointwise, dilations, 2, normalize, 2)
    grads = [torch.randn_like(out) for out in want]
    found = relu_separable_conv2d(
        inputs, weights, pointwise, sources=SOURCES, dilations=dilations, stride=2, normalize=normalize, groups=2
    )
    gradients = relu_separable_conv2d_backward_reference(
        grads, inputs, weights, pointwise, SOURCES, dilations, 2, normalize, found.mean, found.rstd, normalize, 2, True,
        True,
    )  # fmt: skip
    for a, b in zip(gradients, torch.autograd.grad(want, leaves, grads), strict=True):
        assert_close(a, b, gradient=True)


def small(**changes: Any) -> Callable[[], Any]:
    inputs, weights, pointwise, dilations = problem((4, 8, 5, 5))
    settings = {
        "inputs": inputs,
        "weights": weights,
        "pointwise": pointwise,
        "sources": SOURCES,
        "dilations": dilations,
    }
    settings |= changes
    return lambda: relu_separable_conv2d(**settings)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"inputs": []}, ValueError, "inputs must have at least one tensor, got none"),
        (
            {"inputs": [torch.ones(4, 8, 5, 5), torch.ones(4, 8, 5, 4)]},
            ValueError,
            r"inputs\[1\] must be \[4, 8, 5, 5\] float32 on \S+, got \[4, 8, 5, 4\] float32 on \S+",
        ),
        ({"pointwise": [torch.ones(8, 8, 1, 1)]}, ValueError, "pointwise must be one a filter, 3, got 1"),
        (
            {"pointwise": [torch.ones(8, 8, 1, 1), torch.ones(8, 8, 1, 1), torch.ones(4, 8, 1, 1)]},
            ValueError,
            r"pointwise\[2\] must be \[Co,C,1,1\]=\[8,8,1,1\], got \[4, 8, 1, 1\]",
        ),
        (
            {"pointwise": [torch.ones(8, 8)] * 3},
            ValueError,
            r"pointwise\[0\] must be \[Co,C,1,1\]=\[8,8,1,1\], got \[8, 8\]",
        ),
        ({"sources": [0, 0, 0]}, ValueError, r"sources must be 3 indices that name each of 2 inputs, got \[0, 0, 0\]"),
        ({"dilations": [1, 2, 3]}, ValueError, r"dilations must be 3 values of 1 or 2, got \[1, 2, 3\]"),
        (
            {"normalize": True, "mean": torch.ones(1, 8), "rstd": torch.ones(1, 8)},
            ValueError,
            r"mean must be \[1 or G,I,C\]=\[1 or 1,2,8\], got \[1, 8\]",
        ),
        ({"inputs": [torch.ones(4, 8, 5, 5).long()] * 2}, TypeError, r"inputs\[0\] must be float64, float32"),
    ],
)
def test_errors_say_what_was_expected_and_what_came(
    changes: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=f"^relu_separable_conv2d: {message}"):
        small(**changes)()

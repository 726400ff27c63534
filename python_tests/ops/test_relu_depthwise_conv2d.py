"""relu_depthwise_conv2d equals ReLU (of a batch norm), then one depthwise convolution per filter, in every setting."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from ops.filters import LAYOUTS, eager, make, normal
from ops.tolerances import DTYPES, assert_close
from torch import Tensor

from ddarts_ext.ops.relu_depthwise_conv2d import (
    relu_depthwise_conv2d,
    relu_depthwise_conv2d_backward_reference,
    relu_depthwise_conv2d_reference,
)


def compare(x: Tensor, weights: list[Tensor], dilations: list[int], *, stride: int = 1, normalize: bool = False,
            groups: int = 1, mean: Tensor | None = None, rstd: Tensor | None = None) -> None:  # fmt: skip
    """Outputs and all gradients against the definition in float64."""
    x, weights = x.detach().requires_grad_(), [w.detach().requires_grad_() for w in weights]
    got = relu_depthwise_conv2d(
        x, weights, dilations=dilations, stride=stride, normalize=normalize, mean=mean, rstd=rstd, groups=groups
    )
    x64, weights64 = x.detach().double().requires_grad_(), [w.detach().double().requires_grad_() for w in weights]
    mean, rstd = (s if s is None else s.double() for s in (mean, rstd))
    want = eager(x64, weights64, dilations, stride, normalize, groups, mean, rstd)
    grads = [normal(w.shape, x.dtype, 100 + i) for i, w in enumerate(want)]
    for a, b in zip(got.outputs, want, strict=True):
        assert a.dtype == x.dtype
        assert_close(a, b)
    leaves = torch.autograd.grad(got.outputs, [x, *weights], grads)
    expected = torch.autograd.grad(want, [x64, *weights64], [g.double() for g in grads])
    for a, b, leaf in zip(leaves, expected, [x, *weights], strict=True):
        assert a.dtype == leaf.dtype
        assert_close(a, b, gradient=True)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_equals_eager_for_every_dtype_layout_and_prologue(dtype: torch.dtype, layout: str) -> None:
    x, weights, dilations = make((6, 16, 9, 8), [(3, 1), (5, 2)], dtype)
    x = (x * 2 + 0.5).contiguous(memory_format=LAYOUTS[layout])
    for stride, groups in itertools.product((1, 2), (1, 3)):
        compare(x, weights, dilations, stride=stride)
        compare(x, weights, dilations, stride=stride, normalize=True, groups=groups)
        for rows in {1, groups}:
            mean, rstd = torch.randn(2, rows, 16).mul(0.3).abs().add(0.5)
            compare(x, weights, dilations, stride=stride, normalize=True, groups=groups, mean=mean, rstd=rstd)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("size", [(1, 1), (1, 5), (2, 2), (3, 7), (4, 4), (7, 3), (8, 8), (9, 17), (16, 33)], ids=str)
def test_any_size_with_every_kernel_and_dilation(size: tuple[int, int], stride: int, layout: str) -> None:
    filters = list(itertools.product((3, 5, 7), (1, 2)))
    for channels in (1, 3, 8, 20):
        x, weights, dilations = make((2, channels, *size), filters)
        compare(x.contiguous(memory_format=LAYOUTS[layout]), weights, dilations, stride=stride)


@pytest.mark.parametrize("count", range(1, 7))
def test_any_number_of_filters_is_as_many_calls(count: int) -> None:
    x, weights, dilations = make((2, 8, 8, 8), [(3, 1), (5, 1), (3, 2), (5, 2), (7, 1), (7, 2)][:count])
    together = relu_depthwise_conv2d(x, weights, dilations=dilations).outputs
    for w, d, output in zip(weights, dilations, together, strict=True):
        assert torch.equal(output, relu_depthwise_conv2d(x, [w], dilations=[d]).outputs[0])
    compare(x, weights, dilations)


def test_images_larger_than_a_tile() -> None:
    for layout, stride in itertools.product(LAYOUTS.values(), (1, 2)):
        x, weights, dilations = make((2, 8, 71, 130), [(5, 2), (7, 2), (3, 1)])
        compare(x.contiguous(memory_format=layout), weights, dilations, stride=stride)
        compare(x.contiguous(memory_format=layout), weights, dilations, stride=stride, normalize=True, groups=2)


@pytest.mark.parametrize("size", [(1, 8), (9, 16), (70, 32), (12, 40)], ids=str)
def test_rows_of_whole_vectors_whose_padding_is_left_out(size: tuple[int, int]) -> None:
    for channels, layout in itertools.product((16, 24), LAYOUTS.values()):
        x, weights, dilations = make((2, channels, *size), list(itertools.product((3, 5, 7), (1, 2))))
        compare(x.contiguous(memory_format=layout), weights, dilations)
        compare(x.contiguous(memory_format=layout), weights, dilations, normalize=True, groups=2)


def test_gradients_are_read_where_they_are() -> None:
    x, weights, dilations = make((2, 16, 6, 8), [(5, 2), (3, 1)])
    leaves = [x.contiguous(memory_format=torch.channels_last).requires_grad_(), *(w.requires_grad_() for w in weights)]
    outputs = relu_depthwise_conv2d(leaves[0], weights, dilations=dilations).outputs
    dense = [
        normal(out.shape, x.dtype, i).contiguous(memory_format=torch.channels_last) for i, out in enumerate(outputs)
    ]
    # Rows, pixels and blocks of channels apart; what lies between would show.
    apart = [torch.full((3, 32, 14, 20), torch.nan).contiguous(memory_format=torch.channels_last) for _ in dense]
    views = [wide[:2, 8:24, 2:14:2, 4:20:2] for wide in apart]
    for view, grad in zip(views, dense, strict=True):
        view.copy_(grad)
    expected = torch.autograd.grad(outputs, leaves, dense, retain_graph=True)
    for a, b in zip(torch.autograd.grad(outputs, leaves, views), expected, strict=True):
        assert torch.equal(a, b)


def test_output_and_gradient_keep_the_layout() -> None:
    x, weights, dilations = make((2, 8, 6, 6), [(3, 1)])
    for layout in LAYOUTS.values():
        leaf = x.contiguous(memory_format=layout).requires_grad_()
        output = relu_depthwise_conv2d(leaf, weights, dilations=dilations).outputs[0]
        (gradient,) = torch.autograd.grad(output.sum(), leaf)
        assert output.is_contiguous(memory_format=layout)
        assert gradient.is_contiguous(memory_format=layout)


def test_strided_inputs_and_gradients() -> None:
    x, weights, dilations = make((4, 16, 12, 12), [(3, 1), (5, 2)])
    for view in (x[::2], x[:, 3:12], x[:, ::2], x[:, :, 1:-1, ::2], x.transpose(2, 3), x[:1].expand(3, -1, -1, -1)):
        compare(view, [w[: view.shape[1]] for w in weights], dilations, stride=2)
        leaf = view.detach().requires_grad_()
        outputs = relu_depthwise_conv2d(leaf, [w[: view.shape[1]] for w in weights], dilations=dilations).outputs
        (gradient,) = torch.autograd.grad(outputs[0].sum(), leaf)  # an expanded gradient, and one filter unused
        ones = torch.ones_like(outputs[0])
        assert torch.equal(gradient, torch.autograd.grad(relu_depthwise_conv2d(
            leaf, [weights[0][: view.shape[1]]], dilations=dilations[:1]).outputs, leaf, ones)[0])  # fmt: skip


@pytest.mark.parametrize("normalize", [False, True])
def test_unused_outputs_get_no_gradient(normalize: bool) -> None:
    x, weights, dilations = make((2, 4, 5, 5), [(3, 1), (5, 1), (3, 2)])
    leaves = [x.requires_grad_(), *(w.requires_grad_() for w in weights)]
    outputs = relu_depthwise_conv2d(x, weights, dilations=dilations, normalize=normalize).outputs
    gradients = torch.autograd.grad(outputs[1].square().sum(), leaves, allow_unused=True)
    alone = relu_depthwise_conv2d(x, weights[1:2], dilations=dilations[1:2], normalize=normalize).outputs[0]
    expected = torch.autograd.grad(alone.square().sum(), [x, weights[1]])
    assert gradients[1] is None
    assert gradients[3] is None
    assert torch.equal(gradients[0], expected[0])
    assert torch.equal(gradients[2], expected[1])


def test_statistics_are_those_of_each_group_and_stable() -> None:
    x, weights, dilations = make((6, 5, 7, 9), [(3, 1)])
    x = x + 1000  # a mean far from zero
    got = relu_depthwise_conv2d(x, weights, dilations=dilations, normalize=True, groups=3)
    variance, mean = torch.var_mean(x.double().unflatten(0, (3, 2)), (1, 3, 4), correction=0)
    torch.testing.assert_close(got.mean.double(), mean, rtol=1e-6, atol=0)
    torch.testing.assert_close(got.rstd.double(), (variance + 1e-5).rsqrt(), rtol=1e-4, atol=0)
    assert not got.mean.requires_grad
    assert not got.rstd.requires_grad
    plain = relu_depthwise_conv2d(x, weights, dilations=dilations)
    assert plain.mean.shape == plain.rstd.shape == (0, 5)


def test_given_statistics_are_returned_for_every_group() -> None:
    x, weights, dilations = make((4, 3, 4, 4), [(3, 1)])
    mean, rstd = torch.randn(1, 3), torch.rand(1, 3)
    got = relu_depthwise_conv2d(x, weights, dilations=dilations, normalize=True, mean=mean, rstd=rstd, groups=2)
    assert torch.equal(got.mean, mean.expand(2, 3))
    assert torch.equal(got.rstd, rstd.expand(2, 3))


def test_mixed_weight_dtypes() -> None:
    x, weights, dilations = make((2, 8, 5, 5), [(3, 1), (5, 1), (3, 2)], torch.bfloat16)
    weights[0], weights[2] = weights[0].float(), weights[2].half()
    compare(x, weights, dilations)


def test_nan_and_signs_pass_as_through_relu() -> None:
    x, _, _ = make((1, 8, 4, 8), [(3, 1)])
    x[0, 2, 1, 1], x[0, 3, 2, 2] = float("nan"), float("inf")
    weight = torch.ones(8, 1, 3, 3)
    got = relu_depthwise_conv2d(x, [weight], dilations=[1]).outputs[0]
    assert_close(got, F.conv2d(x.relu(), weight, None, 1, 1, 1, 8))


@pytest.mark.parametrize("shape", [(0, 4, 5, 5), (0, 4, 1, 1)], ids=str)
def test_empty_batch(shape: tuple[int, ...]) -> None:
    for normalize in (False, True):
        x, weights, dilations = make(shape, [(3, 1), (5, 2)])
        leaves = [x.requires_grad_(), *(w.requires_grad_() for w in weights)]
        outputs = relu_depthwise_conv2d(x, weights, dilations=dilations, stride=2, normalize=normalize).outputs
        assert outputs[0].shape == (0, 4, (shape[2] + 1) // 2, (shape[3] + 1) // 2)
        gradients = torch.autograd.grad([o.sum() for o in outputs], leaves)
        assert gradients[0].shape == shape
        assert all(not g.any() for g in gradients[1:])


def call(dilations: list[int], **settings: Any) -> Callable[..., tuple[Tensor, ...]]:
    return lambda x, *weights: tuple(relu_depthwise_conv2d(x, weights, dilations=dilations, **settings).outputs)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"stride": 2},
        {"normalize": True, "groups": 2},
        {"normalize": True, "stride": 2, "mean": torch.zeros(1, 3), "rstd": torch.ones(1, 3)},
    ],
    ids=str,
)
def test_first_and_second_derivatives(settings: dict[str, Any]) -> None:
    x, weights, dilations = make((4, 3, 4, 3), [(3, 1), (3, 2)], torch.float64)
    leaves = [x.requires_grad_(), *(w.requires_grad_() for w in weights)]
    function = call(dilations, **settings)
    assert torch.autograd.gradcheck(function, leaves)
    assert torch.autograd.gradgradcheck(function, leaves, fast_mode=True)


def test_opcheck() -> None:
    for layout, settings in itertools.product(LAYOUTS.values(), ((1, False, 1), (2, True, 2))):
        x, weights, dilations = make((4, 8, 5, 4), [(3, 1), (5, 2)])
        stride, normalize, groups = settings
        arguments = (x.contiguous(memory_format=layout).requires_grad_(), [w.requires_grad_() for w in weights],
                     dilations, stride, normalize, None, None, groups, 1e-5)  # fmt: skip
        torch.library.opcheck(torch.ops.ddarts_ext.relu_depthwise_conv2d.default, arguments)
        plain = (arguments[0].detach(), [w.detach() for w in weights])  # its own gradient: gradgradcheck
        outputs, mean, rstd = torch.ops.ddarts_ext.relu_depthwise_conv2d(*plain, *arguments[2:])
        grads = [torch.randn_like(output) for output in outputs]
        for wanted in ((True, True), (True, False), (False, True)):
            torch.library.opcheck(
                torch.ops.ddarts_ext.relu_depthwise_conv2d_backward.default,
                (grads, *plain, dilations, stride, normalize, mean, rstd, normalize, groups, *wanted),
            )


def test_compiles_without_graph_breaks(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    x, weights, dilations = make((2, 8, 6, 6), [(3, 1), (5, 2)])

    def loss(x: Tensor) -> Tensor:
        result = relu_depthwise_conv2d(x, weights, dilations=dilations, normalize=True, groups=2)
        return sum((output.sin().sum() for output in result.outputs), result.mean.sum())

    leaf = x.requires_grad_()
    expected = torch.autograd.grad(loss(leaf), leaf)[0]
    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    assert_close(torch.autograd.grad(compiled(leaf), leaf)[0], expected)


def test_autocast_casts_as_conv2d_does() -> None:
    x, weights, dilations = make((2, 8, 6, 6), [(3, 1)])
    with torch.autocast(torch.get_default_device().type, torch.bfloat16):
        got = relu_depthwise_conv2d(x.requires_grad_(), weights, dilations=dilations).outputs[0]
        exact = relu_depthwise_conv2d(x.double(), weights, dilations=dilations).outputs[0]
    assert got.dtype == torch.bfloat16
    assert exact.dtype == torch.float64
    assert_close(got, exact)
    assert torch.autograd.grad(got.sum(), x)[0].dtype == torch.float32


def test_result_does_not_depend_on_the_number_of_threads() -> None:
    x, weights, dilations = make((5, 20, 40, 40), [(3, 1), (5, 2), (7, 1)])
    leaves = [x.requires_grad_(), *(w.requires_grad_() for w in weights)]
    results = []
    before = torch.get_num_threads()
    try:
        for threads in (1, 2, 3, 2):
            torch.set_num_threads(threads)
            outputs, mean, rstd = relu_depthwise_conv2d(x, weights, dilations=dilations, normalize=True)
            gradients = torch.autograd.grad(sum(o.square().sum() for o in outputs), leaves)  # type: ignore[arg-type]
            results.append([*outputs, mean, rstd, *gradients])
    finally:
        torch.set_num_threads(before)
    for result in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(result, results[0], strict=True))


@pytest.mark.parametrize("batch_statistics", [False, True])
def test_reference_is_the_definition(batch_statistics: bool) -> None:
    x, weights, dilations = make((4, 3, 6, 5), [(3, 1), (5, 2), (7, 1)], torch.float64)
    x.requires_grad_()
    want = eager(x, weights, dilations, 2, batch_statistics, 2)
    outputs, mean, rstd = relu_depthwise_conv2d_reference(
        x, weights, dilations, 2, batch_statistics, None, None, 2, 1e-5
    )
    grads = [torch.randn_like(o) for o in want]
    for a, b in zip(outputs, want, strict=True):
        assert_close(a, b)
    expected = torch.autograd.grad(want, x, grads)[0]
    dx, _ = relu_depthwise_conv2d_backward_reference(
        grads, x, weights, dilations, 2, batch_statistics, mean, rstd, batch_statistics, 2, True, True
    )
    assert_close(dx, expected, gradient=True)


X = torch.zeros(4, 3, 5, 5)
W = torch.zeros(3, 1, 3, 3)


@pytest.mark.parametrize(
    ("arguments", "settings", "error", "message"),
    [
        ((X[0], [W]), {}, ValueError, r"x must be \[N,C,H,W\], got \[3, 5, 5\]"),
        ((X.long(), [W]), {}, TypeError, "x must be float64, float32, float16 or bfloat16, got int64"),
        ((X[:, :, :0], [W]), {}, ValueError, "C, H and W at least 1"),
        ((X, []), {"dilations": []}, ValueError, "weights must be one or more filters, got none"),
        ((X, [W[:2]]), {}, ValueError, r"weights\[0\] must be \[C,1,k,k\]=\[3,1,k,k\] .* got \[2, 1, 3, 3\]"),
        ((X, [torch.zeros(3, 1, 4, 4)]), {}, ValueError, "with k of 3, 5, 7"),
        ((X, [W.int()]), {}, TypeError, r"weights\[0\] must be float64"),
        ((X, [W]), {"dilations": [3]}, ValueError, r"dilations must be 1 values of 1 or 2, got \[3\]"),
        ((X, [W]), {"dilations": [1, 1]}, ValueError, r"dilations must be 1 values of 1 or 2, got \[1, 1\]"),
        ((X, [W]), {"stride": 3}, ValueError, "stride must be 1 or 2, got 3"),
        ((X, [W]), {"groups": 3}, ValueError, "x must have a batch divisible by groups=3, got 4"),
        ((X, [W]), {"mean": X[:1, :, 0, 0]}, ValueError, "mean and rstd must be None where normalize is False"),
        ((X, [W]), {"normalize": True, "mean": X[:1, :, 0, 0]}, ValueError, "mean and rstd must be given together"),
        ((X[:1, :, :1, :1], [W]), {"normalize": True}, ValueError, "more than 1 value per channel and group"),
    ],
)
def test_errors_say_what_was_expected_and_what_came(
    arguments: tuple[Any, ...], settings: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match="^relu_depthwise_conv2d: .*" + message):
        relu_depthwise_conv2d(*arguments, **{"dilations": [1], **settings})


EMULATED_CASES: list[tuple[tuple[int, ...], int, list[tuple[int, int]]]] = [
    ((2, 20, 9, 17), 1, [(3, 1), (5, 2)]),
    ((2, 3, 9, 10), 2, [(3, 2), (5, 1), (7, 2)]),
    ((4, 16, 1, 1), 1, [(7, 1)]),
    ((2, 5, 3, 2), 2, [(5, 2)] * 2),
]


def check_emulated(emulated: Any, x: Tensor, weights: list[Tensor], dilations: list[int], stride: int, groups: int,
                   normalize: bool, given: tuple[Tensor, Tensor] | None) -> None:  # fmt: skip
    """Both emulated ops against their references in float64."""
    statistics = (None, None) if given is None else given
    exact = [s if s is None else s.double() for s in statistics]
    x64, weights64 = x.double(), [w.double() for w in weights]
    want, mean, rstd = relu_depthwise_conv2d_reference(
        x64, weights64, dilations, stride, normalize, exact[0], exact[1], groups, 1e-5
    )
    got = emulated.op("relu_depthwise_conv2d")(x, weights, dilations, stride, normalize, *statistics, groups, 1e-5)
    for a, b in zip(got[0], want, strict=True):
        assert_close(a, b)
    assert_close(got[1], mean)
    assert_close(got[2], rstd)
    grads = [normal(w.shape, x.dtype, 50 + i) for i, w in enumerate(want)]
    rest = (normalize and given is None, groups, True, True)
    dx, dweights = relu_depthwise_conv2d_backward_reference(
        [g.double() for g in grads], x64, weights64, dilations, stride, normalize, mean, rstd, *rest
    )
    ours = emulated.op("relu_depthwise_conv2d_backward")(
        grads, x, weights, dilations, stride, normalize, got[1], got[2], *rest
    )
    assert_close(ours[0], dx, gradient=True)
    for a, b in zip(ours[1], dweights, strict=True):
        assert_close(a, b, x.dtype, gradient=True)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_emulated_cuda_kernels(emulated: Any, dtype: torch.dtype, layout: str) -> None:
    for index, _ in enumerate(emulated.orders()):
        for shape, stride, filters in EMULATED_CASES[index:] + EMULATED_CASES[:1]:
            x, weights, dilations = make(shape, filters, dtype)
            x = x.contiguous(memory_format=LAYOUTS[layout])
            acc = torch.float64 if dtype == torch.float64 else torch.float32
            statistics = (torch.zeros(1, shape[1], dtype=acc), torch.full((1, shape[1]), 1.5, dtype=acc))
            check_emulated(emulated, x, weights, dilations, stride, 1, False, None)
            check_emulated(emulated, x, weights, dilations, stride, 2, True, None)
            check_emulated(emulated, x, weights, dilations, stride, 2, True, statistics)


# Images narrower and wider than a tile, several tiles and parts of an image, filters for several packs of warps.
TILED_CASES: list[tuple[tuple[int, ...], int, list[tuple[int, int]]]] = [
    ((6, 16, 8, 8), 1, [(3, 1), (5, 1), (3, 2), (5, 2)]),
    ((2, 16, 16, 32), 1, [(3, 1), (5, 1), (3, 2), (5, 2), (7, 1), (3, 1)]),
    ((2, 32, 16, 16), 2, [(3, 1), (5, 1), (3, 2), (5, 2), (7, 1), (7, 2)]),
    ((2, 16, 17, 11), 2, [(5, 1), (7, 2)]),
]


def test_emulated_cuda_kernels_of_many_tiles(emulated: Any) -> None:
    for index, _ in enumerate(emulated.orders()):
        for shape, stride, filters in TILED_CASES[index:] + TILED_CASES[:index]:
            x, weights, dilations = make(shape, filters, DTYPES[index + 1])
            x = x.contiguous(memory_format=torch.channels_last)
            check_emulated(emulated, x, weights, dilations, stride, 1, False, None)
            check_emulated(emulated, x, weights, dilations, stride, 2, True, None)


def test_emulated_cuda_kernels_join_many_images_and_chunks(emulated: Any) -> None:
    for _ in emulated.orders():
        x, weights, dilations = make((42, 3, 8, 8), [(3, 1), (5, 2)])
        check_emulated(emulated, x, weights, dilations, 1, 2, True, None)
    x, weights, dilations = make((300, 2, 3, 4), [(3, 1)] * 8)  # more tiles than chunks
    check_emulated(emulated, x, weights, dilations, 1, 2, True, None)


def test_emulated_cuda_kernels_with_more_filters_than_a_launch_takes(emulated: Any) -> None:
    x, weights, dilations = make((2, 3, 5, 4), [(3, 1)] * 20 + [(5, 2)] * 15)
    check_emulated(emulated, x[..., ::2], weights, dilations, 1, 2, True, None)
    check_emulated(emulated, x[:0], weights, dilations, 2, 1, False, None)


def test_emulated_cuda_kernels_stay_inside_their_tensors(emulated: Any) -> None:
    emulated.check_addresses(
        "relu_depthwise_conv2d",
        """
for dtype in (torch.float32, torch.float16):
    for shape, stride in (((2, 20, 9, 17), 1), ((2, 3, 9, 10), 2), ((2, 4, 8, 8), 1), ((2, 8, 16, 16), 2)):
        x = torch.randn(shape).to(dtype)
        x = x.contiguous(memory_format=torch.channels_last) if shape[1] % 4 == 0 else x
        weights = [torch.randn(shape[1], 1, k, k) for k in (3, 7)]
        out, mean, rstd = ops.relu_depthwise_conv2d(x, weights, [1, 2], stride, True, None, None, 2, 1e-5)
        ops.relu_depthwise_conv2d_backward(out, x, weights, [1, 2], stride, True, mean, rstd, True, 2, True, True)
""",
    )

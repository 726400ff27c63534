"""The CUDA kernels of relu_separable_conv2d, run by the emulation, equal its references in float64."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from ops.filters import LAYOUTS, make, normal
from ops.tolerances import DTYPES, assert_close
from torch import Tensor

from ddarts_ext.ops.relu_separable_conv2d import (
    relu_separable_conv2d_backward_reference,
    relu_separable_conv2d_reference,
)

OP = "relu_separable_conv2d"


def problem(
    shape: Sequence[int], out: int, filters: Sequence[tuple[int, int]], dtype: torch.dtype, inputs: int
) -> tuple[list[Tensor], list[Tensor], list[Tensor], list[int], list[int]]:
    """inputs, depthwise and pointwise weights, sources, dilations."""
    x, weights, dilations = make(shape, filters, dtype)
    images = [x, *(normal(shape, dtype, 50 + i) for i in range(inputs - 1))]
    pointwise = [normal((out, shape[1], 1, 1), dtype, 60 + f) / shape[1] ** 0.5 for f in range(len(filters))]
    return images, weights, pointwise, [inputs - 1 - f % inputs for f in range(len(filters))], dilations


def double(tensors: Sequence[Tensor]) -> list[Tensor]:
    return [tensor.double() for tensor in tensors]


def check(
    emulated: Any, images: list[Tensor], weights: list[Tensor], pointwise: list[Tensor], sources: list[int],
    dilations: list[int], stride: int = 1, *, groups: int = 1, normalize: bool = False,
    given: tuple[Tensor, Tensor] | None = None, layout: torch.memory_format = torch.channels_last, tf32: bool = False,
) -> None:  # fmt: skip
    """Outputs, statistics, and the gradients: all, those of the inputs alone, those of the filters alone."""
    images = [x if x.stride(-1) > 1 else x.contiguous(memory_format=layout) for x in images]
    exact = [double(group) for group in (images, weights, pointwise)]
    tables = (None, None) if given is None else given
    want, mean, rstd = relu_separable_conv2d_reference(
        *exact, sources, dilations, stride, normalize, *(t if t is None else t.double() for t in tables), groups, 1e-5
    )
    got = emulated.op(OP)(
        images, weights, pointwise, sources, dilations, stride, normalize, *tables, groups, 1e-5, tf32
    )
    for a, b, source in zip(got[0], want, sources, strict=True):
        assert a.dtype == images[0].dtype
        assert a.is_contiguous() or images[source].stride(1) == 1
        assert_close(a, b, torch.float16 if tf32 else None)  # which has as many bits
    assert_close(got[1], mean)
    assert_close(got[2], rstd)
    grads = [normal(w.shape, images[0].dtype, 100 + i).contiguous(memory_format=layout) for i, w in enumerate(want)]
    settings = (sources, dilations, stride, normalize)
    for wanted in ((True, True), (True, False), (False, True)):
        rest = (normalize and given is None, groups, *wanted)
        expected = relu_separable_conv2d_backward_reference(double(grads), *exact, *settings, mean, rstd, *rest)
        found = emulated.op(f"{OP}_backward")(grads, images, weights, pointwise, *settings, got[1], got[2], *rest, tf32)
        for a, b in zip(found, expected, strict=True):
            row = torch.float16 if tf32 else a.dtype if a.dtype.itemsize == 2 else images[0].dtype
            assert_close(a, b, row, gradient=True)


CASES: list[tuple[tuple[int, ...], int, int, list[tuple[int, int]], int]] = [
    ((2, 20, 9, 17), 24, 1, [(3, 1), (5, 2), (3, 2)], 2),
    ((2, 3, 9, 10), 5, 2, [(3, 2), (5, 1), (7, 2)], 2),
    ((4, 16, 1, 1), 16, 1, [(7, 1), (7, 2)], 1),
    ((2, 8, 8, 8), 72, 1, [(3, 1), (5, 1)], 2),
]
"""Shape, output channels, stride, filters, inputs."""


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_every_dtype_layout_and_prologue(emulated: Any, dtype: torch.dtype, layout: str) -> None:
    for index, _ in enumerate(emulated.orders()):
        for shape, out, stride, filters, inputs in (CASES[index], CASES[-1]):
            acc = torch.float64 if dtype == torch.float64 else torch.float32
            made = problem(shape, out, filters, dtype, inputs)
            rows = torch.full((1, inputs, shape[1]), 0.1, dtype=acc), torch.full((1, inputs, shape[1]), 1.5, dtype=acc)
            check(emulated, *made, stride, layout=LAYOUTS[layout])
            if shape[2] > 1:
                check(emulated, *made, stride, groups=2, normalize=True, layout=LAYOUTS[layout])
            check(emulated, *made, stride, groups=2, normalize=True, given=rows, layout=LAYOUTS[layout])


@pytest.mark.parametrize("layout", LAYOUTS)
def test_products_in_tf32(emulated: Any, layout: str) -> None:
    for index, _ in enumerate(emulated.orders()):
        for shape, out, stride, filters, inputs in (CASES[index], CASES[-1]):
            made = problem(shape, out, filters, torch.float32, inputs)
            check(emulated, *made, stride, layout=LAYOUTS[layout], tf32=True)
            if shape[2] > 1:
                check(emulated, *made, stride, groups=2, normalize=True, layout=LAYOUTS[layout], tf32=True)
    check(emulated, *problem((2, 70, 9, 20), 70, [(3, 1), (5, 2)], torch.float32, 1), tf32=True)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(("shape", "out", "stride"), [((2, 20, 9, 17), 70, 1), ((3, 24, 10, 9), 12, 2)])
def test_tf32_is_exact_where_ten_bits_are_enough(
    emulated: Any, shape: tuple[int, ...], out: int, stride: int, layout: str
) -> None:
    """Small whole numbers: products in TF32 and exact ones have the same bits, so every factor is in its place."""
    generator = torch.Generator().manual_seed(1)

    def whole(*size: int) -> Tensor:
        return torch.randint(-2, 3, size, generator=generator).float()

    x = whole(*shape).contiguous(memory_format=LAYOUTS[layout])
    weights = [whole(shape[1], 1, k, k) for k in (3, 5)]
    pointwise = [whole(out, shape[1], 1, 1) for _ in weights]
    rest = [0, 0], [1, 2], stride, False
    found = [emulated.op(OP)([x], weights, pointwise, *rest, None, None, 1, 1e-5, tf32) for tf32 in (False, True)]
    for a, b in zip(found[0][0], found[1][0], strict=True):
        assert torch.equal(a, b)
    grads = [whole(*y.shape).contiguous(memory_format=LAYOUTS[layout]) for y in found[0][0]]
    gradients = [
        emulated.op(f"{OP}_backward")(
            grads, [x], weights, pointwise, *rest, found[0][1], found[0][2], False, 1, True, True, tf32
        )
        for tf32 in (False, True)
    ]
    for a, b in zip(*gradients, strict=True):
        assert torch.equal(a, b)


def test_sizes_of_a_search(emulated: Any) -> None:
    """All first stages that leave a state, and second stages, of several tiles and chunks."""
    first = [(3, 1), (5, 1), (3, 2), (5, 2)] * 2
    for index, _ in enumerate(emulated.orders()):
        for dtype in DTYPES[index : index + 2]:
            check(emulated, *problem((2, 16, 16, 32), 16, first, dtype, 1))
            check(emulated, *problem((2, 32, 16, 16), 32, first, dtype, 1), 2, tf32=dtype == torch.float32)
            check(emulated, *problem((4, 64, 8, 8), 64, [(3, 1), (5, 1)], dtype, 2), groups=2, normalize=True)


def test_many_tiles_and_chunks(emulated: Any) -> None:
    check(emulated, *problem((300, 2, 3, 4), 3, [(3, 1)] * 8, torch.float32, 1))
    check(emulated, *problem((42, 4, 8, 8), 4, [(3, 1), (5, 2)], torch.float32, 2), groups=2, normalize=True)
    check(emulated, *problem((540, 4, 8, 8), 4, [(3, 1)] * 5, torch.bfloat16, 1))


def test_more_filters_and_inputs_than_a_launch_takes(emulated: Any) -> None:
    many = [(3, 1)] * 20 + [(5, 2)] * 25
    check(emulated, *problem((2, 3, 5, 4), 4, many, torch.float32, 1))
    for inputs, normalize in ((2, True), (45, False), (45, True)):
        check(emulated, *problem((2, 4, 5, 4), 4, many, torch.float16, inputs)[:3],
              [f % inputs for f in range(45)], [d for _, d in many], groups=2, normalize=normalize)  # fmt: skip


def test_layouts_strides_and_empty_batches(emulated: Any) -> None:
    images, *rest = problem((2, 4, 6, 6), 4, [(3, 1), (5, 1)], torch.float32, 2)
    mixed = [images[0].contiguous(memory_format=torch.channels_last), images[1]]
    for order in (mixed, mixed[::-1]):
        own = [x.clone() for x in order]
        got = emulated.op(OP)(own, *rest, 1, False, None, None, 1, 1e-5)[0]
        for out, source in zip(got, rest[2], strict=True):
            assert out.is_contiguous(memory_format=torch.channels_last) is (own[source].stride(1) == 1)
    check(emulated, [normal((2, 4, 6, 12), torch.float32, i)[..., ::2] for i in range(2)], *rest, normalize=True)
    empty = [x[:0] for x in images]
    check(emulated, empty, *rest)
    check(emulated, empty, *rest, 2, normalize=True, groups=2)


def test_inputs_that_no_filter_reads_have_no_gradient(emulated: Any) -> None:
    images, weights, pointwise, _, dilations = problem((2, 4, 6, 6), 4, [(3, 1), (5, 1)], torch.float32, 3)
    grads = [normal((2, 4, 6, 6), torch.float32, 9 + i) for i in range(2)]
    for normalize in (False, True):
        table = torch.full((1 if normalize else 0, 3, 4), 0.5)
        found = emulated.op(f"{OP}_backward")(
            grads, images, weights, pointwise, [2, 0], dilations, 1, normalize, table, table, normalize, 1, True, False
        )
        assert not found[1].any()
        assert found[0].any()
        assert found[2].any()


def test_filters_of_another_dtype_are_read_as_they_are(emulated: Any) -> None:
    images, weights, pointwise, *rest = problem((2, 8, 6, 6), 8, [(3, 1), (5, 1)], torch.float32, 2)
    weights = [weights[0].double(), weights[1].bfloat16()]
    pointwise = [pointwise[0].half(), pointwise[1].double()]
    check(emulated, images, weights, pointwise, *rest)
    grads, tables = [torch.ones(2, 8, 6, 6)] * 2, [torch.empty(0, 2, 8)] * 2
    settings = (*rest, 1, False, *tables, False, 1, True, True)
    found = emulated.op(f"{OP}_backward")(grads, images, weights, pointwise, *settings)
    assert [t.dtype for t in found[2:]] == [t.dtype for t in (*weights, *pointwise)]


def test_kernels_stay_inside_their_tensors(emulated: Any) -> None:
    emulated.check_addresses(
        OP,
        """
for dtype in (torch.float32, torch.float16):
    for shape, out, stride in (((2, 20, 9, 17), 18, 1), ((2, 3, 9, 10), 70, 2), ((2, 4, 8, 8), 4, 1)):
        images = [torch.randn(shape).to(dtype) for _ in range(2)]
        if shape[1] % 4 == 0:
            images = [x.contiguous(memory_format=torch.channels_last) for x in images]
        weights = [torch.randn(shape[1], 1, k, k) for k in (3, 7)]
        pointwise = [torch.randn(out, shape[1], 1, 1) for _ in range(2)]
        for tf32 in (False, True):
            outputs, mean, rstd = ops.relu_separable_conv2d(
                images, weights, pointwise, [0, 1], [1, 2], stride, True, None, None, 2, 1e-5, tf32)
            ops.relu_separable_conv2d_backward(
                outputs, images, weights, pointwise, [0, 1], [1, 2], stride, True, mean, rstd, True, 2, True, True,
                tf32)
""",
    )

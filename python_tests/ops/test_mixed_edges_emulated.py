"""The CUDA kernels of mixed_edges, run by the emulation, equal its references in float64."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from ops.filters import LAYOUTS, normal
from ops.test_mixed_edges import CHOICES, Problem, in_layout, operands, problem
from ops.tolerances import DTYPES, assert_close

from ddarts_ext.ops._mixed_edges_reference import mixed_edges_backward_reference, mixed_edges_reference

WANTED = [(True, True, True), (True, False, False), (False, True, False), (False, False, True)]
"""The gradients of x, of the filters, of the weights."""


def check(
    emulated: Any, p: Problem, wanted: Sequence[tuple[bool, bool, bool]] = WANTED[:1], *, tf32: bool = False
) -> None:
    """Sums, what is saved, statistics and gradients."""
    q = p.double()
    own, all_settings = operands(p)
    row = torch.float16 if tf32 else p.x.dtype  # which has as many bits
    _, exact_settings = operands(q)
    with torch.no_grad():
        tensors, *tables = emulated.op("mixed_edges")(
            p.x, p.previous, p.depthwise, p.pointwise, p.weights, *all_settings, tf32
        )
        want, *want_tables = mixed_edges_reference(
            q.x, q.previous, q.depthwise, q.pointwise, q.weights, *exact_settings
        )
    assert len(tensors) == len(want)
    for a, b in zip(tensors, want, strict=True):
        assert a.shape == b.shape
        if a.dtype == torch.uint8 and a.numel():
            assert torch.equal(a, b)
        elif a.numel():
            assert_close(a, b, row)
    for a, b in zip(tables, want_tables, strict=True):
        assert_close(a, b, row)  # of outputs that are rounded
    sums = p.edges.sums
    layout = torch.channels_last if p.x.stride(1) == 1 else torch.contiguous_format
    grads = [normal(s.shape, p.x.dtype, 100 + i).contiguous(memory_format=layout) for i, s in enumerate(tensors[:sums])]
    # Of what was saved, whose rounding a norm would enlarge.
    exact = [t.double() if t.is_floating_point() else t for t in tensors[sums:]]
    rows = [table.double() for table in tables]
    for flags in wanted:
        with torch.no_grad():
            found = emulated.op("mixed_edges_backward")(
                grads, p.x, p.depthwise, p.pointwise, p.weights, tensors[sums:], *own, *tables, not p.statistics,
                *flags, tf32,
            )  # fmt: skip
            expected = mixed_edges_backward_reference(
                [g.double() for g in grads], q.x, q.depthwise, q.pointwise, q.weights, exact, *own, *rows,
                not p.statistics, *flags,
            )  # fmt: skip
        assert len(found) == len(expected)
        for a, b in zip(found, expected, strict=True):
            assert a.shape == b.shape
            assert_close(a, b, a.dtype if a.dtype.itemsize == 2 else row, gradient=True)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_every_dtype_layout_and_setting(emulated: Any, dtype: torch.dtype, layout: str) -> None:
    settings = list(itertools.product((1, 2), (1, 3), (False, True)))
    for index, _ in enumerate(emulated.orders()):
        for stride, groups, given in settings[index :: 3 if dtype.itemsize > 2 else 4]:
            p = problem((6, 16, 9, 8), dtype=dtype, stride=stride, groups=groups, given=given, previous=index != 1)
            check(emulated, in_layout(p, LAYOUTS[layout]), WANTED if index == 0 else WANTED[:1])


@pytest.mark.parametrize("layout", LAYOUTS)
def test_products_in_tf32(emulated: Any, layout: str) -> None:
    for index, _ in enumerate(emulated.orders()):
        for stride in (1, 2):
            p = problem((4, 20, 9, 17), dtype=torch.float32, stride=stride, groups=2, given=index == 1, previous=True)
            check(emulated, in_layout(p, LAYOUTS[layout]), tf32=True)


@pytest.mark.parametrize("entries", CHOICES, ids=str)
def test_any_choice_of_ops(emulated: Any, entries: list[tuple[str, ...]]) -> None:
    for previous, given in itertools.product((False, True), repeat=2):
        p = problem((4, 5, 6, 7), entries, previous=previous, given=given, groups=2)
        check(emulated, in_layout(p, LAYOUTS["channels-last" if given else "contiguous"]), WANTED)


@pytest.mark.parametrize("size", [(1, 2), (3, 7), (9, 17), (17, 33)], ids=str)
def test_any_size_and_number_of_channels(emulated: Any, size: tuple[int, int]) -> None:
    for channels, stride in itertools.product((1, 20), (1, 2)):
        p = problem((2, channels, *size), dtype=torch.float64, stride=stride)
        check(emulated, in_layout(p, LAYOUTS["channels-last"]))


def test_sizes_of_a_search(emulated: Any) -> None:
    """Several blocks of channels of inputs and outputs, and more tiles than second stages join for themselves."""
    edges = (("max", "average", "skip", "sep 3", "dil 5"), ("max", "sep 5", "dil 3"))
    for shape, stride in (((4, 64, 8, 8), 1), ((2, 32, 16, 32), 2), ((140, 4, 8, 8), 1), ((2, 82, 8, 16), 1)):
        check(emulated, in_layout(problem(shape, edges, stride=stride), LAYOUTS["channels-last"]))
    check(emulated, problem((2, 40, 8, 16), edges, torch.float64))


def test_more_branches_targets_and_filters_than_a_launch_takes(emulated: Any) -> None:
    pools = problem((2, 3, 5, 4), [("max", "average", "skip") * 34, *[("skip", "max")] * 20])
    check(emulated, in_layout(pools, LAYOUTS["channels-last"]), WANTED)
    for dtype in (torch.float32, torch.bfloat16):
        filters = problem((2, 4, 5, 4), [("sep 3",) * 26, ("dil 3",) * 27], dtype)
        check(emulated, in_layout(filters, LAYOUTS["channels-last"]))


def test_weights_of_another_dtype_and_strided_tensors(emulated: Any) -> None:
    p = problem((4, 16, 6, 6))
    wide = normal((4, 32, 8, 6), torch.float32, 5)
    weights = normal((1, 2 * p.weights.shape[1]), torch.float32, 81)[:, ::2].double()
    check(emulated, replace(p, x=wide[:, 3:19, 1:-1], weights=weights), WANTED)
    halves = [[w.bfloat16() for w in group] for group in (p.depthwise, p.pointwise)]
    check(emulated, replace(p, depthwise=halves[0], pointwise=halves[1]))


def test_empty_batch(emulated: Any) -> None:
    p = problem((0, 8, 5, 5))
    own, all_settings = operands(p)
    tensors, *tables = emulated.op("mixed_edges")(p.x, p.previous, p.depthwise, p.pointwise, p.weights, *all_settings)
    assert tensors[0].shape == (0, 8, 5, 5)
    found = emulated.op("mixed_edges_backward")(
        tensors[: p.edges.sums], p.x, p.depthwise, p.pointwise, p.weights, tensors[p.edges.sums :], *own, *tables,
        True, True, True, True,
    )  # fmt: skip
    assert [g.shape for g in found] == [t.shape for t in p.tensors()[: len(found)]]
    assert not any(g.any() for g in found)


def test_kernels_stay_inside_their_tensors(emulated: Any) -> None:
    emulated.check_addresses(
        "mixed_edges",
        """
cases = ((torch.float32, (4, 20, 9, 17), 1), (torch.float16, (4, 3, 9, 10), 2), (torch.float32, (2, 4, 8, 8), 1))
for dtype, shape, stride in cases:
    x = torch.randn(shape).to(dtype)
    if shape[1] % 4 == 0:
        x = x.contiguous(memory_format=torch.channels_last)
    kinds = [-2, -3, 0, 1, 2, -2, *([-1] if stride == 1 else [])]
    targets, flags = [0, 0, 0, 1, 1, 1, 0][: len(kinds)], [True] * len(kinds)
    weights = [torch.randn(shape[1], 1, k, k) for k in (3, 5, 7, 3, 5)]
    points = [torch.randn(shape[1], shape[1], 1, 1) for _ in weights]
    mixing = torch.rand(2, len(kinds))
    numbers = targets, kinds, [1, 2, 1], [2, 0], flags
    size = (shape[0], shape[1], *((n + stride - 1) // stride for n in shape[2:]))
    previous = [torch.randn(size).to(dtype) for _ in range(2)]
    tensors, *tables = ops.mixed_edges(
        x, previous, weights, points, mixing, *numbers, 2, stride, None, None, None, None, 1e-5)
    ops.mixed_edges_backward(
        tensors[:2], x, weights, points, mixing, tensors[2:], *numbers, stride, *tables, True, True, True, True)
""",
    )

"""The CUDA kernels of mixed_edges, run by the emulation, equal its references in float64."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from ops.filters import LAYOUTS, normal
from ops.test_mixed_edges import ALL, Problem, in_layout, operands, problem
from ops.tolerances import DTYPES, assert_close

from ddarts_ext.ops._mixed_edges_reference import mixed_edges_backward_reference, mixed_edges_reference

WANTED = [(True, True, True), (True, False, False), (False, True, False), (False, False, True)]
"""The gradients of x, of the filters, of the weights."""


def check(emulated: Any, p: Problem, wanted: Sequence[tuple[bool, bool, bool]] = WANTED[:1]) -> None:
    """Sums, what is saved, statistics and gradients."""
    q = p.double()
    own, all_settings = operands(p)
    _, exact_settings = operands(q)
    with torch.no_grad():
        tensors, *tables = emulated.op("mixed_edges")(
            p.x, p.previous, p.depthwise, p.pointwise, p.weights, *all_settings
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
            assert_close(a, b)
    for a, b in zip(tables, want_tables, strict=True):
        assert_close(a, b, p.x.dtype)  # of outputs that are rounded
    sums = p.edges.sums
    layout = torch.channels_last if p.x.stride(1) == 1 else torch.contiguous_format
    grads = [
        normal(s.shape, p.x.dtype, 100 + i).contiguous(memory_format=layout) for i, s in enumerate(tensors[:sums])
    ]
    # Of what was saved, whose rounding a norm would enlarge.
    exact = [t.double() if t.is_floating_point() else t for t in tensors[sums:]]
    rows = [table.double() for table in tables]
    for flags in wanted:
        with torch.no_grad():
            found = emulated.op("mixed_edges_backward")(
                grads, p.x, p.depthwise, p.pointwise, p.weights, tensors[sums:], *own, *tables, not p.statistics, *flags
            )
            expected = mixed_edges_backward_reference(
                [g.double() for g in grads], q.x, q.depthwise, q.pointwise, q.weights, exact, *own, *rows,
                not p.statistics, *flags,
            )  # fmt: skip
        assert len(found) == len(expected)
        for a, b in zip(found, expected, strict=True):
            assert a.shape == b.shape
            assert_close(a, b, p.x.dtype, gradient=True)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_every_dtype_layout_and_setting(emulated: Any, dtype: torch.dtype, layout: str) -> None:
    settings = list(itertools.product((1, 2), (1, 3), (False, True)))
    for index, _ in enumerate(emulated.orders()):
        for stride, groups, given in settings[index::3]:
            p = problem((6, 16, 9, 8), dtype=dtype, stride=stride, groups=groups, given=given, previous=index != 1)
            check(emulated, in_layout(p, LAYOUTS[layout]), WANTED if index == 0 else WANTED[:1])

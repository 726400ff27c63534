"""Statistics of an empty batch are mean 0 and variance 0, in every op that has some and wherever it is computed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from ddarts_ext.ops import AVERAGE, MAXIMUM, SKIP

EPS = 1e-4
TAPS, MIXING = torch.ones(4, 1, 3, 3), torch.ones(4, 4, 1, 1)
KINDS = [SKIP, MAXIMUM, 0, AVERAGE, SKIP]
FLAGS = [True, True, True, False, False]
CALLS: dict[str, tuple[Callable[[Tensor], list[Any]], list[bool]]] = {
    "grouped_batch_norm": (lambda x: [x, None, None, None, None, 2, EPS, True], [True]),
    "mixed_sum": (lambda x: [[x, x], torch.ones(2, 2), [True, False], None, None, EPS], [True, False]),
    "relu_depthwise_conv2d": (lambda x: [x, [TAPS], [1], 1, True, None, None, 2, EPS], [True]),
    "relu_separable_conv2d": (lambda x: [[x], [TAPS], [MIXING], [0], [1], 1, True, None, None, 2, EPS], [True]),
    "mixed_edges": (
        lambda x: [
            x, [], [TAPS, TAPS], [MIXING, MIXING], torch.ones(2, 5), [0] * 5, KINDS, [1], [0], FLAGS, 1, 1,
            None, None, None, None, EPS,
        ],
        FLAGS,
    ),
}  # fmt: skip
"""Arguments of the op with two groups, and which rows of its statistics have a norm."""


def check(op: str, function: Callable[..., Any], dtype: torch.dtype) -> None:
    arguments, normed = CALLS[op]
    for layout in (torch.contiguous_format, torch.channels_last):
        x = torch.zeros(0, 4, 5, 5, dtype=dtype).contiguous(memory_format=layout)
        _, *tables = function(*arguments(x))
        for mean, rstd, flags in zip(tables[::2], tables[1::2], (normed, [True]), strict=False):
            assert mean.shape == rstd.shape
            assert not mean.any()
            rows = rstd.reshape(2, len(flags), 4)
            expected = torch.tensor([EPS**-0.5 if flag else 1.0 for flag in flags], dtype=rstd.dtype)
            torch.testing.assert_close(rows, expected[:, None].expand(rows.shape))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64], ids=str)
@pytest.mark.parametrize("op", CALLS)
def test_on_the_cpu(op: str, dtype: torch.dtype) -> None:
    check(op, getattr(torch.ops.ddarts_ext, op), dtype)


@pytest.mark.parametrize("op", CALLS)
def test_emulated(emulated: Any, op: str) -> None:
    check(op, emulated.op(op), torch.float32)

"""One valid call of every op, raw: what the tests of all ops start from."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ddarts_ext.ops import AVERAGE, MAXIMUM, SKIP

SHAPE = (4, 3, 6, 5)


def image(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(*(shape or SHAPE), dtype=dtype)


def valid_calls(dtype: torch.dtype = torch.float32, shape: tuple[int, int, int, int] = SHAPE) -> dict[str, list[Any]]:
    """The arguments by name of op, images of one shape; backward ops get what their forward gave."""
    ops = torch.ops.ddarts_ext
    x = image(*shape, dtype=dtype)
    n, c, h, w = shape
    filters = [image(c, 1, k, k, dtype=dtype) for k in (3, 5)]
    mixing = [image(c, c, 1, 1, dtype=dtype) for _ in filters]
    calls: dict[str, list[Any]] = {
        "pool3x3": [x, 2, True, True],
        "grouped_batch_norm": [x, image(c, dtype=dtype), image(c, dtype=dtype), None, None, 2, 1e-5, True],
        "mixed_sum": [[x, image(*shape, dtype=dtype)], image(2, 2, dtype=dtype), [True, False], None, None, 1e-5],
        "channel_iim": [[x, image(*shape, dtype=dtype)], None, None, [False, False], False],
        "spawn_group": [image(n, 2 * c, (h + 1) // 2, (w + 1) // 2, dtype=dtype), x, 2, 2, False],
        "relu_depthwise_conv2d": [x, filters, [1, 2], 1, True, None, None, 2, 1e-5],
        "relu_separable_conv2d": [[x], filters, mixing, [0, 0], [1, 2], 1, True, None, None, 2, 1e-5],
        "relu_pointwise_conv2d": [x, mixing, 2],
        "mixed_edges": [
            x, [image(*shape, dtype=dtype)] * 2, [*filters, filters[0]], [*mixing, mixing[0]], image(2, 5, dtype=dtype),
            [0, 0, 1, 0, 1], [MAXIMUM, 0, SKIP, AVERAGE, 1], [1, 2], [0], [True, True, False, True, True], 2, 1,
            None, None, None, None, 1e-5,
        ],
    }  # fmt: skip
    rows = [image(n, c, dtype=dtype) for _ in range(4)]
    calls["recurrent_node"] = [rows[:2], [torch.cat(rows[:2], 1)] * 2, image(2, 3, dtype=dtype), [0, 3, 2]]
    calls["recurrent_node_backward"] = [rows[2], *calls["recurrent_node"]]
    maximum, average, argmax = ops.pool3x3(*calls["pool3x3"])
    calls["pool3x3_backward"] = [maximum, average, argmax, h, w, 2, False]
    calls["pool3x3_readers_backward"] = [[maximum, average], [average], [x], argmax, h, w, 2, False]
    out, *rows = ops.grouped_batch_norm(*calls["grouped_batch_norm"])
    calls["grouped_batch_norm_backward"] = [out, *calls["grouped_batch_norm"][:3], *rows, True, 2, True]
    out, *rows = ops.mixed_sum(*calls["mixed_sum"])
    calls["mixed_sum_backward"] = [out, *calls["mixed_sum"][:3], *rows, True, True]
    calls["spawn_group_backward"] = [calls["spawn_group"][0], h, w, 2, 2]
    for name in ("relu_depthwise_conv2d", "relu_separable_conv2d"):
        given = calls[name]
        outputs, *rows = getattr(ops, name)(*given)
        calls[f"{name}_backward"] = [outputs, *given[:-4], *rows, True, 2, True, True]
    given = calls["relu_pointwise_conv2d"]
    calls["relu_pointwise_conv2d_backward"] = [ops.relu_pointwise_conv2d(*given), *given, True, True]
    given = calls["mixed_edges"]
    tensors, *rows = ops.mixed_edges(*given)
    calls["mixed_edges_backward"] = [
        tensors[:2], given[0], *given[2:5], tensors[2:], *given[5:10], 1, *rows, True, True, True, True
    ]  # fmt: skip
    return calls

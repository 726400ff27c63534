"""Every op on images of many sizes: what the references make of them goes to a file, the kernels are compared with it.

A program, as the copy of the CPU kernels is chosen when the library is loaded: ``write FILE`` or ``check FILE``.
"""

from __future__ import annotations

import sys
from typing import Any

import torch
from ops.calls import valid_calls
from ops.tolerances import assert_close
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_map

from ddarts_ext import _extension

# Fewer channels than lanes, as many, and a rest; rows that fill vectors, and rows that end in a tail.
SHAPES = [(4, 3, 6, 5), (2, 8, 8, 8), (2, 16, 4, 4), (2, 16, 18, 33), (4, 20, 7, 19), (2, 33, 9, 16)]
DTYPES = (torch.float64, torch.float32, torch.float16, torch.bfloat16)


def wide(value: Any) -> Any:
    return value.double() if isinstance(value, Tensor) and value.is_floating_point() else value


def channels_last(value: Any) -> Any:
    image = isinstance(value, Tensor) and value.dim() == 4
    return value.contiguous(memory_format=torch.channels_last) if image else value


def write(path: str) -> None:
    torch.manual_seed(0)
    rows = []
    for shape in SHAPES:
        for dtype in DTYPES:
            for name, args in valid_calls(dtype, shape).items():
                if name == "mixed_edges_backward" and dtype.itemsize == 2:
                    continue  # rounds between its stages: a ReLU cuts elsewhere than in float64
                expected = getattr(torch.ops.ddarts_ext, name)(*tree_map(wide, args))
                rows.append((name, str(dtype), list(shape), args, expected))
    torch.save(rows, path)


def check(path: str) -> None:
    """Prints the copy that runs, and how many calls of it gave what the references give."""
    rows = torch.load(path, weights_only=True)
    for name, dtype, shape, args, expected in rows:
        for layout in (lambda value: value, channels_last):
            found = getattr(torch.ops.ddarts_ext, name)(*tree_map(layout, args))
            for got, want in zip(tree_flatten(found)[0], tree_flatten(expected)[0], strict=True):
                want = want.to(got.dtype)  # the gradient of a weight may be more than a float16 holds
                try:
                    assert_close(got, want, getattr(torch, dtype.removeprefix("torch.")), gradient=True)
                except AssertionError as error:
                    raise SystemExit(f"{name} {shape} {dtype}: {error}") from None
    print(_extension.load().cpu_capability, 2 * len(rows))


if __name__ == "__main__":
    {"write": write, "check": check}[sys.argv[1]](sys.argv[2])

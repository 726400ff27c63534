"""pool3x3_readers_backward: one launch for what autograd would add up, on every device and under emulation."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from ops.tolerances import DTYPES, assert_close
from torch import Tensor

from ddarts_ext.nn import readers
from ddarts_ext.nn.readers import pooled_apart, readers_and_pools
from ddarts_ext.ops import pool3x3
from ddarts_ext.ops.pool3x3_readers import MOST_READERS, pool3x3_readers_backward_reference

SHAPES = [(2, 3, 5, 7), (1, 1, 1, 1), (1, 16, 3, 5), (2, 2, 4, 16), (1, 8, 2, 2), (2, 1, 4, 8), (0, 3, 4, 4)]
COUNTS = [(3, 4, 4), (0, 1, 0), (1, 0, 2), (5, 2, 1)]
LAYOUTS = (torch.contiguous_format, torch.channels_last)


def gradients(shape: tuple[int, ...], dtype: torch.dtype, layout: torch.memory_format, stride: int, counts: Any) -> Any:
    """Arguments of the op; of the others one is some channels of a larger image, one in the other layout."""
    others, maxima, averages = counts
    n, c, h, w = shape
    small = (n, c, (h - 1) // stride + 1, (w - 1) // stride + 1)

    def made(size: tuple[int, ...]) -> Tensor:
        return torch.randn(size).to(dtype).contiguous(memory_format=layout)

    rest = [made(shape) for _ in range(others)]
    if others > 1:
        rest[0] = made((n, 3 * c, h, w))[:, c : 2 * c]
        rest[1] = rest[1].contiguous(memory_format=LAYOUTS[layout == torch.contiguous_format])
    where = torch.randint(0, 9, small, dtype=torch.uint8).contiguous(memory_format=layout)
    last = layout == torch.channels_last
    return [made(small) for _ in range(maxima)], [made(small) for _ in range(averages)], rest, where, h, w, stride, last


def check(op: Any, dtype: torch.dtype, stride: int) -> None:
    for shape, layout, counts in itertools.product(SHAPES, LAYOUTS, COUNTS):
        given = gradients(shape, dtype, layout, stride, counts)
        wide = [[x.double() for x in images] for images in given[:3]]
        expected = pool3x3_readers_backward_reference(*wide, *given[3:])
        found = op(*given)
        assert found.dtype == dtype
        assert found.is_contiguous(memory_format=layout)
        assert_close(found, expected, gradient=True)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("stride", [1, 2])
def test_equals_the_reference(dtype: torch.dtype, stride: int) -> None:
    check(torch.ops.ddarts_ext.pool3x3_readers_backward, dtype, stride)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("stride", [1, 2])
def test_cuda_kernels_equal_the_reference(emulated: Any, dtype: torch.dtype, stride: int) -> None:
    op = emulated.op("pool3x3_readers_backward")
    for _ in emulated.orders():
        check(op, dtype, stride)


def test_cuda_kernels_stay_inside_their_tensors(emulated: Any) -> None:
    emulated.check_addresses(
        "pool3x3",
        """
for shape in [(1, 1, 1, 1), (2, 3, 5, 7), (1, 8, 3, 3), (1, 2, 3, 16), (1, 1, 16, 8)]:
    for form in (torch.contiguous_format, torch.channels_last):
        for stride in (1, 2):
            x = torch.randn(shape).contiguous(memory_format=form)
            most, mean, where = ops.pool3x3(x, stride, True, True)
            n, c, h, w = shape
            wide = torch.randn(n, 2 * c, h, w).contiguous(memory_format=form)
            others = [x, wide[:, c:], wide[:, :c]]
            ops.pool3x3_readers_backward([most] * 3, [mean], others, where, h, w, stride, not x.is_contiguous())
""",
    )


def test_more_gradients_than_a_launch_takes_are_refused(emulated: Any) -> None:
    x = torch.randn(1, 2, 4, 4)
    most, _, where = torch.ops.ddarts_ext.pool3x3(x, 1, True, False)
    with pytest.raises(RuntimeError, match="pool3x3_readers_backward: gradients must be at most 16 of a kind, got 17"):
        emulated.op("pool3x3_readers_backward")([most] * (MOST_READERS + 1), [], [], where, 4, 4, 1, False)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("read", ["all", "others", "pools"])
def test_readers_and_pools_give_the_gradient_of_one_after_the_other(stride: int, read: str) -> None:
    shape = (2, 4, 6, 8)
    x = torch.randn(shape, dtype=torch.float64).contiguous(memory_format=torch.channels_last).requires_grad_()
    parts, maxima, averages = pooled_apart(x, 3, stride=stride, maxima=2, averages=3)
    pooled = pool3x3(x, stride=stride)
    assert pooled.maximum is not None
    assert pooled.average is not None
    pairs = [(part, x) for part in parts] if read != "pools" else []
    if read != "others":
        pairs += [(image, pooled.maximum) for image in maxima] + [(image, pooled.average) for image in averages[1:]]
    waves = [torch.randn_like(found) for found, _ in pairs]
    for found, expected in pairs:
        torch.testing.assert_close(found, expected, rtol=0, atol=0)
    found, expected = (
        sum((image * wave).sum() for image, wave in zip(images, waves, strict=True))
        for images in zip(*pairs, strict=True)
    )
    torch.testing.assert_close(torch.autograd.grad(found, x), torch.autograd.grad(expected, x))


def test_readers_and_pools_are_twice_differentiable() -> None:
    torch.manual_seed(0)
    x = torch.randn(1, 2, 4, 4, dtype=torch.float64, requires_grad=True)

    def summed(x: Tensor) -> Tensor:
        parts, maxima, averages = pooled_apart(x, 2, stride=1, maxima=2, averages=1)
        return sum(image.square() * (k + 1) for k, image in enumerate((*parts, *maxima, *averages)))  # type: ignore[return-value]

    assert torch.autograd.gradcheck(summed, x)
    assert torch.autograd.gradgradcheck(summed, x)


@pytest.mark.not_on_meta
def test_where_nothing_is_gained_they_stay_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    x = torch.randn(1, 2, 4, 4, requires_grad=True)
    assert readers_and_pools(x, 2, stride=1, maxima=1, averages=1) is None  # a CPU
    gpu = torch.empty(1, 2, 4, 4, device="meta", requires_grad=True)
    assert readers_and_pools(gpu, 2, stride=1, maxima=1, averages=1) is not None
    assert readers_and_pools(gpu, MOST_READERS + 1, stride=1, maxima=1, averages=1) is None
    assert readers_and_pools(gpu, 2, stride=1, maxima=0, averages=0) is None
    with torch.no_grad():
        assert readers_and_pools(gpu, 2, stride=1, maxima=1, averages=1) is None
    monkeypatch.setattr(readers._stacked, "stacks", lambda *tensors: False)
    assert readers_and_pools(gpu, 2, stride=1, maxima=1, averages=1) is None

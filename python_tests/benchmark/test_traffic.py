"""The bytes that launches move: of ops by their arguments, and of the plan by the calls of a step."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from ddarts_ext import ops
from ddarts_ext.benchmark import launches
from ddarts_ext.benchmark.launches.traffic import size_of

IMAGE = 4 * 2 * 4 * 8 * 8
"""Bytes of :func:`image`."""


def image() -> Tensor:
    return torch.empty(2, 4, 8, 8, device="meta", memory_format=torch.channels_last)


def counted(step: Callable[[], object]) -> launches.Counted:
    with launches.Counted() as found:
        step()
    return found


def test_tensors_are_counted_once_and_by_their_memory() -> None:
    x = image()
    assert size_of([x, (x, x.view_as(x))]) == IMAGE
    assert size_of([x, image()]) == 2 * IMAGE
    assert size_of(torch.empty(3, 1, device="meta").expand(3, 1000)) == 12
    assert size_of(torch.empty(0, 5, device="meta").expand(7, 0, 5)) == 0
    assert size_of([1, None, "text"]) == 0


@pytest.mark.parametrize(
    ("step", "images"),
    [
        (lambda x: x.clone(), 2),
        (lambda x: x + x, 2),
        (lambda x: x + image(), 3),
        (lambda x: x.mul_(2), 2),
        (lambda x: x.copy_(image()), 2),
        (lambda x: torch.cat([x, image()]), 4),
        (lambda x: x.zero_(), 1),
        (lambda x: torch.ones_like(x), 1),
        (lambda x: x.permute(0, 2, 3, 1).view(-1).detach()[3:], 0),
        (lambda x: ops.mixed_sum([x, image()], torch.ones(2, device="meta")), 3),
        (lambda x: ops.mixed_sum([x, image()], torch.ones(2, device="meta"), normalize=[True, False]), 4),
        (lambda x: ops.grouped_batch_norm(x), 3),
    ],
)
def test_ops_move_what_their_launches_read_and_write(step: Callable[[Tensor], object], images: float) -> None:
    x = image()
    found = counted(lambda: step(x))
    # Tables of a few values are beside the images.
    assert images * IMAGE <= found.moved.total() < images * IMAGE + IMAGE / 8


def test_a_choice_reads_what_it_gives() -> None:
    many, row = torch.empty(1000, 4, 8, 8, device="meta"), torch.empty(2, dtype=torch.long, device="meta")
    assert counted(lambda: many.index_select(0, row)).moved.total() == 2 * IMAGE + 16


@pytest.mark.parametrize("wanted", [(True, True), (True, False), (False, True)])
def test_every_gradient_of_a_convolution_is_a_pass(wanted: tuple[bool, bool]) -> None:
    x, weight = image().requires_grad_(wanted[0]), torch.empty(4, 4, 1, 1, device="meta").requires_grad_(wanted[1])
    out = torch.conv2d(x, weight)
    gradient = torch.empty_like(out)
    found = counted(lambda: torch.autograd.grad(out, [t for t in (x, weight) if t.requires_grad], gradient))
    assert found.moved["aten::convolution_backward"] == wanted[0] * (2 * IMAGE + 64) + wanted[1] * (2 * IMAGE + 64)


def test_the_plan_has_every_stored_image_once() -> None:
    """A pool, its norm and weighted sum, and a convolution that reads the sum."""
    x, weights = image().requires_grad_(), torch.ones(1, 1, device="meta").requires_grad_()
    filters = torch.empty(4, 4, 1, 1, device="meta").requires_grad_()

    def forward() -> Tensor:
        pooled = ops.pool3x3(x, maximum=False).average
        assert pooled is not None
        total = ops.mixed_sum([pooled], weights, normalize=[True]).out
        return ops.relu_pointwise_conv2d(total, [filters])

    # Pool, sum and convolution are written, and read by whatever comes next.
    assert counted(forward).plan.bytes == 2 * 3 * IMAGE

    def step() -> None:
        out = forward()
        torch.autograd.grad(out, [x, filters], torch.empty_like(out))

    # Back: the pool is read twice, as it is normalised; the sum once, and its gradient is written and read. Nothing
    # behind the last convolution reads it.
    assert counted(step).plan.bytes == (4 + 5 + 2) * IMAGE


def test_norms_and_joined_channels_are_not_stored() -> None:
    filters = torch.empty(4, 4, 1, 1, device="meta")

    def plain() -> None:
        ops.relu_pointwise_conv2d(torch.conv2d(image(), filters), [filters])

    def with_norm() -> None:
        normed = ops.grouped_batch_norm(torch.conv2d(image(), filters)).out
        ops.relu_pointwise_conv2d(torch.cat([normed]), [filters])

    assert counted(plain).plan.bytes == counted(with_norm).plan.bytes == 4 * IMAGE

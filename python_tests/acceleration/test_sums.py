"""However a weighted sum is written, it is taken at once and equals the user's own."""

# ruff: noqa: B905  (user code, in the style of its time)

from __future__ import annotations

import copy
import functools
import operator
from collections.abc import Callable, Sequence

import pytest
import torch
from acceleration import conventions as user
from acceleration.equality import assert_same, features, run, spread, table
from torch import Tensor, nn

from ddarts_ext import accelerate
from ddarts_ext.acceleration.classes import settings_of

C = user.C
Ops = Sequence[nn.Module]


def divided(x: Tensor, w: Tensor, ops: Ops) -> Tensor:
    return sum(m * op(x) / 3 for m, op in zip(w, ops))


def divided_by_a_tensor(x: Tensor, w: Tensor, ops: Ops) -> Tensor:
    return sum(torch.div(m * op(x), w.sum()) for m, op in zip(w, ops)).div(w[0])


def negated(x: Tensor, w: Tensor, ops: Ops) -> Tensor:
    out = -(w[0] * ops[0](x)) - ops[1](x)
    return 2 - out - w[0] - sum(torch.neg(m * op(x)) for m, op in zip(w[2:], ops[2:])).sub(x)


def masked_and_counted(x: Tensor, w: Tensor, ops: Ops) -> Tensor:
    mask = (w > 0.3).long()  # whole numbers must not round what they scale
    return sum(m * op(x) / mask.sum() for m, op in zip(mask, ops)) * (1 / 3) * w.sum()


def into_zeros_like(x: Tensor, w: Tensor, ops: Ops) -> Tensor:
    out = torch.zeros_like(x)
    for m, op in zip(w, ops):
        out += m * op(x)
    return out


def out_of_zeros(x: Tensor, w: Tensor, ops: Ops) -> Tensor:
    out = torch.zeros(x.shape, dtype=x.dtype)
    for m, op in zip(w, ops):
        out -= m * op(x)
    return out


def onto_ones(x: Tensor, w: Tensor, ops: Ops) -> Tensor:
    out = torch.ones_like(x)
    for m, op in zip(w, ops):
        out = torch.add(out, op(x), alpha=2) + m * op(x)
    return out


def stacked(x: Tensor, w: Tensor, ops: Ops) -> Tensor:
    return torch.stack([op(x) for op in ops]).mul(w.view(-1, 1, 1, 1, 1)).sum(0)


def stacked_last(x: Tensor, w: Tensor, ops: Ops) -> Tensor:
    return torch.sum(w * torch.stack([op(x) for op in ops], dim=-1), dim=-1)


def stacked_mean(x: Tensor, w: Tensor, ops: Ops) -> Tensor:
    return (torch.stack([m * op(x) for m, op in zip(w, ops)], 1) / w[0]).mean(dim=1)


def stacked_and_read(x: Tensor, w: Tensor, ops: Ops) -> Tensor:
    outs = torch.stack([op(x) for op in ops]) * w.view(-1, 1, 1, 1, 1)
    return outs.sum(0) + outs[1] * outs.shape[0] + outs.sum(dim=(0,)) + outs.flatten(1).sum() + len(outs) * outs.amax(0)


def einsum(x: Tensor, w: Tensor, ops: Ops) -> Tensor:
    return torch.einsum("k,kbchw->bchw", w, torch.stack([op(x) for op in ops]))


def einsum_ellipsis(x: Tensor, w: Tensor, ops: Ops) -> Tensor:
    return torch.einsum("o...,o->...", torch.stack([op(x) for op in ops]), w)


def einsum_otherwise(x: Tensor, w: Tensor, ops: Ops) -> Tensor:
    outs = torch.stack([op(x) for op in ops])
    return torch.einsum("k,kbchw->bchw", w, outs) * torch.einsum("k,kbchw->cb", w, outs).sum()


def tensordot(x: Tensor, w: Tensor, ops: Ops) -> Tensor:
    return torch.tensordot(w, torch.stack([op(x) for op in ops]), dims=([0], [0]))


def reduced(x: Tensor, w: Tensor, ops: Ops) -> Tensor:
    return functools.reduce(operator.add, map(torch.mul, w, [op(x) for op in ops])) * 0.5


def averaged(x: Tensor, w: Tensor, ops: Ops) -> Tensor:
    return sum(m * op(x) for m, op in zip(w, ops)) / len(ops)


def kept_numbers(x: Tensor, w: Tensor, ops: Ops) -> Tensor:
    return (sum(m * op(x) for m, op in zip(w, ops)) + 1.5 - w[1]) / w[2]


def asked_for_its_type(x: Tensor, w: Tensor, ops: Ops) -> Tensor:
    outs = [op(x) for op in ops]
    if not all(isinstance(out, Tensor) and torch.is_tensor(out) for out in outs):
        raise TypeError("cannot be summed")
    return sum(m * out for m, out in zip(w, outs))


FORMS: list[Callable[[Tensor, Tensor, Ops], Tensor]] = [
    divided, divided_by_a_tensor, negated, masked_and_counted, into_zeros_like, out_of_zeros, onto_ones, stacked,
    stacked_last, stacked_mean, stacked_and_read, einsum, einsum_ellipsis, einsum_otherwise, tensordot, reduced,
    averaged, kept_numbers, asked_for_its_type,
]  # fmt: skip


class Mixed(nn.Module):
    """A mixed op whose sum is written in one of the forms."""

    def __init__(self, form: Callable[[Tensor, Tensor, Ops], Tensor]) -> None:
        super().__init__()
        self.form = form
        self.ops = nn.ModuleList(user.ops(C, 1))

    def forward(self, x: Tensor, weights: Tensor) -> Tensor:
        return self.form(x, weights, list(self.ops))


def accelerated(form: Callable[[Tensor, Tensor, Ops], Tensor]) -> tuple[nn.Module, nn.Module]:
    before = spread(Mixed(form)).double()
    module = copy.deepcopy(before)
    report = accelerate(module, least_gain=0)
    assert report.replaced, report
    return before, module


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.__name__)
def test_equals_the_users_sum(form: Callable[[Tensor, Tensor, Ops], Tensor]) -> None:
    before, module = accelerated(form)
    given = [*features((C, 1)), table(6)]
    for training in (True, False):
        for one in (before, module):
            one.train(training)
        for _ in range(2):
            assert_same(run(module, "forward", given), run(before, "forward", given))


AT_ONCE = {form: 1 for form in FORMS if form is not stacked_and_read} | {einsum_otherwise: 3, negated: 2}


@pytest.mark.parametrize(("form", "sums"), AT_ONCE.items(), ids=[form.__name__ for form in AT_ONCE])
def test_takes_it_at_once(form: Callable[[Tensor, Tensor, Ops], Tensor], sums: int) -> None:
    _, module = accelerated(form)
    module(*features((C, 1)), table(6))
    assert 1 <= settings_of(module).fused <= sums


def held_by_another_name(x: Tensor, w: Tensor, ops: Ops) -> Tensor:
    out = torch.zeros_like(x)
    held = [out]
    out += w[0] * ops[4](x) + w[1] * ops[5](x)
    out = out * 2
    return out + held[0]


def added_without_a_name(x: Tensor, w: Tensor, ops: Ops) -> Tensor:
    out = torch.zeros_like(x)
    out.add_(w[0] * ops[4](x) + w[1] * ops[5](x))
    return out.exp()


def into_a_slice(x: Tensor, w: Tensor, ops: Ops) -> Tensor:
    out = torch.zeros(x.shape[0], 2 * x.shape[1], *x.shape[2:], dtype=x.dtype)
    out[:, : x.shape[1]] += w[0] * ops[4](x) + w[1] * ops[5](x)
    return out


@pytest.mark.parametrize("form", [held_by_another_name, added_without_a_name, into_a_slice])
def test_what_changes_in_place_changes_for_all_who_hold_it(form: Callable[[Tensor, Tensor, Ops], Tensor]) -> None:
    before, module = accelerated(form)
    given = [*features((C, 1)), table(6)]
    for _ in range(2):
        assert_same(run(module, "forward", given), run(before, "forward", given))

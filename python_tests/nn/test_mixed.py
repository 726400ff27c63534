"""A mixed op equals the ops of the papers, each with its norm, weighted and summed."""

from __future__ import annotations

import copy

import pytest
import torch
from nn.eager import EagerMixedOp
from torch import Tensor

from ddarts_ext import spaces
from ddarts_ext.nn import MixedOp, Pass, primitive
from ddarts_ext.nn.norm import GroupedNorm, RunningStatistics, updating

ALL_OPS = ("none", *spaces.get("dartopti").ops, "sep_conv_7x7")
CHANNELS = 4


def pair(names: tuple[str, ...], stride: int) -> tuple[MixedOp, EagerMixedOp]:
    torch.manual_seed(0)
    ours, eager = MixedOp(names, CHANNELS, stride).double(), EagerMixedOp(names, CHANNELS, stride).double()
    with torch.no_grad():
        for mine, theirs in zip(ours.parameters(), eager.parameters(), strict=True):
            theirs.copy_(mine)
    return ours, eager


def inputs(batch: int = 3, height: int = 7, width: int = 6) -> Tensor:
    return torch.randn(batch, CHANNELS, height, width, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def weights_of(names: tuple[str, ...], groups: int | None = None) -> Tensor:
    shape = (len(names),) if groups is None else (groups, len(names))
    return torch.rand(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(2)).requires_grad_()


def layout(x: Tensor, channels_last: bool) -> Tensor:
    return x.clone(memory_format=torch.channels_last if channels_last else torch.contiguous_format)


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("names", [(name,) for name in ALL_OPS] + [ALL_OPS], ids=lambda names: "+".join(names)[:20])
def test_equals_eager(names: tuple[str, ...], stride: int, channels_last: bool) -> None:
    ours, eager = pair(names, stride)
    x, w = inputs(), weights_of(names)
    mine, theirs = layout(x, channels_last).requires_grad_(), x.clone().requires_grad_()
    v = w.detach().clone().requires_grad_()
    out, expected = ours(mine, w), eager(theirs, v)
    torch.testing.assert_close(out, expected, rtol=1e-10, atol=1e-12)
    if names == ("none",):
        return
    grad = torch.randn(expected.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    out.backward(grad)
    expected.backward(grad)
    torch.testing.assert_close(mine.grad, theirs.grad, rtol=1e-9, atol=1e-11)
    torch.testing.assert_close(w.grad, v.grad, rtol=1e-9, atol=1e-11)
    for a, b in zip(ours.parameters(), eager.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, rtol=1e-8, atol=1e-10)
    ours.eval(), eager.eval()
    torch.testing.assert_close(ours(x, w), eager(x, v), rtol=1e-10, atol=1e-12)


def test_running_statistics_are_those_of_batch_norm() -> None:
    names = tuple(name for name in ALL_OPS if name != "skip_connect")
    ours, eager = pair(names, 1)
    for step in range(3):
        x = inputs() + step
        ours(x, weights_of(names))
        eager(x, weights_of(names))
    inner = [m for m in ours.modules() if isinstance(m, GroupedNorm)]
    rows = list(zip(ours.node.running.running_mean, ours.node.running.running_var, strict=True))
    found = [(norm.running_mean, norm.running_var) for norm in inner] + rows
    expected = [(norm.running_mean, norm.running_var) for norm in eager.norms()]
    for mean, var in found:
        assert any(
            mean.shape == m.shape and torch.allclose(mean, m, 1e-10, 1e-12) and torch.allclose(var, v, 1e-7, 1e-9)
            for m, v in expected
        )


def test_none_has_a_weight_with_zero_gradient() -> None:
    op = MixedOp(("none", "skip_connect"), CHANNELS).double()
    w = weights_of(("none", "skip_connect"))
    op(inputs(), w).sum().backward()
    assert w.grad is not None
    assert w.grad[0] == 0
    assert w.grad[1] != 0


@pytest.mark.parametrize("stride", [1, 2])
def test_groups_are_separate_passes(stride: int) -> None:
    op = MixedOp(ALL_OPS, CHANNELS, stride).double()
    x, w = inputs(6), weights_of(ALL_OPS, 2)
    together = op(x, w, Pass(groups=2, statistics="batch"))
    apart = [op(x[3 * g : 3 * g + 3], w[g], Pass(statistics="batch")) for g in range(2)]
    torch.testing.assert_close(together, torch.cat(apart), rtol=1e-10, atol=1e-12)


def test_statistics_modes() -> None:
    op = MixedOp(ALL_OPS, CHANNELS).double()
    x, w = inputs(6), weights_of(ALL_OPS)
    fresh = copy.deepcopy(op.state_dict())
    batch = op(x, w, Pass(statistics="batch"))
    assert all(torch.equal(value, fresh[key]) for key, value in op.state_dict().items())
    torch.testing.assert_close(op(x, w, Pass(statistics="update")), batch)
    alone = copy.deepcopy(op)
    alone.load_state_dict(fresh)
    alone(x[:3], w)
    op.load_state_dict(fresh)
    op(x, torch.stack((w, w)), Pass(groups=2))
    for mine, theirs in zip(op.buffers(), alone.buffers(), strict=True):
        torch.testing.assert_close(mine, theirs)
    running = op(x, w, Pass(statistics="running"))
    torch.testing.assert_close(running, op.eval()(x, w))
    assert not torch.allclose(running, batch)


def test_running_statistics_are_updated_together_at_the_end() -> None:
    """Of norms of all shapes and sizes of image at once, as each would update its own; not at all after an error."""
    op, small = MixedOp(ALL_OPS, CHANNELS).double(), MixedOp(("skip_connect", "max_pool_3x3"), CHANNELS, 2).double()
    apart = [copy.deepcopy(op), copy.deepcopy(small)]
    x, w = inputs(6), weights_of(ALL_OPS)
    fresh = [buffer.clone() for buffer in op.buffers()]

    def run(first: MixedOp, second: MixedOp, p: Pass) -> None:
        second(first(x, w, p), w[:2], p)

    with updating(Pass()) as p:
        run(op, small, p)
        assert all(torch.equal(old, new) for old, new in zip(fresh, op.buffers(), strict=True))
    run(apart[0], apart[1], Pass())
    for mine, theirs in zip((op, small), apart, strict=True):
        for together, alone in zip(mine.buffers(), theirs.buffers(), strict=True):
            torch.testing.assert_close(together, alone, rtol=1e-12, atol=0)
    assert not all(torch.equal(old, new) for old, new in zip(fresh, op.buffers(), strict=True))
    before = [buffer.clone() for buffer in op.buffers()]

    def fail() -> None:
        with updating(Pass()) as p:
            run(op, small, p)
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert all(torch.equal(old, new) for old, new in zip(before, op.buffers(), strict=True))


def test_running_statistics_take_no_part_where_they_are_not_tracked() -> None:
    statistics = RunningStatistics(4, track=False)
    assert statistics.given(Pass(statistics="running")) == (None, None)
    assert not list(statistics.buffers())


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: primitive("conv_9x9", 4), "name must be one of"),
        (lambda: primitive("skip_connect", 4, 3), "stride must be 1 or 2, got 3"),
        (lambda: primitive("skip_connect", 5, 2), "channels must be even, got 5"),
        (lambda: MixedOp(ALL_OPS, 4)(inputs().float(), torch.ones(3)), r"weights must be \[O\]=\[14\], got \[3\]"),
        (lambda: Pass(groups=0), "groups must be >= 1, got 0"),
        (lambda: Pass(statistics="eval"), "statistics must be"),  # type: ignore[arg-type]
    ],
)
def test_errors(call: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()  # type: ignore[operator]

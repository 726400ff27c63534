"""The zero-one and the ablation loss equal their definitions, and their gradients autograd through them."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from ddarts_ext.search.contributions.objectives import DELTA, GRADIENTS, SIGN_RULES, ablation, zero_one

ALPHAS = [[-2.0, 0.0, 1.0], [0.5, 3.0, -1.0]]
ZERO_ONE = {
    "l2": (-0.0786003627, [[0.0133270835, 0, -0.0151429580], [-0.0095927991, -0.0068152624, 0.0151429580]]),
    "l1": (-0.2363245416, [[0.0174989309, 0, -0.0327686555], [-0.0391672854, -0.0075294433, 0.0327686555]]),
}


@pytest.mark.parametrize("form", ["l2", "l1"])
def test_zero_one_check_values(form: str) -> None:
    table = torch.tensor([ALPHAS], dtype=torch.float64, requires_grad=True)
    (value,) = zero_one(torch.sigmoid(table), form)
    (gradient,) = torch.autograd.grad(value, table)
    expected, slope = ZERO_ONE[form]
    # The check value of l1 agrees with the closed form to seven digits only; its gradient to ten.
    assert value.item() == pytest.approx(expected, abs=1e-10 if form == "l2" else 1e-7)
    total = sum(abs(torch.sigmoid(torch.tensor(a, dtype=torch.float64)).item() - 0.5) for row in ALPHAS for a in row)
    assert form == "l2" or value.item() == pytest.approx(-total / 6, abs=1e-15)
    torch.testing.assert_close(gradient[0], torch.tensor(slope, dtype=torch.float64), atol=1e-10, rtol=0)


@pytest.mark.parametrize("form", ["l2", "l1"])
def test_zero_one_has_no_gradient_where_all_ops_weigh_one_half(form: str) -> None:
    table = torch.zeros(2, 3, 4, requires_grad=True)
    (gradient,) = torch.autograd.grad(zero_one(torch.sigmoid(table), form).sum(), table)
    assert gradient.abs().max() == 0


def toy(alphas: Tensor, active: Tensor) -> Tensor:
    """1/2 (sum g c sigmoid(alpha) - t)^2, the toy problem of three cells."""
    scales = torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)
    return 0.5 * ((active * scales * torch.sigmoid(alphas)).sum() - 5.0) ** 2


def toy_terms() -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    alphas = torch.tensor([0.2, -0.4, 0.7], dtype=torch.float64, requires_grad=True)
    loss = toy(alphas, torch.ones(3))
    without = torch.stack([toy(alphas, 1.0 - torch.eye(3)[i]) for i in range(3)])
    (full,) = torch.autograd.grad(loss, alphas, retain_graph=True)
    (summed,) = torch.autograd.grad(without.sum(), alphas, retain_graph=True)
    return alphas, loss, without, full, summed


def close(value: Tensor, expected: list[float]) -> None:
    torch.testing.assert_close(value.detach(), torch.tensor(expected, dtype=value.dtype), atol=1e-9, rtol=0)


def test_toy_check_values() -> None:
    _, loss, without, full, summed = toy_terms()
    result = ablation(loss, without, full, summed, sign="paper_plus")
    assert loss.item() == pytest.approx(1.3496883648, abs=1e-9)
    close(without, [2.4042122418, 2.9904862493, 6.6522788512])
    close(full, [-0.4066642852, -0.7894862421, -1.0928081237])
    close(summed, [-1.5081541222, -2.8064152913, -3.0851887453])
    close(result.contributions, [-1.0545238771, -1.6407978846, -5.3025904864])
    close(result.value, [-0.6044503199, -0.3845401774, 0.9889904973])
    assert result.gradient is not None
    close(result.gradient, [0.1667903962, 0.3298365016, 0.3618545013])
    held = ablation(loss, without, full, sign="paper_plus", gradient="stopgrad_mean")
    assert held.gradient is not None
    close(held.gradient, [0.1525389149, 0.2961346227, 0.4099100202])
    assert ablation(loss, without, full, gradient="none").gradient is None


def test_scalar_check_values() -> None:
    result = ablation(
        torch.tensor(2.0, dtype=torch.float64),
        torch.tensor([2.5, 2.2, 3.0], dtype=torch.float64),
        torch.zeros(3, dtype=torch.float64),
        gradient="none",
        sign="paper_plus",
    )
    close(result.value, [-0.11764705882, -0.64705882353, 0.76470588235])


@pytest.mark.parametrize("sign", ["mean", "paper_plus", "code"])
@pytest.mark.parametrize("shift", [0.0, 8.0])
def test_gradient_is_that_of_the_value(sign: str, shift: float) -> None:
    """For either sign of the mean contribution: a constant added to every loss without a cell moves it."""
    alphas, loss, without, full, summed = toy_terms()
    without = without - shift
    contributions = loss - without
    mean = contributions.mean()
    divisor = {"mean": mean.abs(), "paper_plus": mean, "code": -mean}[sign]
    values = (contributions - mean) / divisor
    expected = torch.stack([torch.autograd.grad(v, alphas, retain_graph=True)[0][i] for i, v in enumerate(values)])
    result = ablation(loss, without, full, summed, sign=sign)
    torch.testing.assert_close(result.value, values)
    assert result.gradient is not None
    torch.testing.assert_close(result.gradient.detach(), expected)


@pytest.mark.parametrize("sign", ["bounded", "mean"])
def test_useful_cells_are_rewarded_for_either_sign_of_the_mean(sign: str) -> None:
    loss, zeros = torch.tensor(2.0), torch.zeros(3)
    for without in (torch.tensor([2.1, 2.5, 3.0]), torch.tensor([1.0, 1.2, 1.9])):
        value = ablation(loss, without, zeros, gradient="none", sign=sign).value
        assert value.argmin() == without.argmax()


@settings(max_examples=300, deadline=None)
@given(
    loss=st.floats(1e-3, 1e3),
    shares=st.lists(st.floats(-10, 10), min_size=1, max_size=8),
)
def test_the_bounded_rule_is_bounded(loss: float, shares: list[float]) -> None:
    """|A_i| <= N + 1 for contributions of any signs, and sum A_i = 0; without a gradient that could grow: R >= d L."""
    whole = torch.tensor(loss, dtype=torch.float64)
    without = whole * (1 - torch.tensor(shares, dtype=torch.float64))
    ones = torch.ones(len(shares), dtype=torch.float64)
    result = ablation(whole, without, ones, ones)
    assert result.value.abs().max() <= len(shares) + 1
    assert result.value.sum().abs() < 1e-9
    assert result.gradient is not None
    # Own rows: (dM_i - d mean) / R = S_i / (N R), at most |S_i| / (N delta L).
    assert result.gradient.abs().max() <= 1 / (len(shares) * DELTA * loss) * (1 + 1e-9)


@settings(max_examples=100, deadline=None)
@given(shares=st.lists(st.floats(0.01, 10), min_size=1, max_size=8))
def test_the_bounded_rule_is_the_published_value_where_all_cells_are_useful(shares: list[float]) -> None:
    loss = torch.tensor(1.5, dtype=torch.float64)
    without, zeros = loss * (1 + torch.tensor(shares, dtype=torch.float64)), torch.zeros(len(shares))
    published = ablation(loss, without, zeros, gradient="none", sign="code").value
    torch.testing.assert_close(ablation(loss, without, zeros, gradient="none").value, published)


@pytest.mark.parametrize("shift", [0.0, 2.0, 8.0])
def test_the_bounded_gradient_is_that_of_the_value_with_its_divisor_held(shift: float) -> None:
    """For contributions of one sign and of both; the shift moves the losses without a cell."""
    alphas, loss, without, full, summed = toy_terms()
    without = without - shift
    contributions = loss - without
    divisor = torch.maximum(contributions.abs().mean(), DELTA * loss).detach()
    values = (contributions - contributions.mean()) / divisor
    expected = torch.stack([torch.autograd.grad(v, alphas, retain_graph=True)[0][i] for i, v in enumerate(values)])
    result = ablation(loss, without, full, summed)
    torch.testing.assert_close(result.value, values)
    assert result.gradient is not None
    torch.testing.assert_close(result.gradient.detach(), expected)
    torch.testing.assert_close(result.gradient.detach(), summed / (3 * divisor))
    held = ablation(loss, without, full, gradient="stopgrad_mean").gradient
    assert held is not None
    torch.testing.assert_close(held.detach(), full / divisor)


def test_nothing_is_branched_on_a_value() -> None:
    """On meta tensors, which have none, every rule computes."""
    full = torch.zeros(3, 2, 2, device="meta")
    loss, without = torch.zeros((), device="meta"), torch.zeros(3, device="meta")
    for sign in SIGN_RULES:
        for gradient in GRADIENTS:
            result = ablation(loss, without, full, full, full, sign=sign, gradient=gradient)
            assert result.value.shape == (3,)


def test_a_mean_near_zero_divides_by_delta() -> None:
    loss, without = torch.tensor(2.0, dtype=torch.float64), torch.tensor([1.5, 2.5], dtype=torch.float64)
    full, summed = torch.tensor([0.3, 0.1], dtype=torch.float64), torch.tensor([0.2, 0.6], dtype=torch.float64)
    result = ablation(loss, without, full, summed, sign="mean", delta=1e-3)
    close(result.value, [500.0, -500.0])
    assert result.gradient is not None
    close(result.gradient, [0.2 / 2e-3, 0.6 / 2e-3])
    for sign in ("paper_plus", "code"):
        value = ablation(loss, without, full, summed, sign=sign).value
        assert value.abs().max() == 0


def test_one_group_has_no_ablation_loss() -> None:
    value = ablation(torch.tensor(1.0), torch.tensor([3.0]), torch.zeros(1), torch.zeros(1)).value
    assert float(value) == 0


def test_sharing_cells_bring_their_own_gradient() -> None:
    """If one of several cells that share a row is removed, the loss without it depends on the row itself."""
    row = torch.tensor([0.3, -0.2], dtype=torch.float64, requires_grad=True)
    loss = row.sin().sum()
    without = torch.stack([(row[0] * 2).cos() + row[1], row[1] ** 2 + row[0].exp()])
    mean = (loss - without).mean()
    values = (loss - without - mean) / mean
    expected = torch.stack([torch.autograd.grad(v, row, retain_graph=True)[0][i] for i, v in enumerate(values)])
    own = torch.stack([torch.autograd.grad(v, row, retain_graph=True)[0][i] for i, v in enumerate(without)])
    (full,) = torch.autograd.grad(loss, row, retain_graph=True)
    (summed,) = torch.autograd.grad(without.sum(), row, retain_graph=True)
    result = ablation(loss, without, full, summed, own, sign="paper_plus")
    assert result.gradient is not None
    torch.testing.assert_close(result.gradient.detach(), expected)


@pytest.mark.parametrize(("argument", "value"), [("sign", "minus"), ("gradient", "some")])
def test_unknown_options_are_refused(argument: str, value: str) -> None:
    one = torch.ones(1)
    with pytest.raises(ValueError, match=f"ablation: {argument} must be one of"):
        ablation(one[0], one, one, one, **{argument: value})  # type: ignore[arg-type]

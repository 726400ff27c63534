"""Budgets as people write them."""

from __future__ import annotations

import pytest

from ddarts_ext.costs import CostBudget


@pytest.mark.parametrize(
    ("text", "kind", "amount", "shown"),
    [
        ("params=2M", "params", 2e6, "2,000,000 parameters"),
        ("params=61234", "params", 61234, "61,234 parameters"),
        ("macs=.3G", "macs", 3e8, "300,000,000 multiply-adds"),
        (" macs = 300k ", "macs", 3e5, "300,000 multiply-adds"),
        ("latency=5ms", "latency", 5, "5 ms"),
        ("latency=250us", "latency", 0.25, "0.25 ms"),
        ("latency=1.5s", "latency", 1500, "1500 ms"),
    ],
)
def test_texts(text: str, kind: str, amount: float, shown: str) -> None:
    found = CostBudget.parse(text)
    assert (found.kind, found.amount) == (kind, pytest.approx(amount))
    assert str(found) == shown


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("2M", "budget must be params=N or macs=N .* got '2M'"),
        ("flops=2M", "budget must be params=N or macs=N"),
        ("params=-2M", "budget must be params=N"),
        ("params=nan", "budget must be params=N"),
        ("params=0", "budget must be above 0"),
        ("params=2ms", "budget of params must end in one of k, K, M, G"),
        ("latency=5", "budget of latency must end in one of us, ms, s"),
        ("params=2M\nmacs=3M", "budget must be params=N"),
        (f"params=1{'0' * 400}", "budget must be above 0"),
    ],
)
def test_other_texts_are_refused(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        CostBudget.parse(text)
    with pytest.raises(TypeError, match="budget must be a text"):
        CostBudget.parse(2)  # type: ignore[arg-type]

"""The early stop by the curvature of the loss around the alphas: the eigenvalue, the rule, and what a search does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from runs.shown import Shown
from runs.small import noise, outcome, search, timeless

from ddarts_ext.nn.forward_pass import Pass
from ddarts_ext.search.parts.curvature import CurvaturePart, dominant_eigenvalue, growth
from ddarts_ext.search.searcher import Searcher


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_the_eigenvalue_of_a_quadratic_loss() -> None:
    """Also where the largest comes with both signs."""
    basis = torch.linalg.qr(torch.randn(6, 6, generator=seeded(), dtype=torch.float64))[0]
    for spectrum in ([3, 1, 0.5, 0, -1, -2], [0.1, 0.2, 0.3, -5, 2, 1], [4, -4, 1, 0, 0, 2], [0] * 6):
        hessian = basis @ torch.diag(torch.tensor(spectrum, dtype=torch.float64)) @ basis.T
        leaf = torch.randn(6, generator=seeded(1), dtype=torch.float64).requires_grad_(True)
        (gradient,) = torch.autograd.grad(leaf @ hessian @ leaf / 2, leaf, create_graph=True)
        start = torch.randn(6, generator=seeded(2), dtype=torch.float64)
        found, vector = dominant_eigenvalue(gradient, leaf, start, 60)
        assert float(found) == pytest.approx(max(map(abs, spectrum)), rel=1e-6, abs=1e-9)
        less, between = dominant_eigenvalue(gradient, leaf, start, 3)
        assert float(less) <= float(found) + 1e-9
        if any(spectrum):
            # Six iterations are twice three, from where those ended.
            torch.testing.assert_close(
                dominant_eigenvalue(gradient, leaf, between, 3), dominant_eigenvalue(gradient, leaf, start, 6)
            )
            assert vector.shape == (6,)


def test_the_eigenvalue_of_a_supernet() -> None:
    """Against the whole Hessian, row by row."""
    states: list[Any] = []
    run = search(method="darts-es", epochs=2, curvature_steps=40)
    begin = run._initial
    run._initial = lambda: states.append(begin()) or states[0]
    result = run.search()
    state, part = states[0], run._parts[0]
    assert isinstance(part, CurvaturePart)
    found = part._eigenvalue(state, 1)
    assert result.history[-1]["curvature"] == {"eigenvalue": pytest.approx(float(found), rel=1e-3)}
    rows = run.strategy.divided[1]
    generator = seeded(run.config.seed + 3 + 1000)
    chosen = rows[torch.randperm(len(rows), generator=generator)[:4]]
    (batch,) = run.dataset.train.batches(chosen[None])
    leaf = state.architecture.leaf()
    logits = state.net(run.dataset.normalise(batch[0]), state.architecture.to_weights(leaf), Pass(statistics="batch"))
    (gradient,) = torch.autograd.grad(F.cross_entropy(logits, batch[1]), leaf, create_graph=True)
    hessian = torch.stack(
        [torch.autograd.grad(entry, leaf, retain_graph=True)[0].flatten() for entry in gradient.flatten()]
    )
    expected = torch.linalg.eigvalsh((hessian + hessian.T).double() / 2).abs().max()
    assert float(found) == pytest.approx(float(expected), rel=1e-2)


def test_the_rule() -> None:
    """Mean of 2 epochs, 3 epochs apart: (1 + 1) / (2 + 4)."""
    values = [1.0, 1.0, 5.0, 2.0, 4.0]
    assert growth(values, 2, 3) == pytest.approx(1 / 3)
    assert growth(values[:4], 2, 3) is None
    assert growth([1.0, 1.0, 1.0, 0.0, 0.0], 2, 3) is None
    assert growth([9.0, *values], 2, 3) == pytest.approx(1 / 3)


def settings(**more: Any) -> dict[str, Any]:
    return {
        "method": "darts-es",
        "epochs": 8,
        "curvature_window": 1,
        "curvature_delay": 2,
        "curvature_steps": 2,
        **more,
    }


def test_a_search_that_stops_returns_to_the_alphas_of_then(monkeypatch: pytest.MonkeyPatch) -> None:
    values = iter([1.0, 1.1, 1.2, 1.3, 9.0])
    monkeypatch.setattr(CurvaturePart, "_eigenvalue", lambda self, state, epoch: torch.tensor(next(values)))
    result = search(**settings()).search()
    records = result.history
    assert len(records) == 5
    assert [record["curvature"].get("growth") for record in records[:2]] == [None, None]
    assert records[-1]["curvature"]["growth"] == pytest.approx(1.2 / 9)
    assert records[-1]["curvature"]["returned_to"] == 2
    assert result.alphas.tolist() == records[2]["alphas"] != records[4]["alphas"]


def test_a_search_that_was_ended_goes_on_as_it_was(tmp_path: Path) -> None:
    expected = search(**settings(curvature_ratio=0.0)).search()
    assert len(expected.history) == 8
    stopped = search(**settings(curvature_ratio=100.0)).search()
    assert len(stopped.history) == 3
    for steps in (2, 8):
        for ratio, wanted in ((0.0, expected), (100.0, stopped)):
            out = tmp_path / f"{steps}-{ratio}"
            with pytest.raises(KeyboardInterrupt):
                search(out=out, progress=Shown(steps), **settings(curvature_ratio=ratio)).search()
            found = search(out=out, resume=True, **settings(curvature_ratio=ratio)).search()
            assert timeless(found.history) == timeless(wanted.history)
            assert all(torch.equal(one, other) for one, other in zip(outcome(found), outcome(wanted), strict=True))
            assert found.genotype == wanted.genotype


def test_any_method_can_stop_so_but_for_those_that_draw() -> None:
    result = Searcher(
        noise(),
        "da2s",
        curvature_stop=True,
        cells=3,
        channels=2,
        steps=2,
        batch=4,
        epochs=2,
        alpha_start=1,
        device="cpu",
    ).search()
    assert ["curvature" in record for record in result.history] == [False, True]
    with pytest.raises(ValueError, match="method gdas: curvature_stop must be false with sampler gumbel_hard"):
        search(method="gdas", curvature_stop=True)

"""Methods that have a part more than DARTS: their published settings and schedules, what their terms are, that a search
goes on as it was, and which parts do not go together."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from runs.shown import Shown
from runs.small import noise, outcome, search, timeless

from ddarts_ext.nn.mixed import MixedOp
from ddarts_ext.runs.device import autocast
from ddarts_ext.runs.sums import Sums
from ddarts_ext.search import methods
from ddarts_ext.search.architecture import ArchitectureParameters
from ddarts_ext.search.methods import Mixing
from ddarts_ext.search.searcher import Searcher
from ddarts_ext.search.start import initial_state
from ddarts_ext.search.step import Stepper
from ddarts_ext.search.terms import beta_decay, terms

FAMILY = (
    "single-level", "beta-darts", "darts-minus", "darts-es", "sdarts-rs", "sdarts-adv", "gdas", "reinmax", "snas",
    "drnas", "pcdarts", "darts-pt", "oles",
    "pdarts",
)  # fmt: skip
NEEDS: dict[str, dict[str, Any]] = {
    "pcdarts": {"partial_channels": 2, "channels": 4},
    "darts-pt": {"steps": 2, "selection_every": 1},
    "oles": {"op_stop_window": 2},
    "pdarts": {"epochs": 3},
}
"""What the smallest searches of a method are with."""


def schedule(name: str, epoch: int, space: str | None = None) -> dict[str, float]:
    method = methods.variant(name, space)
    start = method.architect.alpha_start
    return {
        **method.objectives.strengths(epoch, method.epochs, start), **method.mixing.scheduled(epoch, method.epochs)
    }  # fmt: skip


def test_published_schedules() -> None:
    """Epochs are counted from 1 here, from 0 in the published codes."""
    assert [schedule("gdas", e)["temperature"] for e in (1, 250)] == pytest.approx([10, 0.1])
    assert schedule("gdas", 126)["temperature"] == pytest.approx(10 - 9.9 * 125 / 249)
    assert [schedule("beta-darts", e)["beta_decay"] for e in (1, 26, 50)] == pytest.approx([0, 25, 49])
    assert [schedule("beta-darts", e, "nasbench201")["beta_decay"] for e in (1, 51)] == pytest.approx([0, 25])
    assert [schedule("darts-minus", e)["auxiliary_skip"] for e in (1, 26, 50)] == pytest.approx([1, 0.5, 0.02])
    for name in ("sdarts-rs", "sdarts-adv"):
        assert [schedule(name, e)["radius"] for e in (1, 26)] == pytest.approx([0.03, 0.03 + 0.27 / 2])
    assert [schedule("reinmax", e) for e in (1, 250)] == [{"temperature": 1.0}] * 2
    assert schedule("drnas", 1) == schedule("single-level", 1) == schedule("darts", 1) == {}
    assert Mixing(sampler="concrete", temperature=2.0).scheduled(5, 5) == {"temperature": 2.0}


def test_published_settings() -> None:
    found = {name: methods.get(name) for name in FAMILY}
    assert (found["gdas"].batch, found["gdas"].weights.weight_decay, found["gdas"].weights.nesterov) == (
        256,
        5e-4,
        True,
    )
    drnas = found["drnas"]
    assert (drnas.architect.alpha_lr, drnas.architect.alpha_weight_decay, drnas.architect.alpha_start) == (
        6e-4,
        1e-3,
        10,
    )
    assert (drnas.weights.weight_lr, drnas.weights.weight_lr_min) == (0.1, 0)
    in_201 = methods.variant("drnas", "nasbench201")
    assert (in_201.epochs, in_201.cells, in_201.architect.alpha_lr, in_201.weights.weight_lr) == (100, 15, 3e-4, 0.025)
    assert methods.variant("gdas", "nasbench201").batch == 64
    pc = found["pcdarts"]
    assert (pc.mixing.partial_channels, pc.mixing.edge_normalisation, pc.batch, pc.epochs) == (4, True, 256, 50)
    assert (pc.architect.alpha_lr, pc.architect.alpha_betas, pc.architect.alpha_start) == (6e-4, (0.5, 0.999), 15)
    assert (pc.weights.weight_lr, pc.weights.weight_lr_min, pc.weights.weight_decay) == (0.1, 0, 3e-4)
    assert found["snas"].architect.alpha_images == found["single-level"].architect.alpha_images == "training"
    for name in ("beta-darts", "darts-minus", "sdarts-rs", "sdarts-adv"):
        assert found[name].architect == methods.get("darts").architect
        assert found[name].weights == methods.get("darts").weights


def test_beta_decay_has_the_gradient_of_its_closed_form() -> None:
    """softmax(a) / E."""
    table = torch.randn(2, 5, 7, generator=torch.Generator().manual_seed(0), dtype=torch.float64).requires_grad_(True)
    torch.testing.assert_close(beta_decay(table), table.exp().sum(-1).log().mean(-1))
    (gradient,) = torch.autograd.grad(beta_decay(table).sum(), table)
    torch.testing.assert_close(gradient, table.softmax(-1) / 5)


def stepper(method: str, **settings: Any) -> tuple[Stepper, tuple[torch.Tensor, torch.Tensor]]:
    run = search(method=method, **{**NEEDS.get(method, {}), **settings})
    state = initial_state(run.config, run.dataset, torch.device("cpu"))
    batch = (torch.randn(4, 1, 4, 4, generator=torch.Generator().manual_seed(2)), torch.tensor([0, 1, 0, 1]))
    return Stepper(state, run.config.method, autocast(torch.device("cpu"), "float32")), batch


def moved_by(one: Stepper, batch: Any) -> torch.Tensor:
    """The gradient of an architecture step."""
    seen: list[torch.Tensor] = []
    table = one.state.architecture.table
    one.state.alpha_optimizer.register_step_pre_hook(lambda *_: seen.append(table.grad.clone()))  # type: ignore[arg-type,union-attr,func-returns-value]
    one.architecture(0, batch, batch, Sums())
    return seen[0]


def test_terms_are_added_at_their_strength() -> None:
    plain = moved_by(*stepper("drnas"))
    one, batch = stepper("drnas", anchor_weight=0.01, beta_decay_weight=5.0)
    one.state.strengths["beta_decay"].fill_(2.5)
    one.state.strengths["anchor"].fill_(0.01)
    architecture = one.state.architecture
    leaf = architecture.leaf()
    found = terms(architecture, leaf, one.method.objectives)
    total = 2.5 * found["beta_decay"].sum() + 0.01 * found["anchor"].sum()
    (expected,) = torch.autograd.grad(total, leaf)
    torch.testing.assert_close(moved_by(one, batch), plain + expected, rtol=1e-5, atol=1e-7)


def test_the_auxiliary_skip_adds_the_input_to_the_mixed_op() -> None:
    space_ops = ("none", "skip_connect", "max_pool_3x3", "sep_conv_3x3")
    op = MixedOp(space_ops, 4)
    x = torch.randn(3, 4, 6, 6, generator=torch.Generator().manual_seed(0))
    found = ArchitectureParameters(
        1, 4, (0,), "softmax", initial_scale=0.5, generator=torch.Generator().manual_seed(1), skip=1
    )
    plain = found.weights()[0, 0].detach()
    torch.testing.assert_close(plain, found.table.detach()[0, 0].softmax(-1))
    found.auxiliary.fill_(0.7)
    with torch.no_grad():
        torch.testing.assert_close(op(x, found.weights()[0, 0]), op(x, plain) + 0.7 * x)
    # What is read as the result, and the entropies of ops, know nothing of it.
    torch.testing.assert_close(found.op_weights()[0, 0], plain)


def test_perturbed_weights_train_and_alphas_do_not_see_it() -> None:
    plain = moved_by(*stepper("darts"))
    for name in ("sdarts-rs", "sdarts-adv"):
        one, batch = stepper(name)
        one.state.strengths["radius"].fill_(0.3)
        assert torch.equal(moved_by(one, batch), plain)
        other, _ = stepper("darts")
        other.architecture(0, batch, batch, Sums())
        sums, others = Sums(), Sums()
        one.weights(batch, sums)
        other.weights(batch, others)
        assert sums.means()["train_loss"] != others.means()["train_loss"]
        if name == "sdarts-adv":
            assert sums.means()["train_loss"] >= others.means()["train_loss"]  # type: ignore[operator]
        # Nothing of the search for the worst weights is left behind.
        assert all(p.requires_grad for p in one.state.net.parameters())


def test_a_radius_of_zero_is_darts() -> None:
    plain, batch = stepper("darts")
    plain.weights(batch, Sums())
    for name in ("sdarts-rs", "sdarts-adv"):
        one, _ = stepper(name)
        one.state.strengths["radius"].fill_(0.0)
        one.weights(batch, Sums())
        for ours, theirs in zip(one.state.net.parameters(), plain.state.net.parameters(), strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)


def test_a_single_level_moves_alphas_by_the_batches_of_the_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[bool] = []
    real = Stepper.architecture

    def watched(self: Stepper, step: int, train: Any, valid: Any, sums: Any, **rest: Any) -> None:
        seen.append(train[0] is valid[0])
        real(self, step, train, valid, sums, **rest)

    monkeypatch.setattr(Stepper, "architecture", watched)
    search(method="single-level", epochs=1).search()
    assert seen == [True] * 3
    seen.clear()
    search(method="darts", epochs=1).search()
    assert seen == [False] * 3


@pytest.mark.parametrize("name", FAMILY)
def test_a_search_that_was_ended_goes_on_as_it_was(name: str, tmp_path: Path) -> None:
    settings: dict[str, Any] = {"method": name, "perturbation_steps": 2, "curvature_steps": 1, **NEEDS.get(name, {})}
    expected = search(**settings).search()
    assert expected.network(channels=2)(torch.zeros(2, 1, 4, 4)).shape == (2, 2)
    assert expected.alphas.isfinite().all()
    for steps in (2, 7):
        out = tmp_path / str(steps)
        with pytest.raises(KeyboardInterrupt):
            search(out=out, progress=Shown(steps), **settings).search()
        found = search(out=out, resume=True, **settings).search()
        assert timeless(found.history) == timeless(expected.history)
        assert all(torch.equal(one, other) for one, other in zip(outcome(found), outcome(expected), strict=True))
        assert found.genotype == expected.genotype


def test_the_history_tells_what_follows_a_schedule() -> None:
    for name, key, expected in (
        ("gdas", "temperature", [10, 5.05, 0.1]),
        ("darts-minus", "auxiliary_skip", [1, 2 / 3, 1 / 3]),
        ("sdarts-rs", "radius", [0.03, 0.12, 0.21]),
        ("beta-darts", "beta_decay_strength", [0, 50 / 3, 100 / 3]),
    ):
        records = search(method=name).search().history
        assert [record[key] for record in records] == pytest.approx(expected)
    assert all(len(record["beta_decay"]) == 2 for record in records)


def test_draws_follow_the_seed_and_judging_changes_none() -> None:
    one, other = search(method="gdas").search(), search(method="gdas", judge_every=3).search()
    assert torch.equal(one.alphas, other.alphas)
    assert not torch.equal(one.alphas, search(method="gdas", seed=1).search().alphas)


@pytest.mark.parametrize("name", ["gdas", "drnas", "beta-darts"])
def test_nasbench201(name: str) -> None:
    result = Searcher(
        noise(), name, space="nasbench201", cells=3, channels=2, batch=4, epochs=2, alpha_lr=0.1, device="cpu"
    ).search()
    assert result.genotype.to_nb201().count("~") == 6


@pytest.mark.parametrize("name", FAMILY)
def test_the_smallest_search_of_the_digits(name: str) -> None:
    """Data that comes along, with the settings that suit it but for the size of the network and its epochs."""
    # At a temperature that falls to 0.1 within two epochs, draws change more than the weights learn.
    how: dict[str, Any] = {"temperature_end": 1.0} if name == "snas" else {}
    how |= {"perturbation_steps": 2, "curvature_steps": 1, "channels": 2, **NEEDS.get(name, {})}
    if name == "darts-pt":
        how |= {"steps": 1, "selection_every": 0}  # it judges the supernet once for every op of every edge
    if name == "pdarts":
        how["epochs"] = 6  # two of each stage, which begins anew
    result = Searcher("digits", name, **{"epochs": 2, "cells": 3, "batch": 64, **how}).search()
    # The training loss of an adversary is that of a box which grows.
    part = "valid" if name == "sdarts-adv" else "train"
    first, last = (
        record[part]["loss"] for record in (result.history[-2 if name == "pdarts" else 0], result.history[-1])
    )
    assert last < first
    assert result.note == ""
    assert {"before", "after"} < set(result.history[-1]["discretisation"])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"method": "ddarts", "beta_decay_weight": 1.0}, "method ddarts: beta_decay_weight must be 0 with sigmoid"),
        ({"method": "gdas", "anchor_weight": 1.0}, "method gdas: anchor_weight must be 0 with another sampler"),
        (
            {"method": "ddarts", "sampler": "concrete"},
            "method ddarts: relaxation must be softmax with sampler",
        ),
        ({"method": "gdas", "order": 2}, "method gdas: order must be 1 with sampler gumbel_hard"),
        ({"method": "gdas", "ablation_weight": 0.5}, "method gdas: ablation_weight must be 0 with sampler"),
        ({"method": "snas", "reference_accumulate": True}, "method snas: reference_accumulate must be false"),
        ({"method": "sdarts-rs", "reference_accumulate": True}, "method sdarts-rs: reference_accumulate must be false"),
        ({"method": "snas", "temperature_end": 0}, "method snas: temperature and temperature_end must be above 0"),
        ({"method": "reinmax", "temperature": 0.5}, "method reinmax: temperature and temperature_end must be at least"),
        ({"method": "gdas", "perturbation": "random"}, "method gdas: perturbation must be none with sampler"),
        ({"method": "ddarts", "perturbation": "random"}, "method ddarts: perturbation must be none with sigmoid"),
        ({"method": "ddarts", "partial_channels": 2}, "method ddarts: partial_channels must be 1 with sigmoid weights"),
        (
            {"method": "darts", "partial_channels": 2, "ablation_weight": 0.5, "ablation_inactive": "half"},
            "method darts: ablation_inactive must be bypass or zero with partial_channels, got 'half'",
        ),
        ({"method": "da2s", "edge_normalisation": True}, "edge_normalisation must be false with clamped_softmax"),
        ({"method": "pcdarts", "edge_entropy_weight": 0.4, "channels": 8}, "edge_entropy_weight must be 0, as"),
        (
            {"method": "pcdarts", "channels": 4},
            "search: channels must be a multiple of 8 with partial_channels=4, whose ops see an even number of them",
        ),
        (
            {"method": "pcdarts", "space": "nasbench201", "channels": 2, "steps": None},
            "search: channels must be a multiple of 4 with partial_channels=4, got 2",
        ),
        ({"method": "darts", "partial_channels": 0}, "search: partial_channels must be >= 1"),
        ({"method": "darts", "sampler": "uniform"}, "search: sampler must be one of none, gumbel_hard"),
        ({"method": "darts", "perturbation_steps": 0}, "search: perturbation_steps must be >= 1"),
    ],
)
def test_what_does_not_go_together_is_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        search(**settings)


def test_methods_that_shrink_take_no_sampler() -> None:
    with pytest.raises(ValueError, match="method isdarts: sampler, perturbation and auxiliary_skip must be left out"):
        methods.get("isdarts").with_settings(sampler="dirichlet")
    with pytest.raises(ValueError, match="method isdarts: partial_channels and edge_normalisation must be left out"):
        methods.get("isdarts").with_settings(partial_channels=4)


def test_normalised_edges_sum_to_one_and_are_part_of_what_is_read() -> None:
    one, _ = stepper("pcdarts", steps=3)
    architecture, space = one.state.architecture, one.state.space
    assert architecture.edge_table is not None
    assert architecture.edge_weights is not None
    torch.nn.init.normal_(architecture.edge_table)
    edges = architecture.edge_weights.weights(architecture.edge_table.detach())
    for node in space.nodes:
        into = list(space.incoming(node))
        torch.testing.assert_close(edges[:, into], architecture.edge_table.detach()[:, into].softmax(-1))
    read = architecture.table.detach().softmax(-1) * edges.unsqueeze(-1)
    torch.testing.assert_close(architecture.read_weights(), read)
    torch.testing.assert_close(architecture.weights().detach(), architecture.by_cell(read))


def test_alphas_and_edges_rest_together() -> None:
    records = search(method="pcdarts", epochs=3, alpha_start=2, partial_channels=2, channels=4).search().history
    for name in ("alphas", "betas"):
        assert records[0][name] == records[1][name] != records[2][name]


@pytest.mark.parametrize(("method", "space"), [("gdas", "darts"), ("drnas", "nasbench201"), ("sdarts-adv", "darts")])
def test_partial_channels_go_with_other_methods(method: str, space: str) -> None:
    how: dict[str, Any] = {"partial_channels": 2, "channels": 4, "perturbation_steps": 1}
    if space == "nasbench201":
        how["steps"] = None
    plain = search(method=method, space=space, **how).search()
    normalised = search(method=method, space=space, edge_normalisation=True, **how).search()
    assert not torch.equal(plain.alphas, normalised.alphas)
    assert "betas" in normalised.history[-1]
    assert "betas" not in plain.history[-1]

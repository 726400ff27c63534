"""``reference_accumulate`` repeats what the published loop leaves in the gradients (SPEC of D-DARTS's code)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from search.test_searcher import SMALL, noise

from ddarts_ext.nn.forward_pass import Pass
from ddarts_ext.runs.device import autocast
from ddarts_ext.runs.sums import Sums
from ddarts_ext.search.contributions.objectives import zero_one
from ddarts_ext.search.searcher import Searcher
from ddarts_ext.search.start import initial_state
from ddarts_ext.search.state import SearchState
from ddarts_ext.search.step import Stepper

CPU = torch.device("cpu")
Batch = tuple[torch.Tensor, torch.Tensor]


def begun() -> tuple[Searcher, SearchState]:
    settings = {**SMALL, "ablation_weight": 0.0, "zero_one_weight": 2.0, "alpha_lr": 0.05}
    searcher = Searcher(noise(), "ddarts", **settings, reference_accumulate=True)
    state = initial_state(searcher.config, searcher.dataset, CPU)
    state.net.double()
    state.architecture.double()
    return searcher, state


def published(state: SearchState, steps: list[tuple[Batch, Batch]], weight: float) -> tuple[torch.Tensor, list[float]]:
    """The loop as published: an optimiser a cell, losses taken back one after the other through one graph, gradients
    cleared where it clears them. Returns the alphas and, per step, the norm of the weights' gradient."""
    rows = [row.clone().requires_grad_(True) for row in state.architecture.table.detach()]
    options = state.alpha_optimizer.param_groups[0]
    names = ("lr", "betas", "weight_decay")
    optimizers = [torch.optim.Adam([row], **{name: options[name] for name in names}) for row in rows]
    norms = []
    for (train, train_labels), (valid, valid_labels) in steps:
        logits = state.net(valid, torch.sigmoid(torch.stack(rows)), Pass(statistics="batch"))
        loss = F.cross_entropy(logits, valid_labels)
        regular = [zero_one(torch.sigmoid(row)[None])[0] for row in rows]
        for own, optimizer in zip(regular, optimizers, strict=True):
            torch.autograd.backward(loss + weight * own, retain_graph=True)
            optimizer.step()
            optimizer.zero_grad()
        logits = state.net(train, torch.sigmoid(torch.stack(rows)), Pass(statistics="batch"))
        torch.autograd.backward(F.cross_entropy(logits, train_labels))
        torch.nn.utils.clip_grad_norm_(state.net.parameters(), 5.0)
        norms.append(float(sum(p.grad.square().sum() for p in state.net.parameters() if p.grad is not None)) ** 0.5)
        state.weight_optimizer.step()
        state.weight_optimizer.zero_grad()
    return torch.stack(rows).detach(), norms


def test_equals_the_published_loop() -> None:
    generator = torch.Generator().manual_seed(1)
    labels = torch.tensor([0, 1, 0, 1])
    steps = [
        tuple((torch.randn(4, 1, 4, 4, generator=generator, dtype=torch.float64), labels) for _ in range(2))
        for _ in range(4)
    ]
    searcher, state = begun()
    _, other = begun()
    expected, _ = published(other, steps, 2.0)
    stepper = Stepper(state, searcher.config.method, autocast(CPU, "float32"))
    for number, (train, valid) in enumerate(steps):
        stepper.architecture(number, train, valid, Sums())
        stepper.weights(train, Sums())
    torch.testing.assert_close(state.architecture.table.detach(), expected, rtol=1e-9, atol=1e-9)
    for ours, theirs in zip(state.net.parameters(), other.net.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9)


def test_it_differs_from_the_exact_step() -> None:
    exact = Searcher(noise(), "ddarts", **SMALL, seed=2).search()
    accumulated = Searcher(noise(), "ddarts", **SMALL, seed=2, reference_accumulate=True).search()
    assert not torch.equal(exact.alphas, accumulated.alphas)

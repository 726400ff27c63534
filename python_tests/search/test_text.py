"""Searching a recurrent cell on text: the whole of it, killed and resumed, its two gradients, what it refuses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from runs.shown import Shown
from torch import Tensor

from ddarts_ext import spaces
from ddarts_ext.data.text import Corpus
from ddarts_ext.genotype import Genotype
from ddarts_ext.nn.forward_pass import Pass
from ddarts_ext.nn.recurrent import Dropout, supernet
from ddarts_ext.runs.sums import Sums
from ddarts_ext.search import Searcher, architect
from ddarts_ext.search.architect import unrolled_gradient
from ddarts_ext.search.text.step import MOVED, TRAINED
from ddarts_ext.search.text.strategy import TextStrategy

SETTINGS: dict[str, Any] = {"epochs": 3, "channels": 8, "batch": 8, "steps": 2, "bptt": 6, "device": "cpu", "seed": 1}


def corpus(length: int = 400) -> Corpus:
    """A text in which a word tells the next one: a b c a b d in turns, with a few others."""
    pattern = torch.tensor([0, 1, 2, 0, 1, 3]).repeat(length // 6 + 1)[:length]
    pattern[::17] = 4
    part = length // 4
    return Corpus("pattern", "words", ("a", "b", "c", "d", "e"), pattern, pattern[:part], pattern[part : 2 * part])


def test_the_method_on_text_is_darts_where_none_is_named() -> None:
    found, said = (Searcher(corpus(), *method, **SETTINGS).config for method in ((), ("darts",)))
    assert found == said


def test_a_search_runs_and_perplexity_falls(tmp_path: Path) -> None:
    searcher = Searcher(corpus(), "darts", out=tmp_path / "run", **SETTINGS)
    assert isinstance(searcher.strategy, TextStrategy)
    result = searcher.search()
    assert result.genotype.recurrent
    assert len(result.genotype.cells[0]) == 2
    assert Genotype.load(tmp_path / "run") == result.genotype
    first, last = result.history[0], result.history[-1]
    assert last["train"]["perplexity"] < first["train"]["perplexity"] < 6
    assert last["discretisation"]["before"] == last["valid"]["perplexity"]
    assert torch.tensor(last["alphas"]).shape == (1, 3, 5)
    assert result.network(4).cell.hidden == 4


@pytest.mark.parametrize("order", [1, 2])
def test_killed_and_resumed_it_finds_the_same(tmp_path: Path, order: int) -> None:
    settings = {**SETTINGS, "order": order, "epochs": 2}
    whole = Searcher(corpus(), "darts", out=tmp_path / "whole", **settings).search()
    with pytest.raises(KeyboardInterrupt):
        Searcher(corpus(), "darts", out=tmp_path / "run", progress=Shown(11), **settings).search()
    resumed = Searcher(corpus(), "darts", out=tmp_path / "run", resume=True, **settings).search()
    assert resumed.genotype == whole.genotype
    assert torch.equal(resumed.alphas, whole.alphas)
    assert resumed.history[-1]["train"] == whole.history[-1]["train"]


def test_hidden_states_go_on_from_segment_to_segment() -> None:
    searcher = Searcher(corpus(), "darts", **{**SETTINGS, "dropout_output": 0.0})
    state = searcher._initial()
    iterations = searcher._iterations(searcher.strategy.stepper(state, searcher.config.method))
    segments, moves, _ = searcher.strategy.batches(state)
    seen = []
    for step in iterations.epoch(segments, moves, number=0, decides=True):
        step()
        state.step += 1
        seen.append((state.held[TRAINED].clone(), state.held[MOVED].clone()))
    assert all(float(trained.abs().sum()) > 0 for trained, _ in seen)
    assert not torch.equal(seen[0][0], seen[1][0])
    assert not seen[0][0].requires_grad
    assert next(iter(iterations.epoch(segments, moves, number=0, decides=True)), None) is None


def test_the_first_order_gradient_is_that_of_the_validation_segment() -> None:
    searcher = Searcher(corpus(), "darts", **{**SETTINGS, "dropout_output": 0.0, "dropout_hidden": 0.0,
                        "dropout_inputs": 0.0, "dropout_embedding": 0.0})  # fmt: skip
    state = searcher._initial()
    stepper = searcher.strategy.stepper(state, searcher.config.method)
    words, targets = torch.randint(5, (4, 3)), torch.randint(5, (4, 3))
    state.hold(MOVED, state.net.start(3))
    found = stepper._plain((words, targets), Sums())
    leaf = state.architecture.leaf()
    out = state.net(words, state.net.start(3), state.architecture.to_weights(leaf), Pass(statistics="batch"))
    (expected,) = torch.autograd.grad(out.loss(targets)[1], leaf)
    torch.testing.assert_close(found, expected)


def losses() -> tuple[Any, Any, list[Tensor], Tensor]:
    """Losses of weights and table whose second derivatives are known: sums of products of both."""
    torch.manual_seed(0)
    mixing, weights, table = (
        torch.randn(6, 4).double(),
        [torch.randn(4).double(), torch.randn(2).double()],
        torch.randn(6),
    )

    def train(w: Sequence[Tensor], a: Tensor) -> Tensor:
        return (a @ mixing * w[0]).sum() + 2 * w[0].square().sum() + (a[:2] * w[1]).sum() + w[1].square().sum()

    def valid(w: Sequence[Tensor], a: Tensor) -> Tensor:
        return (w[0].square().sum() + 3 * w[1].sum() + a.square().sum()) * 1.0

    return train, valid, weights, table.double()


@pytest.mark.parametrize("clip", [0.25, 1e3])
@pytest.mark.parametrize("reference", [False, True])
def test_the_clipped_second_order_gradient_is_the_published_rule(clip: float, reference: bool) -> None:
    train, valid, weights, table = losses()
    rate, decay = 0.3, 5e-7
    found, loss = unrolled_gradient(
        train,
        valid,
        weights,
        table,
        learning_rate=rate,
        momentum=0.0,
        weight_decay=decay,
        clip=clip,
        reference=reference,
    )
    leaf, w = table.clone().requires_grad_(), [weight.clone().requires_grad_() for weight in weights]
    slopes = torch.autograd.grad(train(w, leaf), w, create_graph=True)
    ratio = clip / (torch.cat(slopes).norm().item() + 1e-6)
    scale = min(ratio, 1.0)
    ahead = [(x - rate * (scale * s + decay * x)).detach().requires_grad_() for x, s in zip(w, slopes, strict=True)]
    direct, *vector = torch.autograd.grad(valid(ahead, leaf), [leaf, *ahead])
    shorter = min(clip / (torch.cat(vector).norm().item() + 1e-6), 1.0)
    inner = torch.stack([(s * shorter * v).sum() for s, v in zip(slopes, vector, strict=True)]).sum()
    (implicit,) = torch.autograd.grad(inner, leaf)
    expected = direct - rate * (ratio if reference else scale) * implicit
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-8)
    torch.testing.assert_close(loss, valid(ahead, table).detach())
    if reference:
        assert (ratio > 1) == (clip > 1)


@pytest.mark.parametrize("clip", [0.0, 0.1])
def test_both_hessian_products_agree_on_the_recurrent_network(clip: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a step that crosses no kink of a ReLU; clipped, the gradient at the weights is, that ahead is not."""
    monkeypatch.setattr(architect, "FINITE_DIFFERENCE", 1e-5)
    torch.manual_seed(0)
    net = supernet(spaces.get("rnn", steps=2), 5, 4, Dropout()).double()
    words, targets = torch.randint(5, (2, 3, 6)), torch.randint(5, (2, 3, 6))
    names, parameters = zip(*net.named_parameters(), strict=True)
    table = torch.randn(1, 3, 5).double()

    def loss_on(part: int, scale: float) -> Any:
        def loss(weights: Sequence[Tensor], a: Tensor) -> Tensor:
            arguments = (words[part], net.start(6), a.softmax(-1), Pass(statistics="batch"))
            out = torch.func.functional_call(net, dict(zip(names, weights, strict=True)), arguments)
            return scale * out.loss(targets[part])[0]  # type: ignore[no-any-return]

        return loss

    train, valid = loss_on(0, 1.0), loss_on(1, 0.1)
    found = [
        unrolled_gradient(train, valid, parameters, table, learning_rate=0.1, momentum=0.0, clip=clip, hessian=hessian)[
            0
        ]
        for hessian in ("fd", "exact")
    ]
    first = unrolled_gradient(train, valid, parameters, table, learning_rate=0.0, momentum=0.0)[0]
    assert (found[1] - first).norm() > 0.1 * first.norm()
    torch.testing.assert_close(found[0], found[1], rtol=1e-4, atol=1e-10)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"split": 0.5}, "split must be left out on text, got 0.5"),
        ({"crop_padding": 2}, "crop_padding must be left out on text"),
        ({"cells": 4}, "cells must be left out on text, got 4"),
        ({"ablation_weight": 0.5}, "ablation_weight must be 0 on text"),
        ({"perturbation": "random"}, "perturbation must be none on text"),
        ({"dropout_output": 1.0}, "dropout_output must be below 1, got 1.0"),
        ({"order": 2, "hessian": "exact", "unrolled_clip": "reference"}, "unrolled_clip must be bounded"),
        ({"batch": 70}, r"batch must leave 2 or more words a column, got 70 columns of 100 words \(valid\)"),
        ({"method": "fairdarts"}, "method must have a recurrent space on text, such as darts, got fairdarts"),
    ],
)
def test_what_does_not_go_with_text_is_refused(settings: dict[str, Any], words: str) -> None:
    given = {"method": "darts", **SETTINGS, **settings}
    with pytest.raises(ValueError, match=f"^search: {words}"):
        Searcher(corpus(), **given)


def test_images_and_text_are_not_mixed_up() -> None:
    with pytest.raises(ValueError, match=r"data must be text .* for space rnn, got images"):
        Searcher("digits", "darts", space="rnn", device="cpu")
    with pytest.raises(TypeError, match="bptt is a setting of searches on text, which darts here is not"):
        Searcher("digits", "darts", bptt=5, device="cpu")
    published = Searcher(corpus(), replace(Searcher(corpus(), "darts").config.method, batch=8), device="cpu").config
    assert published.method.text is not None

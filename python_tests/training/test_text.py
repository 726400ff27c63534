"""Training a language model: perplexity falls, the average of ASGD, resume, files, and the commands."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from runs.shown import Shown
from torch import Tensor
from typer.testing import CliRunner

from ddarts_ext import cli
from ddarts_ext.data.text import Corpus
from ddarts_ext.genotype import Genotype
from ddarts_ext.runs.sums import Sums
from ddarts_ext.training.text import TextTrainer
from ddarts_ext.training.text.weights import load_language_model
from ddarts_ext.training.trainer import Trainer

CELL = Genotype.from_text("Genotype(recurrent=[('tanh', 0), ('relu', 1)], concat=[1, 2])")
SETTINGS: dict[str, Any] = {"channels": 8, "batch": 8, "bptt": 8, "epochs": 3, "device": "cpu", "lr": 2.0}


def corpus() -> Corpus:
    pattern = torch.tensor([0, 1, 2, 0, 1, 3]).repeat(100)
    return Corpus("pattern", "words", ("a", "b", "c", "d"), pattern, pattern[:90], pattern[90:180])


def test_a_training_runs_and_its_files_are_a_network(tmp_path: Path) -> None:
    plain = {f"dropout_{name}": 0.0 for name in ("output", "hidden", "inputs", "embedding", "words")}
    settings = {**SETTINGS, **plain, "epochs": 8, "lr": 10.0}
    result = Trainer(CELL, corpus(), out=tmp_path / "run", **settings).train()
    losses = [record["train"]["loss"] for record in result.history]
    assert losses[-1] < losses[0]
    assert result.perplexity < 3  # of 4 words; a text of one pattern in turns
    network, vocabulary = load_language_model(tmp_path / "run")
    assert vocabulary == ("a", "b", "c", "d")
    words = torch.tensor([[0, 1], [1, 2]])
    assert torch.equal(network(words, network.start(2)).logits, result.network(words, network.start(2)).logits)
    sums = Sums()
    TextTrainer(CELL, corpus(), **settings)._judge(network, corpus().test, "test", sums)
    assert math.exp(sums.means()["test_loss"]) == pytest.approx(result.perplexity)  # type: ignore[arg-type]
    assert Genotype.load(tmp_path / "run") == CELL


def test_killed_and_resumed_it_is_the_same(tmp_path: Path) -> None:
    settings = {**SETTINGS, "asgd_after": 1}
    whole = Trainer(CELL, corpus(), **settings).train()
    with pytest.raises(KeyboardInterrupt):
        Trainer(CELL, corpus(), out=tmp_path / "run", progress=Shown(14), **settings).train()
    resumed = Trainer(CELL, corpus(), out=tmp_path / "run", resume=True, **settings).train()
    assert resumed.perplexity == whole.perplexity
    for ours, theirs in zip(resumed.network.parameters(), whole.network.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_weights_are_averaged_once_the_loss_is_worse_than_the_best_of_all_but_the_last() -> None:
    trainer = TextTrainer(CELL, corpus(), **{**SETTINGS, "asgd_after": 2})
    run = trainer._start()
    for valid, switched in ((3.0, False), (2.0, False), (1.0, False), (2.5, False), (2.1, True)):
        trainer._switch(run, valid)
        assert (run.average is not None) is switched, valid
        run.history.append({"valid": {"loss": valid}})


def test_the_average_is_the_mean_over_steps_and_is_what_is_judged() -> None:
    run = TextTrainer(CELL, corpus(), **SETTINGS)._start()
    run.average = {name: torch.zeros_like(p) for name, p in run.network.named_parameters()}
    seen: list[Tensor] = []
    for step in range(3):
        with torch.no_grad():
            run.network.bias.fill_(float(step))
        run.follow()
        seen.append(run.network.bias.detach().clone())
    with run.judged() as network:
        torch.testing.assert_close(network.bias.detach(), torch.stack(seen).mean(0))
    assert torch.equal(run.network.bias.detach(), seen[-1])


def test_published_settings_for_a_long_text_and_smaller_ones_for_a_short_one() -> None:
    short = TextTrainer(CELL, corpus(), device="cpu").config
    assert (short.channels, short.batch) == (128, 32)
    long = Corpus("long", "words", ("a",), torch.zeros(500_000, dtype=torch.long), *[torch.zeros(9).long()] * 2)
    config = TextTrainer(CELL, long, device="cpu").config
    assert (config.channels, config.batch, config.lr, config.weight_decay) == (850, 64, 20.0, 8e-7)
    assert config.dropout == (type(config.dropout))(0.75, 0.25, 0.75, 0.2, 0.1)


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"momentum": 0.9}, TypeError, "setting on text must be one of .*, got 'momentum'"),
        ({"dropout_words": 1.0}, ValueError, "dropout_words must be from 0 to below 1, got 1.0"),
        ({"bptt": 0}, ValueError, "bptt must be >= 1, got 0"),
        ({"cells": 3}, ValueError, "cells must be left out for a recurrent cell, got 3"),
        ({"genotype": "DARTS_V2"}, ValueError, "genotype must be that of a recurrent cell on text"),
        ({"data": "digits"}, ValueError, "data must be text .* for a recurrent cell, got 'digits'"),
    ],
)
def test_what_does_not_fit_is_refused(arguments: dict[str, Any], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=f"^train: {words}"):
        Trainer(**{"genotype": CELL, "data": corpus(), "device": "cpu", **arguments})


def test_the_commands_from_text_to_a_trained_cell(tmp_path: Path) -> None:
    (tmp_path / "story.txt").write_text("the cat sat on the mat .\nthe dog sat on the cat .\n" * 40)
    data, run, net = f"text:{tmp_path / 'story.txt'}", str(tmp_path / "run"), str(tmp_path / "net")
    small = ["--channels", "8", "--batch", "8", "--epochs", "1", "--device", "cpu", "--set", "bptt=8"]

    def called(*arguments: str) -> str:
        found = CliRunner().invoke(cli.app, list(arguments))
        assert found.exit_code == 0, found.output + str(found.exception)
        return found.output

    said = called("search", "--data", data, "--method", "darts", "--out", run, *small)
    assert "Genotype(recurrent=[" in said
    assert "validation perplexity of the supernet" in said
    assert "perplexity" in called("train", run, "--data", data, "--out", net, *small)
    assert "cells.png" in called("plot", run)
    assert json.loads(called("describe", "DARTS_V1_RNN", "--json"))["parameters"] == 22_960_000
    assert "recurrent cell: relu:1<-0" in called("describe", "DARTS_V1_RNN")
    assert "on text:" in called("search", "--list")

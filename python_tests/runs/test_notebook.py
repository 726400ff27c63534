"""Progress and results in a notebook: HTML in which texts are escaped."""

from __future__ import annotations

import sys
import types
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import torch

from ddarts_ext import Genotype, SearchResult
from ddarts_ext.runs.notebook import Notebook, default_progress, in_notebook
from ddarts_ext.runs.progress import Progress
from ddarts_ext.training.result import TrainResult


class Texts(HTMLParser):
    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.texts: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)

    def handle_data(self, data: str) -> None:
        self.texts.append(data.strip())


class Output:
    """What IPython's display gives: an output that can be written anew."""

    def __init__(self) -> None:
        self.shown: list[str] = []

    def __call__(self, page: Any, *, display_id: bool) -> Output:
        assert display_id
        self.update(page)
        return self

    def update(self, page: Any) -> None:
        self.shown.append(page._repr_html_())


def test_progress_is_one_output_written_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("ddarts_ext.runs.notebook.time.monotonic", lambda: now[0])
    output = Output()
    bar = Notebook(output)
    bar.start("search", epochs=3, steps=4, done=1, images=80)
    for _ in range(4):
        now[0] += 1
        bar.step()
    bar.epoch("loss <b>1</b>")
    page = Texts(output.shown[-1])
    assert page.tags == ["div", "progress", "div"]
    assert "8/12 steps 20 images/s, 0:00:04 left" in page.texts
    assert "epoch 2/3  loss <b>1</b>" in page.texts
    bar.close()
    assert len(output.shown) == 7


def test_it_is_used_in_notebooks_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not in_notebook()
    assert type(default_progress()) is Progress
    shell = type("ZMQInteractiveShell", (), {})()
    ipython = types.SimpleNamespace(get_ipython=lambda: shell)
    monkeypatch.setitem(sys.modules, "IPython", ipython)  # type: ignore[arg-type]
    display = types.SimpleNamespace(display=Output())
    monkeypatch.setitem(sys.modules, "IPython.display", display)  # type: ignore[arg-type]
    assert isinstance(default_progress(), Notebook)


def history(part: str) -> list[dict[str, Any]]:
    figures = {"loss": 1.0, "accuracy": 0.25}
    return [{"epoch": epoch, "train": figures, part: figures} for epoch in range(3)]


def test_a_genotype_shows_its_cells() -> None:
    genotype = Genotype.load("DARTS_V2")
    page = Texts(genotype._repr_html_())
    assert {"svg", "rect", "path"} <= set(page.tags)
    assert sorted(text for text in page.texts if text.startswith("sep")) == ["sep_conv_3x3"] * 5
    many = Genotype((tuple(("skip_connect", 2 + i, j) for i in range(30) for j in range(2 + i)),), concat=(31,))
    assert Texts(many._repr_html_()).tags == ["div", "pre"]


def test_results_show_themselves() -> None:
    genotype = Genotype.load("DARTS_V1", layers=3)
    result = SearchResult(
        genotype, "darts", "<script>", {}, history("valid"), torch.zeros(1), 10, 1, "cifar", Path("<i>")
    )
    page = Texts(result._repr_html_())
    assert not {"script", "i"} & set(page.tags)
    assert {"<script>", "<i>", "accuracy 25.00%", "validation", "cells 1-2 (reduction)"} <= set(page.texts)
    assert page.tags.count("polyline") == 2
    trained = TrainResult(torch.nn.Linear(2, 3), 0.5, history("test"), Path("run"))
    assert {"accuracy 50.00%", "9", "held out"} <= set(Texts(trained._repr_html_()).texts)
    assert "polyline" not in TrainResult(torch.nn.Linear(2, 3), 0.5, history("test")[:1])._repr_html_()

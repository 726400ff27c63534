"""A report shows every run there is, needs nothing but itself, and takes texts of runs for texts."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from plot.test_shrinking import write_run
from typer.testing import CliRunner

import ddarts_ext
from ddarts_ext import Genotype, cli, report, spaces
from ddarts_ext.distance.op_scores import save_scores

pytest.importorskip("matplotlib")

EVIL = "</title><script>alert(1)</script><img src=x onerror=alert(1)>$\\frac{\"'"


class Page(HTMLParser):
    """Tags, attributes and texts of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.texts: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]

    def handle_data(self, data: str) -> None:
        self.texts.append(data.strip())


def read(path: Path) -> Page:
    text = path.read_text(encoding="utf-8")
    assert re.search(r"prefers-color-scheme: *dark", text)
    return check(Page(text))


def check(page: Page) -> Page:
    """Nothing runs, and nothing is fetched."""
    assert not {"script", "iframe", "object", "embed", "link", "base", "form", "foreignobject"} & set(page.tags)
    ids = [value for name, value in page.attributes if name == "id"]
    assert len(ids) == len(set(ids))
    for name, value in page.attributes:
        assert not name.startswith("on")
        if name in ("src", "href", "xlink:href"):
            assert value.startswith(("#", "data:image/png;base64,")), value
        for place in re.findall(r"url\(([^)]*)\)", value):
            assert place.strip("'\"")[1:] in ids
    return page


def search(path: Path, epochs: int = 3, *, genotype: bool = True, **changed: Any) -> Path:
    """The files of a search in the space of DARTS."""
    path.mkdir(parents=True)
    space, cells = spaces.get("darts"), 3
    method = {"name": "ddarts", "space": "darts", "relaxation": "sigmoid", "epochs": 3, "cells": cells}
    images = {"train": 100, "test": 20, "classes": ["a", "b"], "size": [8, 8], "channels": 1}
    config: dict[str, Any] = {"version": 1, "command": "search", "data": "digits", "method": method, "device": "cpu"}
    config |= {"images": images, "division": {"weights": {"images": 50}}, "stem": "cifar", "seed": 0}
    (path / "config.json").write_text(json.dumps({**config, "precision": "float32", **changed}))
    rng = np.random.default_rng(0)
    lines = []
    for epoch in range(epochs):
        alphas = rng.normal(size=(cells, len(space.edges), len(space.ops))).tolist()
        part = {"loss": 1.0 / (epoch + 1), "accuracy": 0.5}
        record: dict[str, Any] = {"epoch": epoch, "train": part, "valid": part, "alphas": alphas, "owner": [0, 1, 2]}
        record |= {"seconds": 2.0, "memory_mib": 100.0}
        record["decisions"] = {"dominant": 0, "decided": 0.1, "entropy": 1.9, "spread": 0.0, "skips": 1}
        lines.append(json.dumps({**record, **({"contributions": [-0.1, 0.2, 0.0]} if epoch else {})}) + "\n")
    (path / "history.jsonl").write_text("".join(lines))
    if genotype:
        Genotype.load("DARTS_V1", layers=cells).save(path / "genotype.json")
    return path


def training(path: Path) -> Path:
    path.mkdir(parents=True)
    genotype = Genotype.load("DARTS_V2", layers=4)
    images = {"train": 100, "test": 20, "classes": ["a", "b"], "size": [8, 8], "channels": 1}
    config = {"command": "train", "data": "digits", "recipe": "few", "channels": 8, "epochs": 5, "stem": "cifar"}
    (path / "config.json").write_text(json.dumps({**config, "images": images, "genotype": genotype.to_json()}))
    record = {"epoch": 0, "train": {"loss": 1.0, "accuracy": 0.5}, "test": {"loss": 1.0, "accuracy": 0.25}}
    (path / "history.jsonl").write_text(json.dumps({**record, "seconds": 1.0, "memory_mib": 1.0}) + "\n")
    return path


def test_runs_of_all_kinds_side_by_side(tmp_path: Path) -> None:
    runs = [search(tmp_path / "one"), search(tmp_path / "two", seed=7), training(tmp_path / "net")]
    save_scores({"sep_conv_3x3": 2.0, "skip_connect": 1.0}, tmp_path / "scores.json", about="measured")
    out = report([*runs, tmp_path / "scores.json"], tmp_path / "new" / "report.html")
    page = read(out)
    texts = set(page.texts)
    assert {"one", "two", "net", "Cells", "Marginal contributions of the cells", "Op scores"} <= texts
    assert {
        "finished, 3 of 3 epochs",
        "not finished, 1 of 5 epochs",
        "accuracy 25.00%",
        "recipe few",
        "measured",
    } <= texts
    assert {"cells 1-2 (reduction)", "contribution (negative: useful)", "edge (target<-source)"} <= texts
    # Two searches with the same result; the training has four cells.
    assert "0.0000" in texts
    # In which they differ, and which are the same.
    assert "method.name" in texts
    assert any("that are the same" in text for text in page.texts)


def test_a_search_by_shrinking_in_another_space(tmp_path: Path) -> None:
    (tmp_path / "shrunk").mkdir()
    arch = "|nor_conv_3x3~0|+|none~0|skip_connect~1|+|nor_conv_1x1~0|skip_connect~1|avg_pool_3x3~2|"
    write_run(tmp_path / "shrunk", "nasbench201", 1, Genotype.from_nb201(arch))
    config = {"command": "search", "method": {"name": "isdarts", "space": "nasbench201", "epochs": 2}}
    (tmp_path / "shrunk" / "config.json").write_text(json.dumps(config))
    runs = [tmp_path / "shrunk", search(tmp_path / "one", 1), search(tmp_path / "two", 1)]
    page = read(report(runs, tmp_path / "report.html"))
    assert "score of every op over epochs; dashed: shrinking steps, cross: the op is removed" in page.texts
    assert not any("math" in text for text in page.texts)  # matplotlib's formulas are off
    # Its ops have no scores; the others are compared without it.
    assert any(text.startswith("shrunk: not measured") for text in page.texts)
    assert "0.0000" in page.texts


def test_counts_are_those_of_describe(tmp_path: Path) -> None:
    page = read(report(training(tmp_path / "net"), tmp_path / "report.html"))
    arguments = ["describe", str(tmp_path / "net" / "genotype.json"), "--json", "--channels", "8", "--classes", "2"]
    Genotype.load("DARTS_V2", layers=4).save(tmp_path / "net" / "genotype.json")
    result = CliRunner().invoke(cli.app, [*arguments, "--size", "8", "--in-channels", "1"])
    figures = json.loads(result.stdout)
    assert f"{figures['parameters']:,}" in page.texts
    assert f"{figures['multiply_adds']['convolutions']:,}" in page.texts


@pytest.mark.parametrize("epochs", [0, 1])
def test_a_run_that_has_hardly_begun(epochs: int, tmp_path: Path) -> None:
    run = search(tmp_path / "run", epochs, genotype=False)
    page = read(report([run], tmp_path / "report.html"))
    assert f"not finished, {epochs} of 3 epochs" in page.texts
    assert ("Accuracy and loss" in page.texts) == (epochs == 1)
    assert "Cells" not in page.texts


def test_texts_of_a_run_are_texts(tmp_path: Path) -> None:
    method = {"name": EVIL, "space": EVIL, "relaxation": EVIL, "epochs": EVIL, EVIL: {EVIL: EVIL}}
    runs = [search(tmp_path / "run", data=EVIL, method=method, seed=EVIL, device=EVIL), search(tmp_path / "_b <b>&")]
    (runs[0] / "network.json").write_text(json.dumps({"date": EVIL, "versions": {EVIL: EVIL}}))
    page = read(report(runs, tmp_path / "report.html"))
    assert EVIL in page.texts
    assert "_b <b>&" in page.texts
    assert "b" not in page.tags


@pytest.mark.parametrize(
    "record",
    [
        {"alphas": [[1.0]], "owner": [0]},
        {"alphas": "text", "owner": [0, 1]},
        {"train": 5},
        {"train": {"accuracy": "high", "loss": None}},
        {"mask": [[[1]]], "scores": [[["x"]]]},
        {"decisions": {}, "distance": {}, "contributions": [[]]},
        {"seconds": "soon", "memory_mib": []},
    ],
)
def test_what_cannot_be_drawn_is_a_note(record: dict[str, Any], tmp_path: Path) -> None:
    run = search(tmp_path / "run", 1)
    (run / "history.jsonl").write_text(json.dumps({"epoch": 0, **record}) + "\n")
    page = read(report([run], tmp_path / "report.html"))
    assert "cells 1-2 (reduction)" in page.texts


def test_a_comparison(tmp_path: Path) -> None:
    line = {"label": "<darts>", "mean": 0.5, "error": 0.1}
    found = {"lines": [line], "curves": {"<darts>": [[0.1, 0.2]]}, "points": {}, "correlation": None}
    (tmp_path / "judged").mkdir()
    (tmp_path / "judged" / "comparison.json").write_text(json.dumps(found))
    page = read(report(tmp_path / "judged", tmp_path / "report.html"))
    assert "<darts>" in page.texts


def test_the_command_and_what_it_refuses(tmp_path: Path) -> None:
    run = search(tmp_path / "run", 1)
    result = CliRunner().invoke(cli.app, ["report", str(run), "--out", str(tmp_path / "r.html")])
    assert result.exit_code == 0, result.exception
    read(tmp_path / "r.html")
    (tmp_path / "other").mkdir()
    with pytest.raises(FileNotFoundError, match="must be the folder of a run"):
        report(tmp_path / "other")
    with pytest.raises(ValueError, match="at least one run must be given"):
        report([])
    assert ddarts_ext.report is report

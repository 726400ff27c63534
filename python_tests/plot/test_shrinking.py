"""Pictures of a search by shrinking, from its run folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ddarts_ext import Genotype, spaces
from ddarts_ext.plot import plot_run

pytest.importorskip("matplotlib")


def write_run(folder: Path, name: str, rows: int, genotype: Genotype) -> None:
    """Two epochs, a step after the first: `none` goes everywhere."""
    space = spaces.get(name)
    shape = (rows, len(space.edges), len(space.ops))
    rng = np.random.default_rng(0)
    history: list[dict[str, Any]] = []
    for epoch in range(2):
        scores = rng.random(shape)
        scores[..., 0] = np.nan if epoch else np.inf
        found = [[[None if np.isnan(s) else s for s in edge] for edge in row] for row in scores.tolist()]
        record = {"epoch": epoch, "train": {"loss": 1.0, "accuracy": 0.5}, "scores": found}
        history.append({**record, "mask": np.ones(shape, dtype=int).tolist()})
    history[0]["removed"] = [[row, edge, 0] for row in range(rows) for edge in range(shape[1])]
    if rows == 1:
        history[0]["growing"] = {"samples": [1, 2], "scores": [history[0]["scores"]] * 2}
    (folder / "config.json").write_text(json.dumps({"method": {"space": name}}))
    (folder / "history.jsonl").write_text("".join(json.dumps(record) + "\n" for record in history))
    genotype.save(folder / "genotype.json")


def test_nasbench201(tmp_path: Path) -> None:
    arch = "|nor_conv_3x3~0|+|none~0|skip_connect~1|+|nor_conv_1x1~0|skip_connect~1|avg_pool_3x3~2|"
    write_run(tmp_path, "nasbench201", 1, Genotype.from_nb201(arch))
    paths = plot_run(tmp_path)
    assert {path.name for path in paths} == {"accuracy.png", "scores.png", "samples.png", "cells.png"}
    assert all(path.stat().st_size > 1000 for path in paths)


def test_darts_space_draws_both_types_and_two_ops_on_one_edge(tmp_path: Path) -> None:
    cell = [("sep_conv_5x5", 2, 0), ("max_pool_3x3", 2, 0), ("sep_conv_3x3", 3, 1), ("dil_conv_5x5", 4, 0)]
    write_run(tmp_path, "isdarts", 2, Genotype.from_darts(cell, cell[1:], layers=8))
    names = {path.name for path in plot_run(tmp_path)}
    assert {"scores-normal.png", "scores-reduction.png", "cells.png"} <= names

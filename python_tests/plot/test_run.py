"""``plot_run`` draws what a history holds, and says what is missing."""

from __future__ import annotations

from pathlib import Path

import pytest

from ddarts_ext.plot import plot_run
from ddarts_ext.runs.folder import RunFolder


def test_a_search_is_drawn(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    folder = RunFolder(tmp_path)
    folder.begin({"method": {"space": "darts"}})
    with pytest.raises(ValueError, match="at least one finished epoch"):
        plot_run(tmp_path)
    part = {"loss": 1.0, "accuracy": 0.5}
    record = {
        "train": part,
        "valid": part,
        "contributions": [-0.1, 0.2],
        "owner": [0, 1],
        "alphas": [[[0.1] * 7] * 2] * 2,
        "decisions": {"dominant": 0, "decided": 0.1, "entropy": 1.9, "spread": 0.0, "skips": 1},
        "discretisation": {"rule": "darts", "before": 0.8, "after": 0.6, "loss_after": 1.0},
    }
    folder.write_history([{"epoch": epoch, **record} for epoch in range(2)])
    paths = plot_run(tmp_path)
    assert [path.name for path in paths] == [
        "accuracy.png",
        "contributions.png",
        "alphas.png",
        "weights.png",
        "decisions.png",
    ]
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in paths)


def test_other_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="must be the folder of a run"):
        plot_run(tmp_path)

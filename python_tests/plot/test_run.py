"""``plot_run`` draws what a history holds, and says what is missing."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import pytest

from ddarts_ext import Genotype
from ddarts_ext.plot import plot_run
from ddarts_ext.plot.run import run_figures
from ddarts_ext.runs.folder import RunFolder


def write_search(path: Path) -> RunFolder:
    """Three epochs with all that a history may hold."""
    folder = RunFolder(path)
    folder.begin({"method": {"space": "darts"}})
    part = {"loss": 1.0, "accuracy": 0.5}
    record = {
        "train": part,
        "valid": part,
        "owner": [0, 1],
        "alphas": [[[0.1] * 7] * 2] * 2,
        "decisions": {"dominant": 0, "decided": 0.1, "entropy": 1.9, "spread": 0.0, "skips": 1},
        "distance": {"start": 0.1, "previous": 0.05},
        "discretisation": {"rule": "darts", "before": 0.8, "after": 0.6, "loss_after": 1.0},
    }
    # Alphas rest in the first epoch, and nothing is known of contributions yet.
    later = {"contributions": [-0.1, 0.2]}
    folder.write_history([{"epoch": 0, **record}, {"epoch": 1, **record, **later}, {"epoch": 2, **record, **later}])
    return folder


@pytest.mark.parametrize("kind", ["png", "svg"])
def test_a_search_is_drawn(kind: Literal["png", "svg"], tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    write_search(tmp_path)
    paths = plot_run(tmp_path, format=kind)
    assert [path.name for path in paths] == [
        f"{name}.{kind}"
        for name in ("accuracy", "contributions", "alphas", "weights", "edges", "decisions", "distance")
    ]
    assert all(path.stat().st_size > 2000 for path in paths)


def test_a_run_of_one_epoch_and_one_without_any(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    folder = write_search(tmp_path)
    folder.write_history(folder.history()[:1])
    assert len(plot_run(tmp_path)) == 6
    folder.history_file.unlink()
    with pytest.raises(ValueError, match="at least one finished epoch"):
        plot_run(tmp_path)
    Genotype.load("DARTS_V1").save(folder.genotype_file)
    assert [path.name for path in plot_run(tmp_path)] == ["cells.png"]


def test_every_axis_says_what_it_is(tmp_path: Path) -> None:
    pyplot = pytest.importorskip("matplotlib.pyplot")
    folder = write_search(tmp_path)
    for name, draw in run_figures(folder.config(), folder.history()).items():
        draw(pyplot)
        figure = pyplot.gcf()
        for axis in figure.axes:
            shown = axis.get_visible() and axis.get_label() != "<colorbar>"
            second = any(axis in group for group in [axis.get_shared_x_axes().get_siblings(axis)] if len(group) > 1)
            assert not shown or second or axis.get_xlabel() or figure.get_supxlabel(), name
            assert not shown or axis.get_ylabel() or figure.get_supylabel(), name
        pyplot.close()


def test_other_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="must be the folder of a run"):
        plot_run(tmp_path)

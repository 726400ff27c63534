"""A file that breaks while images stream: the run stops with its name, and goes on where it was once it is mended."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ddarts_ext import Searcher
from ddarts_ext.data import UnreadableImage
from ddarts_ext.data import folder as folder_module
from ddarts_ext.data.stream import StreamSplit
from ddarts_ext.genotype import Genotype
from ddarts_ext.genotype.derivation import derive
from ddarts_ext.runs.progress import Progress
from ddarts_ext.training.trainer import Trainer

Image = pytest.importorskip("PIL.Image")


class Breaking(Progress):
    """Breaks every file after so many steps."""

    def __init__(self, root: Path, after: int) -> None:
        self.files = {path: path.read_bytes() for path in root.rglob("*.png")}
        self.after, self.lines = after, list[str]()

    def step(self) -> None:
        self.after -= 1
        if not self.after:
            for path, content in self.files.items():
                path.write_bytes(content[:40])

    def say(self, line: str) -> None:
        self.lines.append(line)

    def mend(self) -> None:
        for path, content in self.files.items():
            path.write_bytes(content)


def search(root: Path, **arguments: Any) -> Any:
    return Searcher(root, "darts", epochs=2, cells=2, channels=4, batch=4, **arguments)


def train(root: Path, **arguments: Any) -> Any:
    return Trainer(derive(Genotype.load("DARTS_V1"), 3), root, epochs=2, channels=4, batch=4, **arguments)


def figures(history: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{k: v for k, v in record.items() if k not in ("seconds", "memory_mib")} for record in history]


@pytest.mark.parametrize("make", [search, train], ids=["search", "train"])
@pytest.mark.parametrize("after", [2, 11])
def test_the_run_stops_with_the_name_and_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make: Callable[..., Any], after: int
) -> None:
    root = tmp_path / "images"
    for part, count in (("train", 40 if make is search else 20), ("test", 2)):
        for label, name in enumerate("ab"):
            (root / part / name).mkdir(parents=True)
            for i in range(count):
                Image.new("L", (8, 8), 120 * label + i).save(root / part / name / f"{i}.png")
    monkeypatch.setattr(folder_module, "IN_MEMORY_BYTES", 0)
    whole = make(root)
    assert isinstance(whole.dataset.train, StreamSplit)
    whole = getattr(whole, make.__name__)().history
    breaking = Breaking(root, after)
    with pytest.raises(UnreadableImage, match=r"images/train/[ab]/\d+\.png is not an image that can be read"):
        getattr(make(root, out=tmp_path / "run", progress=breaking), make.__name__)()
    assert "saved after step" in breaking.lines[-1]
    assert f"of epoch {1 + after // 10}" in breaking.lines[-1]
    breaking.mend()
    resumed = Breaking(root, -1)
    again = getattr(make(root, out=tmp_path / "run", resume=True, progress=resumed), make.__name__)().history
    assert "continues within epoch" in " ".join(resumed.lines)
    assert figures(again) == figures(whole)

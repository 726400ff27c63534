"""Lines in a pipe say where the run is; the bar survives without a terminal."""

from __future__ import annotations

import io

from ddarts_ext.runs.progress import Bar, Lines


def test_lines_count_epochs_and_say_what_is_left() -> None:
    file = io.StringIO()
    lines = Lines(file)
    lines.start("search", 5, 10, 2)
    for _ in range(10):
        lines.step()
    lines.epoch("loss 1.0")
    first, second = file.getvalue().splitlines()
    assert first == "search: continues after epoch 2 of 5"
    assert second.startswith("epoch 3/5  loss 1.0  ")
    assert second.endswith(" left")


def test_bar() -> None:
    bar = Bar()
    bar.start("search", 2, 3, 0)
    bar.step()
    bar.epoch("loss 1.0")
    bar.close()
    assert bar.bar.tasks[0].completed == 1
    assert bar.bar.tasks[0].total == 6

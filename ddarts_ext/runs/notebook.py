"""Progress in a notebook: one output that is written anew, with a bar and the last epochs."""

from __future__ import annotations

import sys
import time
from html import escape
from typing import Any

from ddarts_ext.runs.progress import Progress, clock, rate

_SECONDS = 0.5
"""Between two pictures of the bar."""
_LINES = 8


def in_notebook() -> bool:
    """Whether this process is the kernel of a notebook."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return type(shell).__name__ == "ZMQInteractiveShell"


def default_progress() -> Progress:
    """What a search or a training shows where nothing is said: a bar in a notebook, else nothing."""
    return Notebook() if in_notebook() else Progress()


class Notebook(Progress):
    """display: as ``IPython.display.display``; by default that."""

    def __init__(self, display: Any = None) -> None:
        if display is None:
            from IPython.display import display as ipython

            display = ipython
        self._display, self._handle = display, None
        self._lines: list[str] = []
        self._what = ""
        self._total = self._done = self._first = self._steps = self._images = self._epochs = self._epoch = 0
        self._began = self._shown = 0.0

    def start(self, what: str, epochs: int, steps: int, done: int, images: int = 0) -> None:
        self._what, self._total, self._first = what, epochs * steps, done * steps
        self._done, self._steps, self._images = done * steps, steps, images
        self._epochs, self._epoch, self._began = epochs, done, time.monotonic()
        self._show()

    def step(self) -> None:
        self._done += 1
        if time.monotonic() - self._shown > _SECONDS:
            self._show()

    def epoch(self, line: str) -> None:
        self._epoch += 1
        self.say(f"epoch {self._epoch}/{self._epochs}  {line}")

    def say(self, line: str) -> None:
        self._lines.append(line)
        self._show()

    def close(self) -> None:
        self._show()

    def _show(self) -> None:
        self._shown = time.monotonic()
        page = Shown(self._html())
        if self._handle is None:
            self._handle = self._display(page, display_id=True)
        else:
            self._handle.update(page)

    def _html(self) -> str:
        lines = "".join(f"<div>{escape(line)}</div>" for line in self._lines[-_LINES:])
        if not self._total:
            return lines
        steps = (self._done - self._first) / max(self._shown - self._began, 1e-9)
        left = f", {clock((self._total - self._done) / steps)} left" if steps and self._done < self._total else ""
        speed = rate(self._steps, self._images, steps) if self._done > self._first else ""
        bar = f'<progress value="{self._done}" max="{self._total}" style="width:20rem"></progress>'
        return f"<div>{escape(self._what)} {bar} {self._done}/{self._total} steps {speed}{left}</div>{lines}"


class Shown:
    """HTML for a notebook, and nothing for anything else."""

    def __init__(self, html: str) -> None:
        self._html = html

    def _repr_html_(self) -> str:
        return self._html

    def __repr__(self) -> str:
        return ""

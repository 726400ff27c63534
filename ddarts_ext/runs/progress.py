"""What a person sees while a run goes on: a bar with rate and remaining time on a terminal, plain lines in a pipe."""

from __future__ import annotations

import sys
import time
from typing import IO, Any


class Progress:
    """Silent; the base of the others."""

    def start(self, what: str, epochs: int, steps: int, done: int, images: int = 0) -> None:
        """``done`` of ``epochs`` epochs of ``steps`` steps with ``images`` images are finished."""

    def step(self) -> None:
        """A step was issued; the device may still be at work on it."""

    def epoch(self, line: str) -> None:
        """An epoch is over; ``line`` says how it went."""

    def say(self, line: str) -> None:
        """Something a person should know."""

    def close(self) -> None:
        """The run is over."""


class Lines(Progress):
    """One line per epoch, with the rate and the remaining time."""

    def __init__(self, file: IO[str] | None = None) -> None:
        self.file = file if file is not None else sys.stderr
        self.epochs = self.steps = self.done = self.first = self.images = 0
        self.began = 0.0

    def start(self, what: str, epochs: int, steps: int, done: int, images: int = 0) -> None:
        self.epochs, self.steps, self.done, self.first, self.images = epochs, steps, done, done, images
        self.began = time.monotonic()
        if done:
            self.say(f"{what}: continues after epoch {done} of {epochs}")

    def epoch(self, line: str) -> None:
        self.done += 1
        seconds = (time.monotonic() - self.began) / (self.done - self.first)
        left = clock(seconds * (self.epochs - self.done))
        speed = rate(self.steps, self.images, self.steps / max(seconds, 1e-9))
        self.say(f"epoch {self.done}/{self.epochs}  {line}  {speed}  {left} left")

    def say(self, line: str) -> None:
        print(line, file=self.file, flush=True)


class Bar(Progress):
    """A bar over all steps of the run."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
        from rich.progress import Progress as RichProgress

        self.console = Console(stderr=True)
        self.bar = RichProgress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=self.console,
        )
        self.task: Any = None
        self.began = 0.0
        self.issued = 0
        self.epochs = self.finished = self.steps = self.images = 0

    def start(self, what: str, epochs: int, steps: int, done: int, images: int = 0) -> None:
        self.steps, self.images = steps, images
        self.epochs, self.finished, self.issued, self.began = epochs, done, 0, time.monotonic()
        self.task = self.bar.add_task(what, total=epochs * steps, completed=done * steps, rate="")
        self.bar.start()

    def step(self) -> None:
        self.issued += 1
        speed = self.issued / max(time.monotonic() - self.began, 1e-9)
        self.bar.update(self.task, advance=1, rate=rate(self.steps, self.images, speed))

    def epoch(self, line: str) -> None:
        self.finished += 1
        self.console.print(f"epoch {self.finished}/{self.epochs}  {line}", highlight=False)

    def say(self, line: str) -> None:
        self.console.print(line, highlight=False)

    def close(self) -> None:
        self.bar.stop()


def rate(steps: int, images: int, speed: float) -> str:
    """``speed`` in steps a second, said in images where it is known how many they take."""
    return f"{speed * images / steps:.0f} images/s" if images and steps else f"{speed:.1f} steps/s"


def clock(seconds: float) -> str:
    """``H:MM:SS``."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}"


def for_terminal() -> Progress:
    """The bar where standard error is a terminal, else lines."""
    return Bar() if sys.stderr.isatty() else Lines()

"""What tests look at runs with."""

from __future__ import annotations

from ddarts_ext.runs.progress import Progress


class Shown(Progress):
    """What a run said; ends it after so many steps, as a person would, 0 for never."""

    def __init__(self, steps: int = 0) -> None:
        super().__init__()
        self.lines: list[str] = []
        self.left = steps

    def say(self, line: str) -> None:
        self.lines.append(line)

    def step(self) -> None:
        self.left -= 1
        if self.left == 0:
            raise KeyboardInterrupt

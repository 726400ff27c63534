"""What replaying steps needs beside the graphs."""

from __future__ import annotations

import pytest
import torch

from ddarts_ext.runs.graphs import Pace


def test_the_host_is_never_more_than_so_many_steps_ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    launched: list[int] = []
    waited: list[int] = []

    class Event:
        def __init__(self, **_: bool) -> None:
            self.of: int | None = None

        def record(self) -> None:
            self.of = launched[-1]

        def synchronize(self) -> None:
            if self.of is not None:
                waited.append(self.of)

    monkeypatch.setattr(torch.cuda, "Event", Event)
    pace = Pace(torch.device("cuda"), ahead=3)
    for step in range(8):
        launched.append(step)
        pace.step()
        assert waited == list(range(step - 2))
    nothing = Pace(torch.device("cpu"))
    nothing.step()

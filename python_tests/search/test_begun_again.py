"""What config.json holds of a search is what begins it again, as `ddarts search --resume --out RUN` does."""

from __future__ import annotations

import json
from typing import Any

import pytest

from ddarts_ext.search import Searcher, methods
from ddarts_ext.search.methods.method import SETTINGS
from ddarts_ext.search.settings import arguments_of


def again(begun: Searcher, **more: Any) -> Searcher:
    stored = json.loads(json.dumps({**begun.config.to_json(), "source": begun.source, **more}))
    return Searcher(**arguments_of(stored), device="cpu")


@pytest.mark.parametrize("name", sorted(methods.METHODS))
def test_of_every_method(name: str) -> None:
    start = {"start": "ResNet18", "epochs": 12} if name == "dartopti" else {}
    begun = Searcher("digits", name, device="cpu", **start)
    assert again(begun).config == begun.config


def test_on_text() -> None:
    begun = Searcher("text", "darts", device="cpu", epochs=3)
    assert again(begun, text=begun.dataset.identity()).config == begun.config


@pytest.mark.parametrize("name", sorted(methods.METHODS))
def test_every_setting_takes_the_value_that_it_has(name: str) -> None:
    """What `--list` shows can be said with `--set`, where values are JSON."""
    method = methods.get(name)
    for part, settings in SETTINGS.items():
        held = getattr(method, part)
        for setting in settings if held is not None else ():
            value = json.loads(json.dumps(getattr(held, setting)))
            if value is not None:
                assert method.with_settings(**{setting: value}) == method, setting

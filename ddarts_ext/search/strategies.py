"""The strategy that serves a method and its data."""

from __future__ import annotations

from typing import Any

from ddarts_ext.data.text import is_text
from ddarts_ext.search import methods
from ddarts_ext.search.drawn import DrawnStrategy
from ddarts_ext.search.methods import Method
from ddarts_ext.search.shrinking.strategy import ShrinkingStrategy
from ddarts_ext.search.strategy import Strategy
from ddarts_ext.search.text.strategy import TextStrategy


def strategy_of(data: Any, method: str | Method | None) -> type[Strategy]:
    """By the data first: on text no method draws or shrinks. method: None where none is named."""
    if is_text(data):
        return TextStrategy
    found = methods.get(Strategy.usual if method is None else method) if not isinstance(method, Method) else method
    if found.random:
        return DrawnStrategy
    return Strategy if found.shrinking is None else ShrinkingStrategy

"""Where two configurations differ."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any


def differences(old: Any, new: Any, ignored: Collection[str] = (), path: str = "") -> Iterator[tuple[str, Any, Any]]:
    """The settings that differ: dotted path, old and new value. Lists are one value; ignored: paths that may differ."""
    if path in ignored:
        return
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        for key in sorted({*map(str, old), *map(str, new)}):
            yield from differences(old.get(key), new.get(key), ignored, f"{path}.{key}" if path else key)
    elif old != new or isinstance(old, bool) != isinstance(new, bool):
        yield path, old, new


def without(config: Mapping[str, Any], ignored: Collection[str], path: str = "") -> dict[str, Any]:
    """A configuration without the settings at these dotted paths, keys sorted."""
    kept = {}
    for key in sorted(config):
        place, value = (f"{path}.{key}" if path else key), config[key]
        if place not in ignored:
            kept[key] = without(value, ignored, place) if isinstance(value, Mapping) else value
    return kept


def short(value: Any) -> str:
    """A value as an error shows it."""
    text = " ".join(repr(value).split())
    return text if len(text) <= 60 else f"{text[:57]}..."

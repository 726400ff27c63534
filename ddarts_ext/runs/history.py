"""history.jsonl: one JSON object a line and finished epoch.

JSON has no numbers that are not finite. Infinity, which some figures are by definition (IS-DARTS measures it of the op
``none``), is written as the text "inf" or "-inf" and reads back as the number; NaN is nobody's result and refused.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from typing import Any

Record = dict[str, Any]

_INFINITE = {"inf": math.inf, "-inf": -math.inf}
LATER = ("discretisation",)
"""Keys that a record gets when the run is over."""


def encode(records: Sequence[Record]) -> bytes:
    """The lines of a file. Raises ValueError for NaN."""
    return b"".join(json.dumps(_plain(record, ""), allow_nan=False).encode() + b"\n" for record in records)


def decode(content: bytes, place: str) -> tuple[list[Record], str]:
    """The records up to the first line that is none, and what is wrong with that line (else empty)."""
    records: list[Record] = []
    for number, line in enumerate(content.split(b"\n"), start=1):
        if not line and number == content.count(b"\n") + 1:
            break
        try:
            record = _numbers(json.loads(line))
        except (ValueError, RecursionError):
            return records, f"{place}:{number} is not a whole line of JSON"
        if not isinstance(record, dict):
            return records, f"{place}:{number} must be an object, got {type(record).__name__}"
        if record.get("epoch") != len(records) or isinstance(record["epoch"], (bool, float)):
            return records, f"{place}:{number} must be of epoch {len(records)}, got {_short(record.get('epoch'))}"
        records.append(record)
    return records, ""


def fingerprint(records: Sequence[Record]) -> str:
    """Digest of records, but for what they get later."""
    kept = [{key: value for key, value in record.items() if key not in LATER} for record in records]
    return hashlib.blake2b(encode(kept), digest_size=16).hexdigest()


def _plain(value: Any, place: str) -> Any:
    if isinstance(value, float):
        if math.isnan(value):
            raise ValueError(f"history: {place.lstrip('.')} must be a number, got nan")
        return value if math.isfinite(value) else str(value)
    if isinstance(value, dict):
        return {key: _plain(item, f"{place}.{key}") for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item, f"{place}[{index}]") for index, item in enumerate(value)]
    return value


def _numbers(value: Any) -> Any:
    if isinstance(value, str):
        return _INFINITE.get(value, value)
    if isinstance(value, dict):
        return {key: _numbers(item) for key, item in value.items()}
    return [_numbers(item) for item in value] if isinstance(value, list) else value


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."

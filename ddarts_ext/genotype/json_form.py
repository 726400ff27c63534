"""The JSON form of a genotype: versioned, or as published."""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from ddarts_ext import spaces
from ddarts_ext.genotype.checks import MAX_NODES, shown
from ddarts_ext.genotype.published import Entry, darts_names

VERSION = 1
_ENTRY = re.compile(r"([A-Za-z0-9_]{1,100}):([0-9]{1,4})<-([0-9]{1,4})")
_KEYS = {"version", "inputs", "genes", "seq", "concat", "steps", "reductions"}


def parse_json(text: str, place: str) -> dict[str, Any]:
    """The JSON object in `text`."""
    try:
        data = json.loads(text)
    except (ValueError, RecursionError, MemoryError) as error:
        raise ValueError(f"genotype: {place} is not JSON: {error}") from error
    if not isinstance(data, dict):
        raise ValueError(f"genotype: {place} must be a JSON object, got {type(data).__name__}")
    return data


def to_json_lines(data: Mapping[str, Any]) -> str:
    """The JSON form with one cell a line."""
    genes = ",\n  ".join(json.dumps(cell) for cell in data["genes"])
    fields = [
        f'"{key}": ' + (f"[\n  {genes}\n ]" if key == "genes" else json.dumps(value)) for key, value in data.items()
    ]
    return "{\n " + ",\n ".join(fields) + "\n}\n"


def fields_from_json(data: Any, *, as_it_stands: bool = False) -> dict[str, Any]:
    """The fields of a genotype from the JSON form, with or without a version; types checked, values not.

    as_it_stands: whether fields of the published form are taken at their word (see :meth:`Genotype.from_json`).
    """
    if not isinstance(data, Mapping):
        raise ValueError(f"genotype: must be a JSON object, got {type(data).__name__}")
    if unknown := sorted(map(str, set(data) - _KEYS)):
        raise ValueError(f"genotype: unknown key {shown(unknown[0])}, expected some of {', '.join(sorted(_KEYS))}")
    if data.get("version", VERSION) != VERSION:
        raise ValueError(f"genotype: version must be {VERSION}, got {shown(data['version'])}")
    genes = data.get("genes")
    if not isinstance(genes, Sequence) or isinstance(genes, str):
        raise ValueError(f"genotype: genes must be a list of cells, got {shown(genes)}")
    fields: dict[str, Any] = {"genes": [_read_cell(f"genes[{i}]", cell) for i, cell in enumerate(genes)]}
    concat = data.get("concat")
    if isinstance(concat, list) and any(isinstance(nodes, list) for nodes in concat):
        fields["concats"] = tuple(_integers(f"concat[{i}]", nodes) for i, nodes in enumerate(concat))
    elif concat is not None:
        fields["concat"] = _integers("concat", concat)
    for key in ("seq", "reductions"):
        if data.get(key) is not None:
            fields[key] = _integers(key, data[key])
    for key in ("inputs", "steps"):
        if data.get(key) is not None:
            fields[key] = _integers(key, [data[key]])[0]
    return fields if "version" in data else _published(fields, as_it_stands)


def _published(fields: dict[str, Any], as_it_stands: bool) -> dict[str, Any]:
    """The form without a version: names of ops, and what published genotypes do not say of their networks."""
    genes = [darts_names(cell) for cell in fields["genes"]]
    fields = {**fields, "genes": genes}
    if as_it_stands:
        return fields
    ops = {op for cell in genes for op, _, _ in cell}
    darts, dartopti = (set(spaces.get(name).ops) for name in ("darts", "dartopti"))
    concat, reductions = fields.get("concat", ()), set(fields.get("reductions") or ())
    if ops & (dartopti - darts) and concat and min(concat) >= 0 and max(concat) < MAX_NODES:
        missing = set(range(fields.get("inputs", 2), max(concat))) - set(concat)
        fields["concat"] = tuple(sorted({*concat, *missing})) if missing else concat
    elif ops <= darts and len(reductions) == 2 and reductions <= set(range(len(fields.get("seq") or genes))):
        fields["reductions"] = None
    return fields


def _integers(place: str, values: Any) -> tuple[int, ...]:
    if not isinstance(values, Sequence) or isinstance(values, str):
        raise ValueError(f"genotype: {place} must be a list of integers, got {shown(values)}")
    for i, value in enumerate(values):
        if not isinstance(value, int) or isinstance(value, bool):
            raise ValueError(f"genotype: {place}[{i}] must be an integer, got {shown(value)}")
    return tuple(values)


def _read_cell(place: str, cell: Any) -> list[Entry]:
    if not isinstance(cell, Sequence) or isinstance(cell, str):
        raise ValueError(f"genotype: {place} must be a list of entries, got {shown(cell)}")
    return [_read_entry(f"{place}[{i}]", entry) for i, entry in enumerate(cell)]


def _read_entry(place: str, entry: Any) -> Entry:
    if isinstance(entry, str):
        if not (match := _ENTRY.fullmatch(entry)):
            raise ValueError(f'genotype: {place} must be "op:to<-from", got {shown(entry)}')
        return match[1], int(match[2]), int(match[3])
    if isinstance(entry, Sequence) and len(entry) == 3 and isinstance(entry[0], str):
        target, node = _integers(place, entry[1:])
        return entry[0], target, node
    raise ValueError(f'genotype: {place} must be "op:to<-from" or [op, to, from], got {shown(entry)}')

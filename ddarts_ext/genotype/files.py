"""Genotype files: finding, reading and writing them."""

import json
import os
import re
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from ddarts_ext.genotype.text import Entry

VERSION = 1
_ENTRY = re.compile(r"([A-Za-z0-9_]+):([0-9]{1,4})<-([0-9]{1,4})")
_KEYS = {"version", "inputs", "genes", "seq", "concat", "steps", "reductions"}


def architectures() -> tuple[str, ...]:
    """The names of the built-in architectures."""
    folder = resources.files("ddarts_ext.genotype") / "architectures"
    return tuple(sorted(entry.name[:-5] for entry in folder.iterdir() if entry.name.endswith(".json")))


def text_of(source: str | os.PathLike[str]) -> str:
    """The text behind a path, `FILE#NAME` or a built-in name."""
    path, _, member = os.fspath(source).partition("#")
    if os.path.isfile(os.path.join(path, "genotype.json")):
        path = os.path.join(path, "genotype.json")
    if os.path.isfile(path):
        try:
            text = Path(path).read_text(encoding="utf-8")
        except UnicodeDecodeError as error:
            raise ValueError(f"genotype: {path} must be a text file: {error}") from error
        if not text.lstrip().startswith("{"):
            return text
        data = parse_json(text, path)
        if "genes" in data:
            return text
        if member in data:
            return json.dumps(data[member])
        raise ValueError(
            f"genotype: {path} must be a genotype or FILE#NAME with one of {', '.join(data)}, got {os.fspath(source)!r}"
        )
    known = {name.lower(): name for name in architectures()}
    if path.lower() in known:
        name = known[path.lower()]
        return (resources.files("ddarts_ext.genotype") / "architectures" / f"{name}.json").read_text(encoding="utf-8")
    raise ValueError(f"genotype: must be a file or one of {', '.join(known.values())}, got {os.fspath(source)!r}")


def parse_json(text: str, place: str) -> dict[str, Any]:
    """The JSON object in `text`."""
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"genotype: {place} is not JSON: {error}") from error
    if not isinstance(data, dict):
        raise ValueError(f"genotype: {place} must be a JSON object, got {type(data).__name__}")
    return data


def to_lines(data: Mapping[str, Any]) -> str:
    """The JSON form with one cell a line."""
    genes = ",\n  ".join(json.dumps(cell) for cell in data["genes"])
    fields = [
        f'"{key}": ' + (f"[\n  {genes}\n ]" if key == "genes" else json.dumps(value)) for key, value in data.items()
    ]
    return "{\n " + ",\n ".join(fields) + "\n}\n"


def fields_from_json(data: Any) -> dict[str, Any]:
    """The fields of a genotype from the JSON form, with or without a version; types checked, values not."""
    if not isinstance(data, Mapping):
        raise ValueError(f"genotype: must be a JSON object, got {type(data).__name__}")
    if unknown := sorted(set(data) - _KEYS):
        raise ValueError(f"genotype: unknown key {unknown[0]!r}, expected some of {', '.join(sorted(_KEYS))}")
    if data.get("version", VERSION) != VERSION:
        raise ValueError(f"genotype: version must be {VERSION}, got {data['version']!r}")
    genes = data.get("genes")
    if not isinstance(genes, Sequence) or isinstance(genes, str):
        raise ValueError(f"genotype: genes must be a list of cells, got {genes!r}")
    fields: dict[str, Any] = {"genes": [_read_cell(f"genes[{i}]", cell) for i, cell in enumerate(genes)]}
    concat = data.get("concat")
    if isinstance(concat, Sequence) and not isinstance(concat, str) and any(isinstance(c, Sequence) for c in concat):
        fields["concats"] = tuple(_integers(f"concat[{i}]", nodes) for i, nodes in enumerate(concat))
        data = {key: value for key, value in data.items() if key != "concat"}
    for key in ("seq", "concat", "reductions"):
        if data.get(key) is not None:
            fields[key] = _integers(key, data[key])
    for key in ("inputs", "steps"):
        if key in data:
            fields[key] = _integers(key, [data[key]])[0]
    return fields


def _integers(place: str, values: Any) -> tuple[int, ...]:
    if not isinstance(values, Sequence) or isinstance(values, str):
        raise ValueError(f"genotype: {place} must be a list of integers, got {values!r}")
    for i, value in enumerate(values):
        if not isinstance(value, int) or isinstance(value, bool):
            raise ValueError(f"genotype: {place}[{i}] must be an integer, got {value!r}")
    return tuple(values)


def _read_cell(place: str, cell: Any) -> list[Entry]:
    if not isinstance(cell, Sequence) or isinstance(cell, str):
        raise ValueError(f"genotype: {place} must be a list of entries, got {cell!r}")
    return [_read_entry(f"{place}[{i}]", entry) for i, entry in enumerate(cell)]


def _read_entry(place: str, entry: Any) -> Entry:
    if isinstance(entry, str):
        if not (match := _ENTRY.fullmatch(entry)):
            raise ValueError(f'genotype: {place} must be "op:to<-from", got {entry!r}')
        return match[1], int(match[2]), int(match[3])
    if isinstance(entry, Sequence) and len(entry) == 3 and isinstance(entry[0], str):
        target, node = _integers(place, entry[1:])
        return entry[0], target, node
    raise ValueError(f'genotype: {place} must be "op:to<-from" or [op, to, from], got {entry!r}')

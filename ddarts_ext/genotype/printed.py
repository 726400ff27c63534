"""What `str` of a genotype writes, and how it is read back."""

import re
from collections.abc import Sequence
from typing import Any

from ddarts_ext import spaces
from ddarts_ext.genotype.cell import Cell
from ddarts_ext.genotype.checks import MAX_LAYERS, shown
from ddarts_ext.genotype.json_form import fields_from_json
from ddarts_ext.genotype.literals import Reader

_HEAD = re.compile(r"(\d{1,9}) cells, reductions (?=\[)")
_CELL = re.compile(r"cell (\d{1,9}) \((?:normal|reduction)\): ([^\n]*)")
_FIELD = re.compile(r"[^\S\n]*\r?\n[^\S\n]*(seq|concat|inputs|steps) (?=[\d\[])")


def to_lines(cells: Sequence[Sequence[object]], reductions: Sequence[int], fields: dict[str, Any]) -> str:
    """One line a cell, entries "op:to<-from", after a line with their number; then a line for each of `fields`."""
    lines = [f"{len(cells)} cells, reductions {list(reductions)}"]
    for i, cell in enumerate(cells):
        kind = "reduction" if i in reductions else "normal"
        lines.append(f"cell {i} ({kind}): {' '.join(map(str, cell)) or 'empty'}")
    lines += [f"{key} {value}" for key, value in fields.items()]
    return "\n".join(lines)


def fields_from_lines(text: str) -> dict[str, Any] | None:
    """The fields of the last genotype that stands in a text as :func:`to_lines` writes it; None without one.

    Reductions at thirds are the usual ones, whether they were left to be or given.
    """
    heads = list(_HEAD.finditer(text))
    if not heads:
        return None
    head = heads[-1]
    reader = Reader(text, head.end())
    reductions, count = reader.value("reductions"), int(head[1])
    if not 1 <= count <= MAX_LAYERS:
        raise ValueError(f"genotype: the text must have 1..{MAX_LAYERS} cells, got {count}")
    cells: list[list[str]] = []
    end = reader.position
    for line in _CELL.finditer(text, reader.position):
        if len(cells) == count or int(line[1]) != len(cells):
            break
        cells.append([] if line[2].strip() == "empty" else line[2].split())
        end = line.end()
    if len(cells) != count:
        raise ValueError(f"genotype: the text must have lines for all {count} cells, got {len(cells)} of them in order")
    fields: dict[str, Any] = {"version": 1, "genes": cells}
    while match := _FIELD.match(text, end):
        reader = Reader(text, match.end())
        fields[match[1]] = reader.value(match[1])
        end = reader.position
    if "seq" in fields:
        fields["genes"] = _shared(cells, fields["seq"])
    found = fields_from_json({**fields, "reductions": reductions})
    if found["reductions"] == spaces.third_reductions(count):
        found["reductions"] = None
    return found


def _shared(cells: list[list[str]], seq: Any) -> list[list[str]]:
    """The distinct cells, in the order of their numbers in seq."""
    numbers = seq if isinstance(seq, list) and all(type(number) is int for number in seq) else []
    first: dict[int, list[str]] = {}
    for number, cell in zip(numbers, cells, strict=False):
        first.setdefault(number, cell)
    if len(numbers) != len(cells) or set(first) != set(range(len(first))):
        raise ValueError(f"genotype: seq must number the {len(cells)} cells from 0 on, got {shown(seq)}")
    return [first[number] for number in range(len(first))]


def pair_texts(normal: Cell, reduce: Cell, concat: Sequence[int], reduce_concat: Sequence[int]) -> list[str]:
    """A normal and a reduction cell as DARTS prints them, where it can, and as FairDARTS does."""
    texts: list[list[list[tuple[Any, ...]]]] = []
    nodes = [[entry.target for entry in cell] for cell in (normal, reduce)]
    if all(found == [2 + i // 2 for i in range(len(found))] and len(found) % 2 == 0 for found in nodes):
        texts.append([[(entry.op, entry.source) for entry in cell] for cell in (normal, reduce)])
    texts.append([[tuple(entry) for entry in cell] for cell in (normal, reduce)])
    return [
        f"Genotype(normal={first}, normal_concat={list(concat)}, reduce={second}, reduce_concat={list(reduce_concat)})"
        for first, second in texts
    ]

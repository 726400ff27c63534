"""The strings of NAS-Bench-201."""

from collections.abc import Iterable, Sequence
from typing import Any

from ddarts_ext.genotype.checks import MAX_ENTRIES, MAX_NODES


def fields_from_nb201(text: str) -> dict[str, Any]:
    """The fields of a genotype of one cell from `|op~0|+|op~0|op~1|+...`: node j has one op from each earlier node."""
    if text.count("+") >= MAX_NODES - 1 or text.count("|") > MAX_ENTRIES:
        raise ValueError(f"genotype: the NB201 string must have fewer than {MAX_NODES} nodes and {MAX_ENTRIES} ops")
    entries: list[tuple[str, int, int]] = []
    for target, part in enumerate(text.strip().split("+"), start=1):
        if len(part) < 2 or not (part.startswith("|") and part.endswith("|")):
            raise ValueError(f"genotype: node {target} of the NB201 string must be |...|, got {part[:60]!r}")
        ops = part[1:-1].split("|")
        for source, item in enumerate(ops):
            op, _, number = item.partition("~")
            if not op or number != str(source):
                raise ValueError(
                    f"genotype: node {target} of the NB201 string: expected op~{source}, got {item[:60]!r}"
                )
            entries.append((op, target, source))
        if len(ops) != target:
            raise ValueError(f"genotype: node {target} of the NB201 string must have {target} ops, got {len(ops)}")
    return {"genes": (tuple(entries),), "seq": (0,), "concat": (entries[-1][1],), "reductions": (), "inputs": 1}


def nb201_to_text(cell: Iterable[Sequence[Any]], last: int) -> str:
    """The NB201 string of a cell whose every edge, up to node `last`, has exactly one op."""
    table: dict[tuple[int, int], str] = {}
    for op, target, source in cell:
        if (target, source) in table:
            raise ValueError(f"genotype: to_nb201 needs one op on every edge, got two on {target}<-{source}")
        table[target, source] = op
    for target in range(1, last + 1):
        for source in range(target):
            if (target, source) not in table:
                raise ValueError(f"genotype: to_nb201 needs one op on every edge, got none on {target}<-{source}")
    return "+".join(
        "|" + "|".join(f"{table[target, source]}~{source}" for source in range(target)) + "|"
        for target in range(1, last + 1)
    )

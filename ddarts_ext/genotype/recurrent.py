"""The published form of recurrent cells: `Genotype(recurrent=[('relu', 0), ...], concat=range(1, 9))`."""

from collections.abc import Mapping, Sequence
from typing import Any

from ddarts_ext.genotype.cell import Cell
from ddarts_ext.genotype.checks import shown


def fields_of_recurrent(fields: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a genotype from ``recurrent``, one (op, source) for every node from 1 on, and ``concat``."""
    entries = fields["recurrent"]
    if not isinstance(entries, list) or not entries:
        raise ValueError(f"genotype: recurrent must be a list of (op, source), got {shown(entries)}")
    for node, entry in enumerate(entries):
        if not isinstance(entry, list) or [type(part) for part in entry] != [str, int]:
            raise ValueError(f"genotype: recurrent[{node}] must be (op, source), got {shown(entry)}")
    concat = fields.get("concat")
    if not isinstance(concat, list) or not all(type(node) is int for node in concat):
        raise ValueError(
            f"genotype: the text must have concat= beside recurrent=, a list of nodes, got {shown(concat)}"
        )
    genes = [[(op, node + 1, source) for node, (op, source) in enumerate(entries)]]
    return {"genes": genes, "concat": concat, "inputs": 1, "reductions": (), "steps": len(entries)}


def recurrent_text(cell: Cell, concat: Sequence[int]) -> str:
    """The published form of a cell with an op for every node; of any other what reads as something else."""
    entries = [(entry.op, entry.source) for entry in sorted(cell, key=lambda entry: entry.target)]
    first, last = concat[0], concat[-1]
    run = tuple(range(first, last + 1)) == tuple(concat)
    return f"Genotype(recurrent={entries}, concat={f'range({first}, {last + 1})' if run else list(concat)})"

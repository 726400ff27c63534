"""The published forms of genotypes, from values that a text or a JSON file held."""

from collections.abc import Iterable, Sequence
from typing import Any

from ddarts_ext import spaces
from ddarts_ext.genotype.checks import check_layers, shown

Entry = tuple[str, int, int]

_PAIR = ("normal", "normal_concat", "reduce", "reduce_concat")
_AUTODL = {
    "dua_sepc_3x3": "sep_conv_3x3",
    "dua_sepc_5x5": "sep_conv_5x5",
    "dil_sepc_3x3": "dil_conv_3x3",
    "dil_sepc_5x5": "dil_conv_5x5",
}
"""AutoDL's names of the ops that its evaluation network shares with DARTS."""


def fields_from_call(arguments: Sequence[Any], keywords: dict[str, Any]) -> dict[str, Any]:
    """The fields of a printed namedtuple, `Genotype(normal=[...], ...)` or `Genotype(genes=[...], ...)`, as they stand.

    Positional arguments are taken in the published order of fields.
    """
    fields = dict(keywords)
    if arguments:
        names = _positions(arguments)
        if len(names) != len(arguments) or set(names) & set(fields):
            raise ValueError(
                "genotype: the text must have keyword arguments normal= and reduce=, or genes=, "
                f"got {len(arguments)} positional ones"
            )
        fields |= dict(zip(names, arguments, strict=True))
    return checked(fields)


def checked(fields: dict[str, Any]) -> dict[str, Any]:
    """The fields that are given, if they are those of a genotype: of a pair of cells, or genes."""
    if not {"normal", "genes", "recurrent"} & set(fields):
        got = ", ".join(map(str, list(fields)[:10]))[:200] or "nothing"
        raise ValueError(f"genotype: the text must have normal=/reduce=, genes= or recurrent=, got {got}")
    return {key: value for key, value in fields.items() if value is not None}


def pair_of_cells(fields: dict[str, Any]) -> dict[str, Any]:
    """normal, reduce as lists of (op, target, source), and their concats, from the fields of a normal/reduce pair."""
    missing = [key for key in _PAIR[1:] if fields.get(key) is None]
    if missing:
        raise ValueError(f"genotype: the text must have {missing[0]}= beside normal=")
    return {key: _nodes(key, fields[key]) if key.endswith("concat") else _entries(key, fields[key]) for key in _PAIR}


def fields_of_network(
    normal: Iterable[Entry],
    reduce: Iterable[Entry],
    layers: int,
    concat: Sequence[int],
    reduce_concat: Sequence[int] | None = None,
) -> dict[str, Any]:
    """The fields of a genotype of `layers` cells from a normal and a reduction cell, entries (op, target, source)."""
    check_layers(layers)
    thirds = spaces.third_reductions(layers)
    genes = (tuple(normal), tuple(reduce))
    concats = tuple(concat), tuple(concat if reduce_concat is None else reduce_concat)
    last = max((*concats[0], *concats[1], *(target for cell in genes for _, target, _ in cell)), default=2)
    return {
        "genes": genes,
        "seq": tuple(int(i in thirds) for i in range(layers)),
        "concats": concats,
        "steps": last - 1,
    }


def fields_from_tuples(value: Any) -> dict[str, Any] | None:
    """The fields of (normal, normal_concat, reduce, reduce_concat), or of NAS-Bench-301's two cells of (source, op)."""
    if not isinstance(value, list) or not all(isinstance(item, list) and item for item in value):
        return None
    if len(value) == 4:
        return dict(zip(_PAIR, value, strict=True))
    if len(value) == 2 and all(isinstance(pair, list) for cell in value for pair in cell):
        normal, reduce = _by_index("normal", value[0]), _by_index("reduce", value[1])
        return dict(zip(_PAIR, (normal, [2, 3, 4, 5], reduce, [2, 3, 4, 5]), strict=True))
    return None


def darts_names(entries: list[Entry]) -> list[Entry]:
    """Entries with AutoDL's names of ops replaced by those of DARTS."""
    return [(_AUTODL.get(op, op), target, source) for op, target, source in entries]


def _positions(arguments: Sequence[Any]) -> tuple[str, ...]:
    """The field names that positional arguments stand for: cells nested in the first one, or a normal cell."""
    nested = [isinstance(a, list) and bool(a) and isinstance(a[0], list) and _deep(a[0]) for a in arguments]
    # A cell with a list for every node nests as deep as a list of cells; what follows is a reduction cell then.
    if nested[0] and not (len(arguments) == 4 and isinstance(arguments[2], list) and _deep(arguments[2])):
        return ("genes", "seq", "concat", "reductions") if len(arguments) == 4 else ("genes", "concat", "reductions")
    return _PAIR


def _deep(value: list[Any]) -> bool:
    return bool(value) and isinstance(value[0], list)


def _nodes(place: str, value: Any) -> list[int]:
    if not isinstance(value, list) or not all(type(node) is int for node in value):
        raise ValueError(f"genotype: {place} must be a list of nodes, got {shown(value)}")
    return value


def _entries(place: str, items: Any) -> list[Entry]:
    """Triples (op, target, source) as they are; pairs (op, source) go two by two into nodes 2, 3, ...

    Where the list holds one list a node, they go into theirs. A number with a point beside an op is its weight.
    """
    if not isinstance(items, list):
        raise ValueError(f"genotype: {place} must be a list, got {shown(items)}")
    if items and all(isinstance(item, list) and (not item or isinstance(item[0], list)) for item in items):
        placed = [(f"{place}[{n}][{i}]", n + 2, item) for n, node in enumerate(items) for i, item in enumerate(node)]
    else:
        placed = [(f"{place}[{i}]", i // 2 + 2, item) for i, item in enumerate(items)]
    entries: list[Entry] = []
    length = 0
    for inner, node, item in placed:
        fields = [part for part in item if not isinstance(part, float)] if isinstance(item, list) else []
        kinds = [type(part) for part in fields]
        if kinds not in ([str, int], [str, int, int]):
            raise ValueError(f"genotype: {inner} must be (op, source) or (op, target, source), got {shown(item)}")
        if length not in (0, len(fields)):
            raise ValueError(f"genotype: {inner} must be as long as {place}[0], got {shown(item)}")
        length = len(fields)
        entries.append((fields[0], fields[1] if length == 3 else node, fields[-1]))
    return darts_names(entries)


def _by_index(place: str, pairs: list[Any]) -> list[Any]:
    """(op, source) of NAS-Bench-301's (source, number of the op), in the order of the space without `none`."""
    ops = spaces.get("darts").ops
    found = []
    for i, pair in enumerate(pairs):
        if [type(number) for number in pair] != [int, int] or not 0 <= pair[1] < len(ops):
            raise ValueError(
                f"genotype: {place}[{i}] must be (source, number of the op in 0..{len(ops) - 1}), got {shown(pair)}"
            )
        found.append([ops[pair[1]], pair[0]])
    return found

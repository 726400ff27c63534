"""Readers of the text forms in which genotypes were published. They parse; nothing is evaluated."""

import ast
from collections.abc import Iterable, Sequence
from typing import Any

Entry = tuple[str, int, int]


def published_from_text(text: str) -> dict[str, Any]:
    """The fields of a printed namedtuple, `Genotype(normal=[...], ...)` or `Genotype(genes=[...], ...)`.

    A normal/reduce pair gives normal, reduce (lists of (op, target, source)) and concat; a nested or opt genotype
    gives genes, concat and, where present, seq and reductions. An assignment `NAME = Genotype(...)` may stand around.
    Positional arguments are taken in the published order of fields.
    """
    fields = {key: _value(key, node) for key, node in _call(text).items()}
    if "normal" in fields:
        return _pair(fields)
    if "genes" not in fields:
        raise ValueError(
            f"genotype: the text must have normal=/reduce= or genes=, got {', '.join(fields) or 'nothing'}"
        )
    return {key: value for key, value in fields.items() if value is not None}


def _call(text: str) -> dict[str, ast.expr]:
    """The arguments of the one call that the text consists of."""
    try:
        body = ast.parse(text.strip()).body
    except SyntaxError as error:
        raise ValueError(f"genotype: text line {error.lineno}: {error.msg}") from error
    except (ValueError, RecursionError, MemoryError) as error:
        raise ValueError(f"genotype: the text cannot be parsed: {error}") from error
    node = body[0] if len(body) == 1 else None
    value = node.value if isinstance(node, ast.Expr | ast.Assign) else None
    if not isinstance(value, ast.Call):
        raise ValueError("genotype: the text must be one Genotype(...), an NB201 string or JSON")
    fields = {keyword.arg: keyword.value for keyword in value.keywords if keyword.arg}
    if value.args:
        names = _positions(value.args)
        if len(names) != len(value.args):
            raise ValueError(f"genotype: the text must have keyword arguments, got {len(value.args)} positional ones")
        fields |= dict(zip(names, value.args, strict=True))
    return fields


def _positions(arguments: Sequence[ast.expr]) -> tuple[str, ...]:
    """The field names that positional arguments stand for: cells nested in the first one, or a normal cell."""
    first = arguments[0]
    if isinstance(first, ast.List) and first.elts and isinstance(first.elts[0], ast.List):
        return ("genes", "seq", "concat", "reductions") if len(arguments) == 4 else ("genes", "concat", "reductions")
    return ("normal", "normal_concat", "reduce", "reduce_concat")


def _value(place: str, node: ast.expr) -> Any:
    """A literal, also range(a, b) and list(range(a, b))."""
    if isinstance(node, ast.List | ast.Tuple):
        return [_value(f"{place}[{i}]", item) for i, item in enumerate(node.elts)]
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and not node.keywords:
        arguments = [_value(place, item) for item in node.args]
        if node.func.id == "range" and 1 <= len(arguments) <= 3 and all(isinstance(a, int) for a in arguments):
            nodes = range(*arguments)
            if len(nodes) <= 1000:
                return list(nodes)
        if node.func.id in ("list", "tuple") and len(arguments) == 1 and isinstance(arguments[0], list):
            return arguments[0]
    if isinstance(node, ast.Constant) and (node.value is None or type(node.value) in (str, int)):
        return node.value
    raise ValueError(f"genotype: {place} must be a name, a number, a list or range(...), got {ast.unparse(node)}")


def _pair(fields: dict[str, Any]) -> dict[str, Any]:
    missing = [key for key in ("normal_concat", "reduce", "reduce_concat") if key not in fields]
    if missing:
        raise ValueError(f"genotype: the text must have {missing[0]}= beside normal=")
    if sorted(fields["normal_concat"]) != sorted(fields["reduce_concat"]):
        raise ValueError(
            "genotype: reduce_concat must equal normal_concat, "
            f"got {fields['reduce_concat']} and {fields['normal_concat']}"
        )
    return {
        "normal": _entries("normal", fields["normal"]),
        "reduce": _entries("reduce", fields["reduce"]),
        "concat": fields["normal_concat"],
    }


def _entries(place: str, items: Any) -> list[Entry]:
    """Triples (op, target, source) as they are; pairs (op, source) go two by two into nodes 2, 3, ..."""
    if not isinstance(items, list):
        raise ValueError(f"genotype: {place} must be a list, got {items!r}")
    entries: list[Entry] = []
    for i, item in enumerate(items):
        if not (isinstance(item, list) and len(item) in (2, 3) and isinstance(item[0], str)) or not all(
            isinstance(number, int) for number in item[1:]
        ):
            raise ValueError(f"genotype: {place}[{i}] must be (op, source) or (op, target, source), got {item!r}")
        if len(item) != len(items[0]):
            raise ValueError(f"genotype: {place}[{i}] must be as long as {place}[0], got {item!r}")
        entries.append((item[0], item[1], item[2]) if len(item) == 3 else (item[0], i // 2 + 2, item[1]))
    return entries


def nb201_from_text(text: str) -> list[Entry]:
    """The entries (op, target, source) of `|op~0|+|op~0|op~1|+...`: node j has one op from each earlier node."""
    entries: list[Entry] = []
    for target, part in enumerate(text.strip().split("+"), start=1):
        if not (part.startswith("|") and part.endswith("|")):
            raise ValueError(f"genotype: node {target} of the NB201 string must be |...|, got {part!r}")
        ops = part[1:-1].split("|")
        for source, item in enumerate(ops):
            op, _, number = item.partition("~")
            if not op or number != str(source):
                raise ValueError(f"genotype: node {target} of the NB201 string: expected op~{source}, got {item!r}")
            entries.append((op, target, source))
        if len(ops) != target:
            raise ValueError(f"genotype: node {target} of the NB201 string must have {target} ops, got {len(ops)}")
    return entries


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

"""Finding a genotype in text: what papers publish, codes print and people paste. Nothing is evaluated.

What is known: `Genotype(...)` with or without a name before it, in Python files and in logs; the same as a dictionary
(AutoDL) or as tuples (NAS-Bench-301); NAS-Bench-201 strings; and what `str` of a :class:`Genotype` writes.
"""

import re
from typing import Any

from ddarts_ext.genotype.checks import check_layers
from ddarts_ext.genotype.json_form import fields_from_json, parse_json
from ddarts_ext.genotype.literals import Reader
from ddarts_ext.genotype.nb201 import fields_from_nb201
from ddarts_ext.genotype.printed import fields_from_lines
from ddarts_ext.genotype.published import (
    checked,
    fields_from_call,
    fields_from_tuples,
    fields_of_network,
    pair_of_cells,
)
from ddarts_ext.genotype.recurrent import fields_of_recurrent

MAX_TEXT = 8_000_000
"""Characters of a text; a log of a search has some hundred thousand."""

_CALL = re.compile(
    r"(?:\b(\w{1,100})[ \t]{0,20}=[ \t]{0,20}(?:\\\n\s{0,20})?)?(?<![\w.])([A-Za-z_][\w.]{0,100})[ \t]{0,20}\("
)
_ARGUMENTS = re.compile(r"\s{0,200}(?:[A-Za-z_]\w{0,99}\s{0,99}=(?!=)|[\[(])")
_OWN = re.compile(r"\s{0,200}(?:normal|reduce|genes|recurrent)\s{0,99}=(?!=)")
_DICTIONARY = re.compile(r"(?:\b(\w{1,100})[ \t]{0,20}=[ \t]{0,20})?\{\s{0,200}['\"](?:normal|genes)['\"]\s{0,20}:")
_NB201 = re.compile(r"\|\w{1,100}~0\|(?:\+\|(?:\w{1,100}~\d{1,3}\|){1,999}){0,999}")
_ALIAS = r"^[ \t]*{}[ \t]*=[ \t]*([A-Za-z_]\w*)[ \t]*(?:#.*)?$"


def fields_from_text(text: str, *, layers: int, as_it_stands: bool = False, name: str = "") -> dict[str, Any]:
    """The fields of the genotype in a text, as the arguments of :class:`Genotype`.

    layers: the number of cells for a normal/reduce pair. name: which one of several, by the name that it is assigned
    to. Where a name, or none, comes several times, as in the log of a search, the last one counts. Raises ValueError
    where there is none, or where a name is needed.
    """
    check_layers(layers)
    if len(text) > MAX_TEXT:
        raise ValueError(f"genotype: the text must have at most {MAX_TEXT} characters, got {len(text)}")
    text = text.lstrip("\ufeff").strip()
    if text.startswith("|"):
        return fields_from_nb201(text)
    fields = _json(text) if text.startswith("{") else None
    if fields is None:
        found = _places(text)
        if not found and not name:
            return fields_from_lines(text) or _strings(text) or _finished(_bare(text), layers, as_it_stands)
        fields = _read(text, _chosen(text, name, found))
    return _finished(fields, layers, as_it_stands)


def _json(text: str) -> dict[str, Any] | None:
    """What JSON text holds; None for a dictionary as Python prints it."""
    try:
        return parse_json(text, "the text")
    except ValueError:
        if _DICTIONARY.match(text):
            return None
        raise


def _strings(text: str) -> dict[str, Any] | None:
    """The last string of NAS-Bench-201 in a text."""
    strings = _NB201.findall(text)
    return fields_from_nb201(strings[-1]) if strings else None


def _finished(fields: dict[str, Any], layers: int, as_it_stands: bool) -> dict[str, Any]:
    if "recurrent" in fields:
        return fields_of_recurrent(fields)
    if "normal" not in fields:
        return fields_from_json(fields, as_it_stands=as_it_stands)
    pair = pair_of_cells(fields)
    return fields_of_network(pair["normal"], pair["reduce"], layers, pair["normal_concat"], pair["reduce_concat"])


def _chosen(text: str, name: str, found: dict[str, int]) -> int:
    if name:
        return found[_resolved(text, name, found)]
    if len(found) > 1:
        raise ValueError(f"genotype: the text must be one genotype, or FILE#NAME with one of {_list(found)}")
    return next(iter(found.values()))


def _places(text: str) -> dict[str, int]:
    """Where genotypes begin, by the name they are assigned to (empty: none); commented ones if there are only such."""
    found: dict[str, int] = {}
    commented: dict[str, int] = {}
    for match in _CALL.finditer(text):
        # Calls of other names count where their arguments tell.
        known = "genotype" in match[2].lower() and _ARGUMENTS.match(text, match.end())
        if known or _OWN.match(text, match.end()):
            before = text[max(0, match.start() - 200) : match.start()].rpartition("\n")[2].lstrip()
            if not before.startswith(("def ", "class ")):
                (commented if before.startswith("#") else found)[_name(match[1])] = match.end() - 1
    for match in _DICTIONARY.finditer(text):
        found[_name(match[1])] = text.index("{", match.start())
    return found or commented


def _name(assigned: str | None) -> str:
    """`genotype = ` is how logs begin, no name of one among many."""
    return "" if assigned is None or assigned.lower() == "genotype" else assigned


def _resolved(text: str, name: str, found: dict[str, int]) -> str:
    """The name of a genotype that is there, through assignments `NAME = OTHER`."""
    other = _name(name)
    for _ in range(20):
        if other in found:
            break
        aliases = re.findall(_ALIAS.format(re.escape(other)), text, re.MULTILINE)
        other = aliases[-1] if aliases else other
    if other not in found:
        raise ValueError(f"genotype: the text must have a genotype {name[:60]!r}, got {_list(found)}")
    return other


def _read(text: str, position: int) -> dict[str, Any]:
    reader = Reader(text, position)
    if text[position] == "{":
        return checked(reader.value("the text"))
    return fields_from_call(*reader.call())


def _bare(text: str) -> dict[str, Any]:
    """Tuples that are the whole text; whatever else is refused by what it looks like."""
    text = re.sub(r"^\s{0,200}\w{1,200}\s{0,20}=\s{0,20}(?=[(\[])", "", text, count=1).strip()
    if call := _CALL.match(text):
        raise ValueError(
            f"genotype: the text must have keyword arguments normal= and reduce=, or genes=, got {call[2][:60]}(...)"
        )
    fields = None
    if text.startswith(("(", "[")):
        reader = Reader(text)
        fields = fields_from_tuples(reader.value("the text"))
        if fields and text[reader.position :].strip(" ,"):
            fields = None
    if fields is None:
        shown = text[:60].split("\n")[0]
        raise ValueError(f"genotype: the text must be one Genotype(...), an NB201 string or JSON, got {shown!r}")
    return fields


def _list(found: dict[str, int]) -> str:
    """Names of genotypes for an error: not more than a person reads."""
    names = [name or "one without name" for name in found]
    return (", ".join(names[:20]) + (f" and {len(names) - 20} more" if len(names) > 20 else "")) or "none"

"""Writes the arguments of the Searcher and the Trainer as types, from where they are declared.

    python scripts/write_arguments.py

What can be said of a run is a field of a dataclass (``ddarts_ext/runs/options.py``); type checkers need it written out.
A test compares the files with what this writes.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import UnionType
from typing import Any, Union, get_args, get_origin

ROOT = Path(__file__).resolve().parents[1]

HEAD = '''"""The arguments of {who}, as type checkers read them. Written by scripts/write_arguments.py."""

from __future__ import annotations

{imports}
'''
WIDTH = 120
KINDS = {
    "start": "Start | Genotype | str | Path",
    "alpha_optimizer": 'Literal["adam", "sgd"] | OptimizerFactory',
    "class_weights": 'Sequence[float] | Literal["balanced"]',
}
"""Arguments that take more than their fields hold."""


def kind_of(option: Any) -> str:
    """The type of an argument, as text; None, for what is not said, is added by the caller."""
    if option.name in KINDS:
        return KINDS[option.name]
    if option.choices:
        return literal(option.choices)
    return text_of(option.plain_kind)


def literal(values: Iterable[str]) -> str:
    return f"Literal[{', '.join(f'{chr(34)}{value}{chr(34)}' for value in values)}]"


def text_of(kind: Any) -> str:
    if get_origin(kind) in (Union, UnionType):
        return " | ".join(text_of(part) for part in get_args(kind))
    if get_origin(kind) is tuple:
        inner = dict.fromkeys(text_of(part) for part in get_args(kind) if part is not Ellipsis)
        return f"Sequence[{' | '.join(inner)}]"
    return str(kind.__name__)


def typed(name: str, base: str, doc: str, entries: Mapping[str, str]) -> str:
    """A TypedDict."""
    lines = [f"class {name}({base}, total=False):", f'    """{doc}"""', ""]
    return "\n".join([*lines, *(f"    {key}: {kind}" for key, kind in entries.items())]) + "\n"


def alias(name: str, values: Iterable[str]) -> str:
    return f"{name} = {literal(values)}\n"


def explicit(kind: type) -> dict[str, str]:
    """The arguments that a constructor names itself, by name."""
    parameters = list(inspect.signature(kind.__init__).parameters.values())[1:]  # type: ignore[misc]
    return {p.name: str(p.annotation) for p in parameters if p.kind is not inspect.Parameter.VAR_KEYWORD}


def settings(options: Mapping[str, Any], named: Iterable[str]) -> dict[str, str]:
    return {name: f"{kind_of(known)} | None" for name, known in options.items() if name not in set(named)}


def search_text() -> str:
    from ddarts_ext.search import Searcher
    from ddarts_ext.search.methods import METHODS
    from ddarts_ext.search.settings import OPTIONS

    named = explicit(Searcher)
    imports = """from collections.abc import Sequence
from pathlib import Path
from typing import Literal, TypedDict

from ddarts_ext.data import Augmentation
from ddarts_ext.genotype import Genotype
from ddarts_ext.genotype.start import Start
from ddarts_ext.runs.optimizers import OptimizerFactory
"""
    return "\n".join(
        [
            HEAD.format(who="the Searcher", imports=imports).rstrip() + "\n",
            alias("MethodName", METHODS) + "\n",
            typed(
                "SearchArguments",
                "TypedDict",
                "What a search may be told beside what the constructor names.",
                {**settings(OPTIONS, named), "augmentation": "Augmentation"},
            ),
        ]
    )


def train_text() -> str:
    from ddarts_ext.data.augment import POLICIES
    from ddarts_ext.training.config import OPTIONS
    from ddarts_ext.training.recipes import NAMES
    from ddarts_ext.training.text.config import OPTIONS as TEXT
    from ddarts_ext.training.trainer import Trainer

    imports = """from collections.abc import Sequence
from typing import Literal, TypedDict

from ddarts_ext.data import Augmentation
from ddarts_ext.data.transforms import Transforms
"""
    of_text = settings(TEXT, explicit(Trainer))
    entries = settings(OPTIONS, explicit(Trainer))
    for name in of_text.keys() & entries.keys():
        assert of_text[name] == entries[name], f"{name} must be of one type for images and for text"
    entries |= of_text
    entries["recipe"] = f"{literal(NAMES)} | None"
    entries["autoaugment"] = f"{literal((*POLICIES, 'none'))} | None"
    return "\n".join(
        [
            HEAD.format(who="the Trainer", imports=imports),
            typed(
                "TrainArguments",
                "TypedDict",
                "What a training may be told beside what the constructor names.",
                {**entries, "augmentation": "Augmentation", "transforms": "Transforms"},
            ),
        ]
    )


FILES = {"ddarts_ext/search/arguments.py": search_text, "ddarts_ext/training/arguments.py": train_text}


def folded(text: str) -> str:
    """With long lists one item a line, as the formatter has them."""
    lines = []
    for line in text.splitlines():
        before, mark, after = line.partition("Literal[")
        if len(line) <= WIDTH or not mark:
            lines.append(line)
            continue
        items, _, rest = after.rpartition("]")
        inner = " " * (len(line) - len(line.lstrip()) + 4)
        if rest:  # "| None"
            options = [f"{inner}    {item}," for item in items.split(", ")]
            lines += [
                f"{before}(",
                f"{inner}Literal[",
                *options,
                f"{inner}]",
                f"{inner}{rest.strip()}",
                f"{inner[4:]})",
            ]
        else:
            lines += [f"{before}Literal[", *(f"{inner}{item}," for item in items.split(", ")), f"{inner[4:]}]"]
    return "\n".join(lines) + "\n"


def texts() -> dict[str, str]:
    """What every file holds."""
    return {name: folded(write()) for name, write in FILES.items()}


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    for name, text in texts().items():
        (ROOT / name).write_text(text, encoding="utf-8")
        print(name)

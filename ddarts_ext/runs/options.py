"""What a caller may say of a run, declared once, as a field of a dataclass.

The signature of a constructor, the options of a command, the fields of config.json and what a resumed run takes from it
all follow from these declarations.
"""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Collection, Mapping
from dataclasses import MISSING, dataclass, field, fields
from types import UnionType
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

import numpy as np

Class = TypeVar("Class", bound=type)


def value_of(name: str, text: str) -> Any:
    """What the text of a setting stands for: a number, a list, true, null as JSON has them, else the text itself.

    Raises ValueError for lists or dictionaries within each other that are too many to be read.
    """
    import json

    try:
        return json.loads(text)
    except RecursionError:
        got = f"{text[:20]}... of {len(text)} characters"
        raise ValueError(f"{name} must be a value of few levels, got {got}") from None
    except ValueError:
        return text


def said_in(given: Mapping[str, Any]) -> dict[str, Any]:
    """What was said of ``given``, None for "not said": numbers of NumPy as those of Python that they are."""
    return {name: _plain(value) for name, value in given.items() if value is not None}


def _plain(value: Any) -> Any:
    if type(value) in (list, tuple):  # and no named tuple
        return type(value)(map(_plain, value))
    return value.item() if isinstance(value, np.generic) else value


def unknown_setting(command: str, name: str, known: Collection[str]) -> TypeError:
    """The error for a setting that is none of ``known``, with those that resemble it."""
    near = [repr(one) for one in difflib.get_close_matches(name, known, n=3, cutoff=0.6)]
    meant = f"; did you mean {' or '.join(filter(None, (', '.join(near[:-1]), near[-1])))}?" if near else ""
    return TypeError(
        f"{command}: setting must be one of those that ddarts {command} --list shows, got {name[:60]!r}{meant}"
    )


@dataclass(frozen=True)
class Option:
    """One thing that can be said.

    kind: its type, None included where None is a value of it. default: of the field. home: the path to its value in
    config.json. help: for the command line. shown: what stands for the default where it depends on the method or the
    data. command: it has an option of its own on the command line; others go through ``--set``. choices: of a text.
    """

    name: str
    kind: Any
    default: Any
    home: tuple[str, ...]
    help: str = ""
    shown: str = ""
    command: bool = False
    choices: tuple[str, ...] = ()

    @property
    def plain_kind(self) -> Any:
        """The type without None."""
        if get_origin(self.kind) not in (Union, UnionType):
            return self.kind
        kinds = [kind for kind in get_args(self.kind) if kind is not type(None)]
        return kinds[0] if len(kinds) == 1 else Union[tuple(kinds)]  # noqa: UP007

    def value_in(self, config: Mapping[str, Any]) -> Any:
        """What a config.json says of it; None where it says nothing."""
        value: Any = config
        for key in self.home:
            value = None if value is None else value.get(key)
        return value


# Said of every run on images.
IMAGE_SIZE = "Side in pixels of the square that the images of a folder are scaled and cut to."
SHOWN_SIZE = "the median height and width of the files, at most 224"
SYNC_NORMS = "With several ranks, norms take the statistics of the whole batch, and not of a rank's part of it."
STEM = "cifar keeps the size of images; imagenet takes an eighth of it, imagenet_stride4 a quarter."
SHOWN_STEM = "cifar; imagenet above 64 pixels"


def option(default: Any, help: str = "", **about: Any) -> Any:
    """A dataclass field with what :class:`Option` says of it; with ``help`` it has an option of its own."""
    return field(default=default, metadata={"help": help, "command": bool(help), **about})


def declared(kind: type, *home: str, names: Collection[str] | None = None) -> dict[str, Option]:
    """The fields of a dataclass as options, by name; ``names``: those alone. home: where config.json has its values."""
    hints = get_type_hints(kind)
    return {
        item.name: Option(
            item.name,
            hints[item.name],
            None if item.default is MISSING else item.default,
            home=(*home, item.name),
            **item.metadata,
        )
        for item in fields(kind)
        if names is None or item.name in names
    }


def takes(options: Mapping[str, Option]) -> Callable[[Class], Class]:
    """Class decorator: show ``options`` in the signature of a constructor that takes them as ``**settings``."""

    def decorate(cls: Class) -> Class:
        shown = inspect.signature(cls.__init__)  # type: ignore[misc]
        _, *parameters = shown.parameters.values()
        own = [p for p in parameters if p.kind is not inspect.Parameter.VAR_KEYWORD]
        rest = [p for p in parameters if p.kind is inspect.Parameter.VAR_KEYWORD]
        said = [
            inspect.Parameter(
                known.name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=known.plain_kind | None
            )
            for known in options.values()
            if known.name not in shown.parameters
        ]
        cls.__signature__ = shown.replace(parameters=[*own, *said, *rest])  # type: ignore[attr-defined]
        return cls

    return decorate

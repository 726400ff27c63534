"""What is compared, and how: plain data, so that it can be written down and handed to other processes."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, NamedTuple

from ddarts_ext.runs.options import value_of
from ddarts_ext.search import methods
from ddarts_ext.tables.nasbench201 import DATASETS

PROTOCOLS = ("all", "best")

CONFIGURATION = ("edges_per_node", "edges_per_cell", "ops_per_edge")
"""Settings that say of what form a discrete cell is."""


@dataclass(frozen=True)
class Contender:
    """One line of the table: a method with its settings, searched with several seeds.

    method: a registered name. settings: arguments of the Searcher. label: how it is called, by default as it is
    written: ``ddarts`` or ``ddarts:ablation_weight=0``.
    """

    method: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    label: str = ""

    def __post_init__(self) -> None:
        methods.get(self.method)
        if not self.label:
            said = ",".join(f"{name}={json.dumps(value)}" for name, value in self.settings.items())
            object.__setattr__(self, "label", f"{self.method}:{said}" if said else self.method)

    @classmethod
    def parse(cls, text: str) -> Contender:
        """``NAME``, ``NAME:SETTING=VALUE,...`` or ``LABEL=NAME:SETTING=VALUE,...``; values read as JSON, else text."""
        before, colon, after = text.partition(":")
        label, equals, name = before.rpartition("=")
        settings: dict[str, Any] = {}
        # Lists have commas of their own.
        for part in filter(None, re.split(r",(?=[^\W\d]\w*=)", after)) if colon else ():
            key, given, value = part.partition("=")
            if not given or not key.isidentifier():
                raise ValueError(f"compare: method must be NAME:SETTING=VALUE,..., got {text!r}")
            settings[key] = value_of(f"compare: {key}", value)
        return cls(name, settings, label if equals else text)


class Search(NamedTuple):
    """One search of a contender."""

    contender: int
    seed: int


class Training(NamedTuple):
    """One training of what a search found."""

    search: Search
    seed: int
    short: bool = False


@dataclass(frozen=True)
class Plan:
    """A comparison.

    data: a name or path of images. contenders: what is compared. seeds: searches of each. random: so many random
    architectures of the space, the sharing and the first rule of the first contender; 0 for none. search: arguments of
    every Searcher, such as ``epochs``. train: settings of every Trainer. train_seeds: trainings of each result.
    holdout: part of the training images on which results are chosen; neither search nor training sees it, nor are
    they chosen by the test images. protocol: ``all`` trains every result; ``best`` trains them for ``short_epochs``
    first and then, of each contender, the one best on the held-out part (DARTS, section 3.2: 4 seeds).

    table: a file of NAS-Bench-201, in which results are looked up: nothing is trained or held out, and a result is
    chosen by the table's validation accuracy on ``table_data`` and judged by its test accuracy.
    """

    data: str
    contenders: tuple[Contender, ...]
    seeds: int = 3
    random: int = 10
    search: Mapping[str, Any] = field(default_factory=dict)
    train: Mapping[str, Any] = field(default_factory=dict)
    train_seeds: int = 1
    holdout: float = 0.2
    protocol: str = "all"
    short_epochs: int = 10
    seed: int = 0
    table: str | None = None
    table_data: str = "cifar10"

    def __post_init__(self) -> None:
        if not self.contenders:
            raise ValueError("compare: methods must be one or more, got none")
        for name in ("seeds", "train_seeds", "short_epochs"):
            if getattr(self, name) < 1:
                raise ValueError(f"compare: {name} must be >= 1, got {getattr(self, name)}")
        if self.random < 0:
            raise ValueError(f"compare: random must be >= 0, got {self.random}")
        if not 0 < self.holdout < 1:
            raise ValueError(f"compare: holdout must be between 0 and 1, got {self.holdout}")
        if self.protocol not in PROTOCOLS:
            raise ValueError(f"compare: protocol must be one of {', '.join(PROTOCOLS)}, got {self.protocol!r}")
        if self.table_data not in DATASETS:
            raise ValueError(f"compare: table_data must be one of {', '.join(DATASETS)}, got {self.table_data!r}")
        if self.table is not None:
            for name, usual in (("train", {}), ("train_seeds", 1), ("protocol", "all")):
                if getattr(self, name) != usual:
                    raise ValueError(
                        f"compare: {name} must be left as it is where a table is looked up in, which trains nothing, "
                        f"got {getattr(self, name)!r}"
                    )
        labels = [contender.label for contender in self.all]
        if len(set(labels)) < len(labels):
            twice = next(label for i, label in enumerate(labels) if label in labels[:i])
            raise ValueError(f"compare: methods must differ, got {twice!r} twice")

    @property
    def all(self) -> tuple[Contender, ...]:
        """The contenders, random architectures last."""
        if not self.random:
            return self.contenders
        first = self.contenders[0]
        # Said in the comparison or of the contender.
        known = {**self.search, **first.settings}
        method = methods.variant(first.method, known.get("space"))
        # What a search by shrinking keeps is what the rule `darts` reads in its space.
        rule = "darts" if method.shrinking is not None else method.discretisation.rules[0]
        settings = {"space": method.space, "rules": [rule]}
        if rule == "configuration":
            settings |= {name: known[name] for name in CONFIGURATION if name in known}
        return (*self.contenders, Contender("random", settings, "random"))

    def count(self, contender: int) -> int:
        """How many searches a contender has."""
        return self.random if contender == len(self.contenders) else self.seeds

    def searches(self) -> tuple[Search, ...]:
        """All searches, seed by seed, so that a comparison cut short has seen every contender as often."""
        numbers = range(len(self.all))
        most = max(self.count(number) for number in numbers)
        return tuple(
            Search(number, self.seed + seed) for seed in range(most) for number in numbers if seed < self.count(number)
        )

    def trainings(self, searches: Iterable[Search], *, short: bool = False) -> tuple[Training, ...]:
        seeds = 1 if short else self.train_seeds
        return tuple(Training(search, self.seed + seed, short) for search in searches for seed in range(seeds))

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        said = asdict(self)
        if self.table is None:  # as a comparison that was begun before there were tables says it
            del said["table"], said["table_data"]
        return {"version": 1, "command": "compare", **said}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Plan:
        """What :meth:`to_json` gave."""
        fields = {name: data[name] for name in cls.__dataclass_fields__ if name in data}
        return cls(**{**fields, "contenders": tuple(Contender(**one) for one in data["contenders"])})

    def with_data(self, data: str) -> Plan:
        return replace(self, data=data)

"""Search methods as compositions of named parts: data that the one search loop reads, not copies of the loop.

A method says which space it searches, how alphas become op weights (``relaxation``, ``mixing``), which cells share
them (``sharing``), what is added to the cross-entropy (``objectives``), how alphas and weights move (``architect``,
``weights``), how the result is read (``discretisation``), and the published settings. A new method is a new entry
in catalogue.py; a new part is a new name in relaxation.py, samplers.py, terms.py or parts/ that an entry uses.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, get_args

from ddarts_ext.runs.options import Option, declared, option, unknown_setting
from ddarts_ext.search.architecture import SHARINGS
from ddarts_ext.search.edge_weights import EDGE_RELAXATIONS
from ddarts_ext.search.methods.baseline import Baseline
from ddarts_ext.search.methods.choosing import OpStopping, Selection, Stages
from ddarts_ext.search.methods.compatible import check, check_baseline, check_stages
from ddarts_ext.search.methods.settings import (
    RULES,
    Architect,
    Curvature,
    Discretisation,
    Distance,
    Mixing,
    Objectives,
    Text,
    Weights,
)
from ddarts_ext.search.relaxation import RELAXATIONS
from ddarts_ext.search.shrinking.steps import Shrinking


@dataclass(frozen=True)
class Method:
    """A search method.

    edge_relaxation: how betas become the weights of edges; without it a node is the plain sum of its edges, unless
    ``edge_normalisation`` of ``mixing`` asks for them.
    parts: names of what runs between epochs, see parts/. random: there is no supernet, architectures are drawn
    uniformly from what the first rule can produce, and evaluated as ``baseline`` says.
    shrinking: how the supernet loses ops, for methods that the Shrinker runs. text: what a search on text has beside.
    source: where the settings are from.
    """

    name: str
    summary: str
    source: str
    space: str = field(
        metadata={
            "help": "Another search space than the method's; isdarts: nasbench201 or darts.",
            "shown": "the method's",
            "command": True,
        }
    )
    relaxation: str
    sharing: str
    objectives: Objectives = field(default_factory=Objectives)
    mixing: Mixing = field(default_factory=Mixing)
    architect: Architect = field(default_factory=Architect)
    weights: Weights = field(default_factory=Weights)
    discretisation: Discretisation = field(default_factory=Discretisation)
    distance: Distance = field(default_factory=Distance)
    curvature: Curvature = field(default_factory=Curvature)
    selection: Selection = field(default_factory=Selection)
    stopping: OpStopping = field(default_factory=OpStopping)
    stages: Stages = field(default_factory=Stages)
    baseline: Baseline = field(default_factory=Baseline)
    shrinking: Shrinking | None = None
    text: Text | None = None
    epochs: int = option(50, "Epochs.", shown="the method's")
    cells: int = option(8, "Cells of the supernet.", shown="8; 4 for small images")
    channels: int = option(16, "Channels of the first cell.", shown="16; 8 for small images")
    batch: int = option(64, "Images in a batch.", shown="the method's")
    edge_relaxation: str | None = None
    parts: tuple[str, ...] = ()
    random: bool = False

    def __post_init__(self) -> None:
        for name, value, known in (
            ("relaxation", self.relaxation, tuple(RELAXATIONS)),
            ("sharing", self.sharing, SHARINGS),
            ("edge_relaxation", self.edge_relaxation, (None, *EDGE_RELAXATIONS)),
            *(("rules", rule, RULES) for rule in self.discretisation.rules),
        ):
            if value not in known:
                raise ValueError(
                    f"method {self.name}: {name} must be one of {', '.join(map(str, known))}, got {value!r}"
                )
        if not self.discretisation.rules:
            raise ValueError(f"method {self.name}: rules must be one or more, got none")
        check(
            self.name,
            self.relaxation,
            self.objectives,
            self.mixing,
            self.architect,
            edge_weights=self.edge_relaxation,
            shrinks=self.shrinking is not None,
            stops_by_curvature=self.curvature.curvature_stop,
            selects=self.selection.selection != "none",
            stops_ops=self.stopping.op_stop,
            limited=self.discretisation.max_skips is not None,
        )
        check_baseline(self.name, self.baseline, self.discretisation.rules, random=self.random)
        check_stages(
            self.name,
            self.stages,
            self.objectives,
            self.architect,
            mixed=not self.random and self.shrinking is None and self.text is None,
            alone=not self.stopping.op_stop
            and self.selection.selection == "none"
            and not self.curvature.curvature_stop,
            shared=self.sharing == "normal_reduction",
        )

    @property
    def removes(self) -> bool:
        """Whether ops of the supernet are removed as it goes on, by other than shrinking."""
        return self.selection.selection != "none" or self.stages.count > 1

    @property
    def edges_by(self) -> str | None:
        """How edges are weighted, a name in :data:`.EDGE_RELAXATIONS`, or None."""
        return "softmax" if self.mixing.edge_normalisation else self.edge_relaxation

    @property
    def edges_move_first(self) -> bool:
        """Whether there are weights of edges that move while alphas rest."""
        return self.edges_by is not None and not EDGE_RELAXATIONS[self.edges_by].normalised

    def with_settings(self, **settings: Any) -> Method:
        """A copy with other settings, named by the fields of its parts (``weight_lr=0.05``); names are checked."""
        parts = {part: getattr(self, part) for part in SETTINGS}
        for name, value in settings.items():
            part = next((p for p, names in SETTINGS.items() if name in names), None)
            if part is None:
                raise unknown_setting("search", name, setting_names())
            if parts[part] is None:
                if part == "text":
                    raise TypeError(f"search: {name} is a setting of searches on text, which {self.name} here is not")
                raise TypeError(f"search: {name} is a setting of methods that shrink, and {self.name} does not")
            parts[part] = replace(parts[part], **{name: _checked(name, value, SETTINGS[part][name])})
        return replace(self, **parts)


SIZES = ("space", "epochs", "cells", "channels", "batch")
"""Fields of a method itself that a caller may say."""
SETTINGS: dict[str, dict[str, Option]] = {
    name: declared(part, "method", name)
    for name, part in (
        ("objectives", Objectives),
        ("mixing", Mixing),
        ("architect", Architect),
        ("weights", Weights),
        ("discretisation", Discretisation),
        ("distance", Distance),
        ("curvature", Curvature),
        ("selection", Selection),
        ("stopping", OpStopping),
        ("stages", Stages),
        ("baseline", Baseline),
        ("shrinking", Shrinking),
        ("text", Text),
    )
}
"""What can be set of a method, by the subject that it belongs to."""
_AT_LEAST_ONE = (
    "order",
    "ablation_every",
    "alpha_every",
    "ops_per_edge",
    "curvature_window",
    "curvature_delay",
    "curvature_steps",
    "perturbation_steps",
    "stop_window",
    "shrink_steps",
    "shrink_interval",
    "bptt",
    "partial_channels",
    "op_stop_window",
    "evaluations",
    "tournament",
    "evaluation_epochs",
)


def setting_names() -> tuple[str, ...]:
    """Names that :meth:`Method.with_settings` takes."""
    return tuple(name for part in SETTINGS.values() for name in part)


def _checked(name: str, value: Any, setting: Option) -> Any:
    if setting.choices and value not in setting.choices:
        raise ValueError(f"search: {name} must be one of {', '.join(setting.choices)}, got {value!r}")
    if value is None and type(None) in get_args(setting.kind):
        return None
    if setting.kind is bool:
        if not isinstance(value, bool):
            raise TypeError(f"search: {name} must be true or false, got {value!r}")
        return value
    if setting.kind in (float, float | None):
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise TypeError(f"search: {name} must be a number, got {value!r}")
        if not value >= 0 or value == float("inf"):
            raise ValueError(f"search: {name} must be a finite number >= 0, got {value!r}")
        return float(value)
    if setting.plain_kind is int:
        lowest = 1 if name in _AT_LEAST_ONE else 0
        if isinstance(value, bool) or not isinstance(value, int):
            raise TypeError(f"search: {name} must be a whole number, got {value!r}")
        if value < lowest or (name == "order" and value > 2):
            raise ValueError(f"search: {name} must be {'1 or 2' if name == 'order' else f'>= {lowest}'}, got {value}")
        return value
    if isinstance(value, (list, tuple)):
        if name == "alpha_betas" and not (
            len(value) == 2 and all(isinstance(beta, (int, float)) and 0 <= beta < 1 for beta in value)
        ):
            raise ValueError(f"search: alpha_betas must be two numbers from 0 to below 1, got {list(value)}")
        of = get_args(setting.kind)
        numbers = {int: (int,), float: (int, float)}.get(of[0], ()) if of else ()
        if numbers and any(isinstance(one, bool) or not isinstance(one, numbers) for one in value):
            raise TypeError(
                f"search: {name} must be a list of {'whole ' if of[0] is int else ''}numbers, got {value!r}"
            )
        return tuple(value)
    if setting.kind is not str:
        raise TypeError(f'search: {name} must be a list, as [1, 2] or ["a"], got {value!r}')
    return value

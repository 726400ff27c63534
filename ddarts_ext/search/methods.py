"""Search methods as compositions of named parts: data that the one search loop reads, not copies of the loop.

A method says which space it searches, how alphas become op weights (``relaxation``), which cells share them
(``sharing``), what is added to the cross-entropy (``objectives``), how alphas and weights move (``architect``,
``weights``), how the result is read (``discretisation``), and the published settings. A new method is a new entry here;
a new part is a new name in relaxation.py, objectives.py or parts.py that an entry uses.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, get_args, get_type_hints

from ddarts_ext.search.architect import HESSIANS
from ddarts_ext.search.architecture import SHARINGS
from ddarts_ext.search.objectives import GRADIENTS, SIGN_RULES, ZERO_ONE_FORMS
from ddarts_ext.search.relaxation import RELAXATIONS
from ddarts_ext.search.shrinking import Shrinking

INACTIVE = ("bypass", "zero", "half", "random")
REMOVALS = ("all", "owners")
RULES = ("darts", "edge", "sparse", "complete")


def _one_of(*choices: str, default: str) -> Any:
    return field(default=default, metadata={"choices": choices})


@dataclass(frozen=True)
class Objectives:
    """What is added to the cross-entropy of every cell. A weight of 0 leaves the part out.

    zero_one_over: the mean of the zero-one loss runs over one cell's row (D-DARTS) or the whole table (FairDARTS).
    ablation_*: see :func:`.objectives.ablation` and :func:`.contributions.contributions`.
    ablation_every: contributions are computed every so many steps, and reused in between.
    ablation_memory: budget of the ablated passes, in units of one step's activations.
    """

    zero_one_weight: float = 0.0
    zero_one_form: str = _one_of(*ZERO_ONE_FORMS, default="l2")
    zero_one_over: str = _one_of("row", "table", default="row")
    ablation_weight: float = 0.0
    ablation_sign: str = _one_of(*SIGN_RULES, default="recommended")
    ablation_gradient: str = _one_of(*GRADIENTS, default="exact")
    ablation_inactive: str = _one_of(*INACTIVE, default="bypass")
    ablation_removal: str = _one_of(*REMOVALS, default="all")
    ablation_every: int = 1
    ablation_memory: float = 1.0


@dataclass(frozen=True)
class Architect:
    """How alphas move: Adam, with a cosine schedule per epoch down to ``alpha_lr_min`` (constant where that is None).

    order: 1 takes the gradient at the current weights, 2 at weights unrolled by one step, with the product ``hessian``.
    alpha_init: standard deviation of the start values. alpha_start: first epoch (from 0) in which alphas move.
    """

    order: int = 1
    hessian: str = _one_of(*HESSIANS, default="fd")
    alpha_lr: float = 3e-4
    alpha_lr_min: float | None = None
    alpha_betas: tuple[float, float] = (0.5, 0.999)
    alpha_weight_decay: float = 1e-3
    alpha_init: float = 0.0
    alpha_start: int = 0


@dataclass(frozen=True)
class Weights:
    """How weights move: SGD with a cosine schedule per epoch; ``clip`` bounds the global norm of the gradient."""

    weight_lr: float = 0.025
    weight_lr_min: float = 0.001
    momentum: float = 0.9
    nesterov: bool = False
    weight_decay: float = 3e-4
    clip: float = 5.0


@dataclass(frozen=True)
class Discretisation:
    """How the result is read from the op weights: the first of ``rules`` that leaves every cell with a path is the
    result; ``darts``, which needs no threshold, stands in where none does."""

    rules: tuple[str, ...] = ("darts",)
    threshold: float = 0.85


@dataclass(frozen=True)
class Distance:
    """How far the search has come, in distances between architectures: settings of the part ``distance``.

    early_stop: end the search once the distance to the start has settled (D-DARTS, section 3.5): it differs by at most
    ``stop_tolerance`` from each of the ``stop_window`` epochs before. The first ``stop_after`` epochs in which alphas
    move do not count. track_distance: keep the distances in the history whether or not the search may stop by them.
    distance_rule: how the architecture of an epoch is read; ``auto`` is ``edge`` where the method has a threshold.
    distance_scores: op scores, ``median``, ``mean`` or a score file.
    """

    track_distance: bool = False
    early_stop: bool = False
    stop_tolerance: float = 0.001
    stop_window: int = 4
    stop_after: int = 5
    distance_rule: str = _one_of("auto", *RULES, default="auto")
    distance_scores: str = "median"


@dataclass(frozen=True)
class Method:
    """A search method.

    parts: names of what runs between epochs, see parts.py. shrinking: how the supernet loses ops, for methods that the
    Shrinker runs. source: where the settings are from.
    """

    name: str
    summary: str
    source: str
    space: str
    relaxation: str
    sharing: str
    objectives: Objectives = Objectives()
    architect: Architect = Architect()
    weights: Weights = Weights()
    discretisation: Discretisation = Discretisation()
    distance: Distance = Distance()
    shrinking: Shrinking | None = None
    epochs: int = 50
    cells: int = 8
    channels: int = 16
    batch: int = 64
    parts: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name, value, known in (
            ("relaxation", self.relaxation, tuple(RELAXATIONS)),
            ("sharing", self.sharing, SHARINGS),
            *(("rules", rule, RULES) for rule in self.discretisation.rules),
        ):
            if value not in known:
                raise ValueError(f"method {self.name}: {name} must be one of {', '.join(known)}, got {value!r}")
        if self.objectives.zero_one_weight and self.relaxation == "softmax":
            raise ValueError(
                f"method {self.name}: zero_one_weight must be 0 with softmax weights, which cannot all be 0 or 1"
            )

    def with_settings(self, **settings: Any) -> Method:
        """A copy with other settings, named by the fields of its parts (``weight_lr=0.05``); names are checked."""
        parts = {part: getattr(self, part) for part in _PARTS}
        for name, value in settings.items():
            part = next((p for p, names in _PARTS.items() if name in names), None)
            if part is None:
                raise TypeError(f"search: setting must be one of {', '.join(setting_names())}, got {name!r}")
            if parts[part] is None:
                raise TypeError(f"search: {name} is a setting of methods that shrink, and {self.name} does not")
            parts[part] = replace(parts[part], **{name: _checked(name, value, _PARTS[part][name])})
        return replace(self, **parts)


@dataclass(frozen=True)
class _Setting:
    kind: Any
    choices: tuple[str, ...]


def _settings(part: type) -> dict[str, _Setting]:
    hints = get_type_hints(part)
    return {f.name: _Setting(hints[f.name], tuple(f.metadata.get("choices", ()))) for f in fields(part)}


_PARTS: dict[str, dict[str, _Setting]] = {
    "objectives": _settings(Objectives),
    "architect": _settings(Architect),
    "weights": _settings(Weights),
    "discretisation": _settings(Discretisation),
    "distance": _settings(Distance),
    "shrinking": _settings(Shrinking),
}
_AT_LEAST_ONE = ("order", "ablation_every", "stop_window", "shrink_steps", "shrink_interval")


def setting_names() -> tuple[str, ...]:
    """Names that :meth:`Method.with_settings` takes."""
    return tuple(name for part in _PARTS.values() for name in part)


def _checked(name: str, value: Any, setting: _Setting) -> Any:
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
    if setting.kind is int:
        lowest = 1 if name in _AT_LEAST_ONE else 0
        if isinstance(value, bool) or not isinstance(value, int):
            raise TypeError(f"search: {name} must be a whole number, got {value!r}")
        if value < lowest or (name == "order" and value > 2):
            raise ValueError(f"search: {name} must be {'1 or 2' if name == 'order' else f'>= {lowest}'}, got {value}")
        return value
    if isinstance(value, (list, tuple)):
        return tuple(value)
    if setting.kind is not str:
        raise TypeError(f"search: {name} must be a list, got {value!r}")
    return value


METHODS: dict[str, Method] = {}


def register(method: Method) -> Method:
    """Make a method known by its name. Raises ValueError for a name that is taken."""
    if method.name in METHODS:
        raise ValueError(f"register: name must be new, got {method.name!r}")
    METHODS[method.name] = method
    return method


def get(method: str | Method) -> Method:
    """The method of that name; a :class:`Method` is handed through."""
    if isinstance(method, Method):
        return method
    if method not in METHODS:
        raise ValueError(f"search: method must be one of {', '.join(METHODS)}, got {method!r}")
    return METHODS[method]


register(
    Method(
        name="darts",
        summary="softmax over ops, one architecture for normal and one for reduction cells, two edges per node",
        source="DARTS, 1806.09055, section 3 and its implementation",
        space="darts_none",
        relaxation="softmax",
        sharing="normal_reduction",
        architect=Architect(alpha_init=1e-3),
    )
)
register(
    Method(
        name="fairdarts",
        summary="sigmoid weights, so ops do not compete; the zero-one loss drives them to 0 or 1",
        source="FairDARTS, 1911.12126, section 4 and its implementation",
        space="darts",
        relaxation="sigmoid",
        sharing="normal_reduction",
        objectives=Objectives(zero_one_weight=10.0, zero_one_over="table"),
        architect=Architect(alpha_lr=3e-3, alpha_betas=(0.9, 0.999)),
        weights=Weights(weight_lr=0.005),
        discretisation=Discretisation(rules=("sparse", "edge")),
        batch=128,
    )
)
register(
    Method(
        name="ddarts",
        summary="an architecture of its own for every cell, each with its own loss: cross-entropy, zero-one, ablation",
        source="D-DARTS, 2108.09306, sections 3 and 4 (zero-one weight 7, ablation weight 0.5)",
        space="darts",
        relaxation="sigmoid",
        sharing="individual",
        objectives=Objectives(zero_one_weight=7.0, ablation_weight=0.5),
        architect=Architect(alpha_lr=3e-3, alpha_lr_min=0.001, alpha_betas=(0.9, 0.999)),
        weights=Weights(weight_lr=0.005),
        discretisation=Discretisation(rules=("sparse", "edge")),
        batch=128,
    )
)
register(
    Method(
        name="dartopti",
        summary="starts from a network that exists (--start) and improves it; cells that were equal stay equal",
        source="D-DARTS, 2108.09306 (DARTOpti) and its implementation; 5 epochs of pre-training, then 50",
        space="dartopti",
        relaxation="sigmoid",
        sharing="sequence",
        objectives=Objectives(zero_one_weight=7.0, ablation_weight=0.5),
        architect=Architect(alpha_lr=3e-3, alpha_lr_min=0.001, alpha_betas=(0.9, 0.999), alpha_start=5),
        weights=Weights(weight_lr=0.005),
        discretisation=Discretisation(rules=("sparse", "edge")),
        distance=Distance(track_distance=True, early_stop=True),
        epochs=55,
        channels=32,
        batch=128,
    )
)

register(
    Method(
        name="isdarts",
        summary="no alphas: the supernet shrinks, op by op, by what its feature maps tell; space nasbench201 or darts",
        source="IS-DARTS, 2312.12648, and its implementation; for space darts 50 epochs, 7 steps, 8 cells, 600 samples",
        space="nasbench201",
        relaxation="softmax",
        sharing="normal_reduction",
        architect=Architect(alpha_init=1e-3),
        weights=Weights(nesterov=True),
        shrinking=Shrinking(),
        epochs=30,
        cells=15,
    )
)


def preset(size: tuple[int, int], train_images: int) -> Mapping[str, Any]:
    """Defaults that suit the data where the published ones (32x32, 50,000 images) do not; empty for large data.

    Few images mean few steps in an epoch: smaller batches and a larger rate let both weights and alphas move.
    """
    if max(size) > 16 or train_images > 10_000:
        return {}
    return {"cells": 4, "channels": 8, "batch": 64, "weight_lr": 0.05, "alpha_lr": 0.02}

"""The settings of one search: what can be said of it, and what follows where nothing is said.

``SearchSettings`` and the settings of methods declare every argument once. The signature of the Searcher
(:data:`OPTIONS`), the options of ``ddarts search``, what ``--list`` shows, config.json and what a resumed run takes
from it (:func:`arguments_of`) follow from there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from ddarts_ext import spaces
from ddarts_ext.data import Augmentation, Dataset
from ddarts_ext.data.augment import OPTIONS as AUGMENTATION_OPTIONS
from ddarts_ext.data.augment import taken_from
from ddarts_ext.genotype.start import Start
from ddarts_ext.nn.stem import STEMS, suited_stem
from ddarts_ext.runs.device import PRECISIONS
from ddarts_ext.runs.graphs import GRAPHS
from ddarts_ext.runs.losses import CLASS_WEIGHTS, LOSS, METRIC, SHOWN_LOSS, SHOWN_METRIC
from ddarts_ext.runs.objective import plain_weights
from ddarts_ext.runs.options import (
    IMAGE_SIZE,
    SHOWN_SIZE,
    SHOWN_STEM,
    STEM,
    SYNC_NORMS,
    Option,
    declared,
    option,
    said_in,
    unknown_setting,
)
from ddarts_ext.runs.own import refuse_functions
from ddarts_ext.search import methods
from ddarts_ext.search.architecture import owners
from ddarts_ext.search.budget_check import check_budget
from ddarts_ext.search.methods import Method
from ddarts_ext.search.methods.method import SETTINGS, SIZES
from ddarts_ext.search.shrinking.steps import shrink_epochs

MAY_CHANGE = (
    *("device", "table", "source", "data", "graphs", "judge_every", "latency_table"),
    "method.baseline.evaluations",
)
"""Fields of config.json that a resumed run may have otherwise: its images are known by what they are, a table of op
times by the costs in the checkpoint; how steps are launched and how often is judged changes nothing that is searched;
more architectures follow those evaluated."""
BUDGETS = ("budget", "latency_table", "budget_rate", "budget_cells", "budget_channels", "budget_ties")
LATER = ("loss", "metric", "class_weights", "own", "sync_norms", "search_fraction", *BUDGETS)
"""Fields that config.json has where they are not as usual: there were searches before there was a choice."""
BUDGET_RATE = 10.0
"""On the digits multipliers of .5 to 1.5 bring its cost down by half; twice the rate overshoots."""
BUDGET_TIES = 0.05


@dataclass(frozen=True)
class SearchSettings:
    """Everything that determines a search but the images themselves.

    search_fraction: part of the training images that the search sees at all, by a stratified permutation from the seed.
    split: part of these whose batches move the weights; the rest moves the alphas and judges.
    reductions: indices of the reduction cells, None for thirds. steps: nodes of a cell, None for the space's.
    sequence: for methods whose cells share alphas by number, the number of every cell. start: the network to start at.
    judge_statistics: with which statistics of its norms the supernet is judged. Running ones follow weights and alphas
    that keep moving and lag behind both: after some hundred steps they can tell a loss of 20 where the batch's own give
    2. judge_every: epochs from one judgement to the next; the last epoch is always judged. graphs: whether the steps on
    a GPU are captured as CUDA graphs; ``auto`` where they can be, ``on`` refuses a search whose steps cannot.
    table: file with the accuracies of NAS-Bench-201 that are looked up for the result. sync_norms: of several ranks,
    norms take the statistics of the whole batch, as one process would; it changes nothing for one.
    loss, metric, class_weights: see :func:`ddarts_ext.runs.objective.objective_of`. own: the names of functions that
    were passed to the Searcher, by argument.
    budget: what the result may cost at most, see :class:`ddarts_ext.search.parts.BudgetPart`, in a network as deep and
    wide as the supernet, or of ``budget_cells`` and ``budget_channels``. budget_rate: what the multiplier of the cost
    grows by in a search whose architecture costs twice the budget all the time. budget_ties: of methods that shrink:
    ops whose measures differ by at most this part of the larger one are equal, and the dearest of them goes first.
    """

    data: str
    method: Method
    device: str = "cpu"
    start: Start | None = option(
        None, "Network to start from (dartopti): ResNet18, ResNet50, Xception, InceptionV4, or a genotype file."
    )
    table: str | None = option(
        None, "Accuracies of NAS-Bench-201, looked up for the result; see ddarts nasbench201 --help."
    )
    seed: int = option(0, "Everything random follows from it.")
    precision: str = option("float32", "float32, or bf16 for autocast.", choices=PRECISIONS)
    deterministic: bool = option(False, "Only algorithms that give the same result every time.")
    split: float = option(0.5)
    search_fraction: float = option(1.0, "Share of the training images that is searched on, of every class alike.")
    image_size: int | None = option(None, IMAGE_SIZE, shown=SHOWN_SIZE)
    stem: str = option("cifar", STEM, shown=SHOWN_STEM, choices=STEMS)
    judge_statistics: str = option("batch", choices=("batch", "running"))
    judge_every: int = option(1)
    graphs: str = option("auto", choices=GRAPHS)
    steps: int | None = option(None)
    reductions: tuple[int, ...] | None = option(None)
    sequence: tuple[int, ...] | None = option(None)
    sync_norms: bool = option(False, SYNC_NORMS)
    loss: str = option("cross-entropy", LOSS, shown=SHOWN_LOSS)
    metric: str = option("accuracy", METRIC, shown=SHOWN_METRIC)
    class_weights: tuple[float, ...] | str | None = option(None, CLASS_WEIGHTS, shown="none")
    augmentation: Augmentation = field(default_factory=Augmentation)
    own: Mapping[str, str] = field(default_factory=dict)
    budget: str | None = option(
        None, "What the architecture may cost at most: params=2M, macs=300M or latency=5ms (with --latency-table)."
    )
    latency_table: str | None = option(None, "Times of ops, measured by ddarts measure-ops.")
    budget_rate: float = option(BUDGET_RATE)
    budget_cells: int | None = option(None)
    budget_channels: int | None = option(None)
    budget_ties: float = option(BUDGET_TIES)

    def to_json(self) -> dict[str, Any]:
        """Plain data for config.json."""
        start = None if self.start is None else self.start.to_json()
        said = {"version": 1, "command": "search", **asdict(self), "start": start}
        if self.epochs != self.method.epochs:
            said["epochs_in_all"] = self.epochs
        usual = {name: getattr(SearchSettings, name, {}) for name in LATER}
        return {name: value for name, value in said.items() if name not in usual or value != usual[name]}

    @property
    def epochs(self) -> int:
        """All epochs: those of the method, and those between the decisions of a selection."""
        return self.method.epochs + self.method.selection.tuning_epochs(self.space())

    def in_stage(self, stage: int) -> SearchSettings:
        """As they are in a stage, from 0: more cells, and other start values."""
        more = self.method.stages.stage_cells[stage]
        return replace(self, method=replace(self.method, cells=self.method.cells + more), seed=self.seed + stage)

    def space(self) -> spaces.Space:
        return spaces.get(self.method.space, steps=self.steps)


OWN = {name: known for name, known in declared(SearchSettings).items() if name != "own"}
OPTIONS: dict[str, Option] = {
    **declared(Method, "method", names=SIZES),
    **{name: known for name, known in OWN.items() if name not in ("data", "method", "device")},
    **AUGMENTATION_OPTIONS,
    **{name: known for part in SETTINGS.values() for name, known in part.items()},
}
"""All that can be said of a search beside its images and its method, by name."""


OF_IMAGES = (
    *BUDGETS,
    *("split", "start", "table", "image_size", "stem", "reductions", "sequence", "augmentation", "cells"),
    "class_weights",
)
"""What has no place in a search on text."""


def resolve(dataset: Dataset, method: str | Method, device: str, given: Mapping[str, Any]) -> SearchSettings:
    """Check and complete what was said: the method, then what suits the data, then ``given``, None for "not said".

    Raises ValueError or TypeError naming the argument.
    """
    wanted = said_in(given)
    for name in sorted(set(wanted) - {*OPTIONS, "augmentation"}):
        raise unknown_setting("search", name, OPTIONS)
    # A search sees crops and flips, no cutout: DARTS, section 3.1.
    augmentation = taken_from(wanted, replace(dataset.augmentation, cutout=0, autoaugment=None))
    own = {name: wanted.pop(name) for name in OWN if name in wanted}
    if "start" in own:
        own["start"] = Start.load(own["start"])
    chosen = methods.variant(method, wanted.pop("space", None))
    if own.get("start") is not None:
        # What the network determines, unless it was said; if it was, the check below compares.
        for name, value in own["start"].sizes(chosen.space).items():
            (wanted if name in SIZES else own).setdefault(name, value)
    if "class_weights" in own:
        own["class_weights"] = plain_weights(own["class_weights"])
    for name in ("reductions", "sequence"):
        if own.get(name) is not None:
            own[name] = tuple(own[name])
    wanted.update((name, positive(name, wanted[name])) for name in SIZES if name in wanted)
    whole = ("judge_every", "budget_cells", "budget_channels")
    own.update((name, positive(name, own[name])) for name in whole if name in own)
    split = _fraction(own.get("split", SearchSettings.split))
    share = own.get("search_fraction", 1.0)
    if isinstance(share, bool) or not isinstance(share, (int, float)):
        raise TypeError(f"search: search_fraction must be a number, got {share!r}")
    if not 0 < share <= 1:
        raise ValueError(f"search: search_fraction must be above 0 and at most 1, got {share}")
    small: Mapping[str, Any] = {}
    if isinstance(method, str):
        small = methods.preset(chosen, dataset.size, int(share * len(dataset.train)), split, wanted)
    said = {**small, **wanted}
    sizes: dict[str, Any] = {name: said.pop(name) for name in SIZES if name in said}
    chosen = replace(chosen, **sizes).with_settings(**said)
    own.setdefault("stem", "cifar" if chosen.space == "nasbench201" else suited_stem(dataset.size))
    asked = {
        "budget": own.get("budget") is not None,
        "distance": chosen.distance.track_distance or chosen.distance.early_stop,
        "curvature": chosen.curvature.curvature_stop,
        "selection": chosen.selection.selection != "none",
        "stages": chosen.stages.count > 1,
    }
    added = tuple(name for name, holds in asked.items() if holds and name not in chosen.parts)
    # The cost is that of the epoch which was searched: it is read before a part begins something new.
    chosen = replace(chosen, parts=tuple(sorted((*chosen.parts, *added), key=lambda name: name != "budget")))
    settings = SearchSettings(data=dataset.name, method=chosen, device=device, augmentation=augmentation, **own)
    _check(settings)
    return settings


def arguments_of(config: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of the Searcher that a config.json was written with. Raises ValueError for those that were
    functions."""
    refuse_functions("search", config)
    said = {name: known.value_in(config) for name, known in OPTIONS.items()}
    said["start"] = None if said["start"] is None else Start.from_json(said["start"])
    said["augmentation"] = Augmentation(**config["augmentation"])
    said = {name: value for name, value in said.items() if name not in AUGMENTATION_OPTIONS}
    said = {name: value for name, value in said.items() if value is not None}
    if (
        "text" in config
    ):  # what its images would be, and the loss and the metric that a language model has, are there too
        said = {name: value for name, value in said.items() if name not in (*OF_IMAGES, "loss", "metric")}
    return {"data": config["source"], "method": config["method"]["name"], **said}


def _fraction(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"search: split must be a number, got {value!r}")
    if not 0 < value < 1:
        raise ValueError(f"search: split must be between 0 and 1, got {value}")
    return float(value)


def positive(name: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"search: {name} must be a whole number, got {value!r}")
    if value < 1:
        raise ValueError(f"search: {name} must be >= 1, got {value}")
    return value


def check_run(config: SearchSettings) -> None:
    """Raise ValueError for what no search can have, whatever its data."""
    if config.precision not in PRECISIONS:
        raise ValueError(f"search: precision must be one of {', '.join(PRECISIONS)}, got {config.precision!r}")
    if config.stem not in STEMS:
        raise ValueError(f"search: stem must be one of {', '.join(STEMS)}, got {config.stem!r}")
    if config.graphs not in GRAPHS:
        raise ValueError(f"search: graphs must be one of {', '.join(GRAPHS)}, got {config.graphs!r}")
    if isinstance(config.seed, bool) or not isinstance(config.seed, int) or not 0 <= config.seed < 2**63:
        raise ValueError(f"search: seed must be a whole number >= 0, got {config.seed!r}")


def _check(config: SearchSettings) -> None:
    config.space()
    check_run(config)
    if config.space().recurrent:
        raise ValueError(f"search: data must be text (text:PATH) for space {config.method.space}, got images")
    if config.method.channels % 2:
        raise ValueError(f"search: channels must be even, as reductions halve them, got {config.method.channels}")
    _check_partial(config.method)
    if (how := config.method.shrinking) is not None:
        shrink_epochs(config.method.epochs, how.shrink_steps, how.shrink_interval)
    _check_indices(config.reductions, config.method.cells)
    _check_start(config)
    _check_selection(config)
    _check_stages(config)
    check_budget(
        config.method,
        config.budget,
        config.latency_table,
        config.budget_cells,
        config.budget_channels,
        config.reductions,
        budget_rate=config.budget_rate,
        budget_ties=config.budget_ties,
    )
    if config.method.space == "nasbench201":
        _check_nasbench201(config)
    elif config.table is not None:
        raise ValueError(f"search: table must not be given for space {config.method.space}: it is one of nasbench201")


def _check_partial(method: Method) -> None:
    k = method.mixing.partial_channels
    # Skip connections halve the channels that they see where they halve the size.
    part, why = (k, "") if method.space == "nasbench201" else (2 * k, ", whose ops see an even number of them")
    if k > 1 and method.channels % part:
        raise ValueError(
            f"search: channels must be a multiple of {part} with partial_channels={k}{why}, got {method.channels}"
        )


def _check_start(config: SearchSettings) -> None:
    method = config.method
    if method.sharing == "sequence" and config.sequence is None:
        raise ValueError(
            f"search: start must be given for method {method.name}: ResNet18, ResNet50, Xception, InceptionV4 or a "
            "genotype file"
        )
    if method.shrinking is not None and (config.start is not None or "distance" in method.parts):
        raise ValueError(
            f"search: start, early_stop and track_distance must be left out with method {method.name}, which has no "
            "alphas to read an architecture from"
        )
    method.discretisation.configuration.check(config.space(), "search")
    if method.architect.reference_accumulate and method.architect.order == 2:
        raise ValueError("search: reference_accumulate must be false with order=2, which the published code has not")
    if method.epochs // method.stages.count <= method.architect.alpha_start:
        stage = f" of each of {method.stages.count} stages" if method.stages.count > 1 else ""
        raise ValueError(
            f"search: epochs{stage} must be more than the {method.architect.alpha_start} before alphas move "
            f"(alpha_start), got {method.epochs // method.stages.count}"
        )
    if config.start is None:
        return
    # Also finds cells that share alphas and differ, before anything is computed.
    determined = {"cells": method.cells, "steps": config.steps, "reductions": config.reductions}
    for name, expected in config.start.sizes(method.space).items():
        if name in determined and determined[name] != expected:
            raise ValueError(f"search: {name} must be {expected!r} as in the start, got {determined[name]!r}")
    owner = owners(method.sharing, method.cells, config.reductions or (), config.sequence)
    config.start.table(config.space(), owner)


def _check_selection(config: SearchSettings) -> None:
    method, space = config.method, config.space()
    if method.selection.selection == "none":
        return
    if space.selection not in ("two_edges", "every_edge"):
        raise ValueError(
            f"search: selection must be none in space {space.name}, whose nodes have no two edges of one op each"
        )
    if "configuration" in method.discretisation.rules:
        raise ValueError("search: rules must not be configuration with selection=perturbation, which keeps two edges")
    if method.distance.early_stop:
        raise ValueError("search: early_stop must be false with selection=perturbation, which comes at the end")


def _check_stages(config: SearchSettings) -> None:
    method = config.method
    if method.stages.count == 1:
        return
    for name, value in (("start", config.start), ("reductions", config.reductions)):
        if value is not None:
            raise ValueError(f"search: {name} must be left out with stages, whose cells become more, got {value}")
    if method.distance.early_stop or method.distance.track_distance:
        raise ValueError("search: early_stop and track_distance must be left out with stages, whose cells become more")
    more = list(method.stages.stage_cells)
    if method.space == "nasbench201" and any(cells % 3 for cells in more):
        raise ValueError(f"search: stage_cells must be multiples of the 3 stages of nasbench201, got {more}")
    if method.stages.stage_ops[0] >= len(config.space().ops):
        raise ValueError(
            f"search: stage_ops must be fewer than the {len(config.space().ops)} ops of space {method.space}, got "
            f"{list(method.stages.stage_ops)}"
        )
    if method.cells < 3:
        raise ValueError(f"search: cells must be at least 3 with stages, of which two reduce, got {method.cells}")
    if method.cells + min(more) < 3:
        raise ValueError(
            f"search: stage_cells must leave 3 or more cells in every stage, got {more} beside {method.cells}"
        )


def _check_indices(reductions: Sequence[int] | None, cells: int) -> None:
    for index in reductions or ():
        if not 0 <= index < cells:
            raise ValueError(f"search: reductions must be in 0..{cells - 1}, got {index}")


def _check_nasbench201(config: SearchSettings) -> None:
    if config.method.cells % 3:
        raise ValueError(f"search: cells must be a multiple of the 3 stages of nasbench201, got {config.method.cells}")
    if config.method.sharing != "normal_reduction" and not config.method.random:
        raise ValueError(
            f"search: space must be another one for method {config.method.name}, whose cells differ from each other: "
            "in nasbench201 all are one"
        )
    if config.stem != "cifar":
        raise ValueError(f"search: stem must be cifar for nasbench201, got {config.stem!r}")
    if config.reductions:
        raise ValueError(f"search: reductions must be none for nasbench201, got {config.reductions}")

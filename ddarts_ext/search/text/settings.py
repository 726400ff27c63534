"""The settings of a search on text: the published ones, or smaller ones for a short text."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from ddarts_ext.data.augment import OPTIONS as AUGMENTATION_OPTIONS
from ddarts_ext.data.text import Corpus
from ddarts_ext.runs.options import said_in
from ddarts_ext.search import methods
from ddarts_ext.search.methods import Method
from ddarts_ext.search.methods.method import SIZES
from ddarts_ext.search.settings import OF_IMAGES, OWN, SearchSettings, check_run, positive

FEW_WORDS = 500_000


def resolve(corpus: Corpus, method: str | Method, device: str, given: Mapping[str, Any]) -> SearchSettings:
    """Check and complete what was said of a search on text, as :func:`ddarts_ext.search.settings.resolve` of images."""
    wanted = said_in(given)
    for name in (*OF_IMAGES, *AUGMENTATION_OPTIONS):
        if name in wanted and not (name == "cells" and wanted[name] == 1):
            raise ValueError(f"search: {name} must be left out on text, got {wanted[name]!r}")
    wanted.pop("cells", None)
    own = {name: wanted.pop(name) for name in OWN if name in wanted}
    if "judge_every" in own:
        positive("judge_every", own["judge_every"])
    chosen = _method(method, wanted.pop("space", None))
    wanted.update((name, positive(name, wanted[name])) for name in SIZES if name in wanted)
    if isinstance(method, str) and len(corpus.train) < FEW_WORDS:
        wanted = {**_small(), **wanted}
    sizes: dict[str, Any] = {name: wanted.pop(name) for name in SIZES if name in wanted}
    chosen = replace(chosen, **sizes).with_settings(**wanted)
    config = SearchSettings(data=corpus.name, method=chosen, device=device, **own)
    config.space()
    check_run(config)
    _check(chosen)
    for part in ("train", "valid"):
        if len(getattr(corpus, part)) < 2 * chosen.batch:
            raise ValueError(
                f"search: batch must leave 2 or more words a column, got {chosen.batch} columns of "
                f"{len(getattr(corpus, part))} words ({part})"
            )
    return config


def _method(method: str | Method, space: str | None) -> Method:
    found = methods.variant(method, "rnn" if isinstance(method, str) and space is None else space)
    if found.text is None:
        raise ValueError(
            f"search: method must have a recurrent space on text, such as darts, got {found.name} in {found.space}"
        )
    return found


def _small() -> dict[str, Any]:
    """Few words are learnt by heart by a wide network; few segments leave an alpha where it began."""
    return {
        "epochs": 20,
        "channels": 64,
        "batch": 32,
        "alpha_lr": 0.01,
        "weight_lr": 2.0,
        "weight_lr_min": 0.5,
        "dropout_output": 0.3,
        "dropout_inputs": 0.3,
        "dropout_hidden": 0.1,
        "dropout_embedding": 0.1,
    }


def _check(method: Method) -> None:
    name, objectives = method.name, method.objectives
    faults = {
        "ablation_weight must be 0": objectives.ablation_weight > 0,
        "zero_one_weight must be 0": objectives.zero_one_weight > 0,
        "perturbation must be none": method.mixing.perturbation != "none",
        "auxiliary_skip must be 0": method.mixing.auxiliary_skip > 0,
        "reference_accumulate must be false": method.architect.reference_accumulate,
        "parts must be none (distance, curvature)": bool(method.parts)
        or method.distance.track_distance
        or method.distance.early_stop
        or method.curvature.curvature_stop,
        "edge weights must be none": method.edges_by is not None,
        "selection must be none": method.selection.selection != "none",
        "op_stop must be false": method.stopping.op_stop,
        "skip_dropout must be none": any(method.stages.skip_dropout),
        "max_skips must be none": method.discretisation.max_skips is not None,
        "partial_channels must be 1": method.mixing.partial_channels > 1,
        "rules must be darts": set(method.discretisation.rules) != {"darts"},
    }
    for fault, holds in faults.items():
        if holds:
            raise ValueError(f"search: {fault} on text, in method {name}")
    if method.architect.hessian == "exact" and method.text is not None and method.text.unrolled_clip == "reference":
        raise ValueError("search: unrolled_clip must be bounded with hessian=exact, got 'reference'")

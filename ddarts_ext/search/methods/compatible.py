"""Which parts of a method go together; the others are refused by name."""

from __future__ import annotations

from ddarts_ext.search.methods.baseline import Baseline
from ddarts_ext.search.methods.choosing import Stages
from ddarts_ext.search.methods.settings import Architect, Mixing, Objectives
from ddarts_ext.search.relaxation import NORMALISED


def check(
    name: str,
    relaxation: str,
    objectives: Objectives,
    mixing: Mixing,
    architect: Architect,
    *,
    edge_weights: str | None,
    shrinks: bool,
    stops_by_curvature: bool,
    selects: bool,
    stops_ops: bool,
    limited: bool,
) -> None:
    """Raise ValueError, naming method ``name`` and the part, where parts contradict each other."""
    normalised = relaxation in NORMALISED
    partial = mixing.partial_channels > 1
    sampled, perturbed = mixing.sampler != "none", mixing.perturbation != "none"
    other = f"must be 0 with {relaxation} weights"
    draws, moves = f"with sampler {mixing.sampler}", f"with perturbation {mixing.perturbation}"
    end = mixing.temperature if mixing.temperature_end is None else mixing.temperature_end
    coldest = min(mixing.temperature, end)
    faults = {
        f"edge_normalisation must be false with {edge_weights} weights of edges": mixing.edge_normalisation
        and edge_weights is not None,
        f"op_entropy_weight {other}, whose sum is not one": objectives.op_entropy_weight and not normalised,
        "edge_entropy_weight must be 0, as the method has no edge weights with a target": objectives.edge_entropy_weight
        and (edge_weights is None or mixing.edge_normalisation),
        f"partial_channels must be 1 with {relaxation} weights, whose sum is not one": partial and not normalised,
        f"ablation_inactive must be bypass or zero with partial_channels, got {objectives.ablation_inactive!r}": partial
        and objectives.ablation_weight
        and objectives.ablation_inactive not in ("bypass", "zero"),
        "zero_one_weight must be 0 with softmax weights, which cannot all be 0 or 1": objectives.zero_one_weight
        and normalised,
        f"beta_decay_weight {other}, whose ops do not compete": objectives.beta_decay_weight and not normalised,
        "anchor_weight must be 0 with another sampler than dirichlet": objectives.anchor_weight
        and mixing.sampler != "dirichlet",
        f"relaxation must be softmax {draws}, got {relaxation!r}": sampled and relaxation != "softmax",
        f"order must be 1 {draws}, which draws other weights in every pass": sampled and architect.order != 1,
        f"ablation_weight must be 0 {draws}, which draws other weights in every pass": sampled
        and objectives.ablation_weight,
        f"reference_accumulate must be false {draws if sampled else moves}": (sampled or perturbed)
        and architect.reference_accumulate,
        f"temperature and temperature_end must be above 0 {draws}, got {coldest}": sampled and coldest <= 0,
        f"temperature and temperature_end must be at least 1 {draws}, got {coldest}": mixing.sampler == "reinmax"
        and coldest < 1,
        f"perturbation must be none {draws}, whose weights are no distribution to move": sampled and perturbed,
        f"perturbation must be none with {relaxation} weights, whose sum is not one": perturbed and not normalised,
        f"curvature_stop must be false {draws}, whose loss at the alphas is another one": sampled
        and stops_by_curvature,
        "sampler, perturbation and auxiliary_skip must be left out, as the method shrinks": shrinks
        and (sampled or perturbed or mixing.auxiliary_skip),
        "partial_channels and edge_normalisation must be left out, as the method shrinks": shrinks
        and (partial or mixing.edge_normalisation),
        "curvature_stop must be false, as the method shrinks": shrinks and stops_by_curvature,
        "selection must be none, as the method shrinks": shrinks and selects,
        "op_stop must be false, as the method shrinks": shrinks and stops_ops,
        "max_skips must be none with selection=perturbation, which leaves one op on an edge": selects and limited,
        "max_skips must be none, as the method shrinks": shrinks and limited,
        "op_stop must be false with selection=perturbation, which removes ops": selects and stops_ops,
        "op_stop must be false with order=2, an ablation loss or reference_accumulate, whose gradients on the judging "
        "images are others": stops_ops
        and (architect.order != 1 or objectives.ablation_weight > 0 or architect.reference_accumulate),
        "op_stop must be false with alpha_images=training: it compares both halves of the images": stops_ops
        and architect.alpha_images == "training",
        f"selection must be none with {edge_weights} weights of edges, which choose edges themselves": selects
        and edge_weights is not None
        and not mixing.edge_normalisation,
        "curvature_stop must be false with selection=perturbation, which comes at the end": selects
        and stops_by_curvature,
    }
    for fault, holds in faults.items():
        if holds:
            raise ValueError(f"method {name}: {fault}")


def check_stages(
    name: str,
    stages: Stages,
    objectives: Objectives,
    architect: Architect,
    *,
    mixed: bool,
    alone: bool,
    shared: bool,
) -> None:
    """Raise ValueError, naming method ``name``, for stages or op dropout that cannot be. mixed: ops are mixed by
    alphas. alone: nothing else removes ops or stops. shared: normal cells share alphas, and reduction cells do."""
    staged, dropped = len(stages.stage_cells) > 0, any(stages.skip_dropout)
    several = architect.order != 1 or objectives.ablation_weight > 0 or architect.reference_accumulate
    faults = {
        "stage_cells and skip_dropout must be left out, as ops are not mixed by alphas": (staged or dropped)
        and not mixed,
        f"stage_cells must be none or at least two numbers, got {len(stages.stage_cells)}": len(stages.stage_cells)
        == 1,
        f"stage_cells must not fall, got {list(stages.stage_cells)}": list(stages.stage_cells)
        != sorted(stages.stage_cells),
        f"stage_ops must be {stages.count - 1} falling numbers >= 1, one for each stage but the last, got "
        f"{list(stages.stage_ops)}": staged
        and (
            len(stages.stage_ops) != stages.count - 1
            or list(stages.stage_ops) != sorted(set(stages.stage_ops), reverse=True)
            or min(stages.stage_ops, default=0) < 1
        ),
        "stage_ops must be none without stage_cells": not staged and len(stages.stage_ops) > 0,
        f"skip_dropout must be none or {stages.count} rates from 0 to below 1, one for each stage, got "
        f"{list(stages.skip_dropout)}": len(stages.skip_dropout) > 0
        and (len(stages.skip_dropout) != stages.count or not all(0 <= rate < 1 for rate in stages.skip_dropout)),
        "skip_dropout must be none with order=2, an ablation loss or reference_accumulate, which need the same network "
        "in several passes": dropped and several,
        "stage_cells must be none with an ablation loss, of other cells in each stage": staged
        and objectives.ablation_weight > 0,
        "stage_cells must be none with selection, op_stop and curvature_stop": staged and not alone,
        "stage_cells must be none where cells do not share alphas, as there are more of them in each stage": staged
        and not shared,
    }
    for fault, holds in faults.items():
        if holds:
            raise ValueError(f"method {name}: {fault}")


def check_baseline(name: str, how: Baseline, rules: tuple[str, ...], *, random: bool) -> None:
    """Raise ValueError, naming method ``name``, for baselines that cannot be."""
    usual = Baseline()
    faults = {
        "evaluations and population must be left out, as it has a supernet": not random
        and (how.evaluations, how.population) != (usual.evaluations, usual.population),
        f"population must be at most the {how.evaluations} evaluations, got {how.population}": how.population
        > how.evaluations,
        f"rules must begin with darts with a population, which keeps one op on an edge, got {rules[0]!r}": random
        and how.population > 0
        and rules[0] != "darts",
    }
    for fault, holds in faults.items():
        if holds:
            raise ValueError(f"method {name}: {fault}")

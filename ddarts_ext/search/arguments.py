"""The arguments of the Searcher, as type checkers read them. Written by scripts/write_arguments.py."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal, TypedDict

from ddarts_ext.data import Augmentation
from ddarts_ext.genotype import Genotype
from ddarts_ext.genotype.start import Start
from ddarts_ext.runs.optimizers import OptimizerFactory

MethodName = Literal[
    "darts",
    "fairdarts",
    "ddarts",
    "dartopti",
    "isdarts",
    "random",
    "evolution",
    "da2s",
    "single-level",
    "beta-darts",
    "darts-minus",
    "darts-es",
    "sdarts-rs",
    "sdarts-adv",
    "gdas",
    "reinmax",
    "snas",
    "drnas",
    "oles",
    "pcdarts",
    "pdarts",
    "darts-pt",
]


class SearchArguments(TypedDict, total=False):
    """What a search may be told beside what the constructor names."""

    space: str | None
    epochs: int | None
    cells: int | None
    channels: int | None
    batch: int | None
    start: Start | Genotype | str | Path | None
    seed: int | None
    precision: Literal["float32", "bf16"] | None
    deterministic: bool | None
    split: float | None
    search_fraction: float | None
    image_size: int | None
    stem: Literal["cifar", "imagenet", "imagenet_stride4"] | None
    judge_statistics: Literal["batch", "running"] | None
    judge_every: int | None
    graphs: Literal["auto", "on", "off"] | None
    steps: int | None
    reductions: Sequence[int] | None
    sequence: Sequence[int] | None
    sync_norms: bool | None
    class_weights: Sequence[float] | Literal["balanced"] | None
    augmentation: Augmentation
    budget: str | None
    latency_table: str | None
    budget_rate: float | None
    budget_cells: int | None
    budget_channels: int | None
    budget_ties: float | None
    crop_padding: int | None
    flip: bool | None
    cutout: int | None
    autoaugment: Literal["cifar10", "imagenet", "svhn"] | None
    zero_one_weight: float | None
    zero_one_start: float | None
    zero_one_form: Literal["l2", "l1"] | None
    zero_one_over: Literal["row", "table"] | None
    ablation_weight: float | None
    ablation_sign: Literal["bounded", "mean", "paper_plus", "code"] | None
    ablation_delta: float | None
    ablation_gradient: Literal["exact", "stopgrad_mean", "none"] | None
    ablation_inactive: Literal["bypass", "zero", "half", "random"] | None
    ablation_removal: Literal["all", "owners"] | None
    ablation_every: int | None
    ablation_memory: float | None
    op_entropy_weight: float | None
    op_entropy_growth: (
        Literal[
            "const",
            "linear",
            "log",
            "exp",
            "step",
            "sigmoid",
            "delayed_const",
            "delayed_linear",
            "delayed_log",
            "delayed_exp",
            "delayed_step",
            "delayed_sigmoid",
            "late_linear",
        ]
        | None
    )
    edge_entropy_weight: float | None
    edge_entropy_growth: (
        Literal[
            "const",
            "linear",
            "log",
            "exp",
            "step",
            "sigmoid",
            "delayed_const",
            "delayed_linear",
            "delayed_log",
            "delayed_exp",
            "delayed_step",
            "delayed_sigmoid",
            "late_linear",
        ]
        | None
    )
    edge_count_weight: float | None
    entropy_growth: (
        Literal[
            "const",
            "linear",
            "log",
            "exp",
            "step",
            "sigmoid",
            "delayed_const",
            "delayed_linear",
            "delayed_log",
            "delayed_exp",
            "delayed_step",
            "delayed_sigmoid",
            "late_linear",
        ]
        | None
    )
    beta_decay_weight: float | None
    anchor_weight: float | None
    sampler: Literal["none", "gumbel_hard", "concrete", "reinmax", "dirichlet"] | None
    temperature: float | None
    temperature_end: float | None
    compute_unchosen: bool | None
    auxiliary_skip: float | None
    perturbation: Literal["none", "random", "adversarial"] | None
    perturbation_first: float | None
    perturbation_radius: float | None
    perturbation_steps: int | None
    partial_channels: int | None
    edge_normalisation: bool | None
    order: int | None
    hessian: Literal["fd", "exact"] | None
    alpha_lr: float | None
    alpha_lr_min: float | None
    alpha_betas: Sequence[float] | None
    alpha_weight_decay: float | None
    alpha_init: float | None
    alpha_start: int | None
    alpha_optimizer: Literal["adam", "sgd"] | OptimizerFactory | None
    alpha_momentum: float | None
    alpha_every: int | None
    alpha_images: Literal["held_out", "training"] | None
    reference_accumulate: bool | None
    weight_lr: float | None
    weight_lr_min: float | None
    momentum: float | None
    nesterov: bool | None
    weight_decay: float | None
    clip: float | None
    rules: Sequence[str] | None
    threshold: float | None
    edges_per_node: Sequence[int] | None
    edges_per_cell: int | None
    ops_per_edge: int | None
    max_skips: int | None
    track_distance: bool | None
    early_stop: bool | None
    stop_tolerance: float | None
    stop_window: int | None
    stop_after: int | None
    distance_rule: Literal["auto", "darts", "edge", "sparse", "complete", "configuration"] | None
    distance_scores: str | None
    curvature_stop: bool | None
    curvature_window: int | None
    curvature_delay: int | None
    curvature_ratio: float | None
    curvature_steps: int | None
    selection: Literal["none", "perturbation"] | None
    selection_measure: Literal["metric", "loss"] | None
    selection_every: int | None
    selection_lr: float | None
    op_stop: bool | None
    op_stop_similarity: float | None
    op_stop_window: int | None
    stage_cells: Sequence[int] | None
    stage_ops: Sequence[int] | None
    skip_dropout: Sequence[float] | None
    evaluations: int | None
    population: int | None
    tournament: int | None
    evaluation_epochs: int | None
    evaluation_table: Literal["cifar10", "cifar100", "imagenet16"] | None
    shrink_steps: int | None
    shrink_interval: int | None
    shrink_by: Literal["measure", "alphas"] | None
    measure_form: Literal["code", "paper"] | None
    measure_samples: int | None
    measure_every: int | None
    measure_curve: int | None
    shuffle: bool | None
    bptt: int | None
    dropout_output: float | None
    dropout_hidden: float | None
    dropout_inputs: float | None
    dropout_embedding: float | None
    dropout_words: float | None
    slowness_penalty: float | None
    activation_penalty: float | None
    unrolled_clip: Literal["bounded", "reference"] | None

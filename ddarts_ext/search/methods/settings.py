"""What can be set of a search method, subject by subject; every setting is a field here and named once."""

from __future__ import annotations

from dataclasses import dataclass

from ddarts_ext.genotype.configuration import Configuration
from ddarts_ext.runs.options import option
from ddarts_ext.search.architect import HESSIANS
from ddarts_ext.search.contributions.objectives import DELTA, GRADIENTS, SIGN_RULES, ZERO_ONE_FORMS
from ddarts_ext.search.entropy import CONTINUATIONS, continuation
from ddarts_ext.search.perturbation import PERTURBATIONS
from ddarts_ext.search.samplers import SAMPLERS

INACTIVE = ("bypass", "zero", "half", "random")
REMOVALS = ("all", "owners")
RULES = ("darts", "edge", "sparse", "complete", "configuration")
ALPHA_IMAGES = ("held_out", "training")
ALPHA_OPTIMIZERS = ("adam", "sgd")


@dataclass(frozen=True)
class Objectives:
    """What is added to the cross-entropy of every cell. A weight of 0 leaves the part out.

    zero_one_start: the part of the epochs in which alphas move that passes before the zero-one loss joins in. Its
    gradient grows with an alpha's distance from 0, whatever the images say: where steps are few, it otherwise makes
    final what the noise of the first ones said.
    zero_one_over: the mean of the zero-one loss runs over one cell's row (D-DARTS) or the whole table (FairDARTS).
    ablation_*: see :func:`.objectives.ablation` and :func:`.contributions.contributions`.
    ablation_every: contributions are computed every so many steps, and reused in between.
    ablation_memory: budget of the ablated passes, in units of one step's activations; by default 1 on a CPU, and on a
    GPU what its free memory allows.
    op_entropy_weight: of the entropies of the ops of every edge, summed. edge_entropy_weight: of those of the edges
    into every node, with edge_count_weight times the penalty for their number. *_growth: how they grow with the epochs,
    see :func:`.entropy.continuation`; entropy_growth is a factor of both, ``delayed_*`` begin when alphas move.
    beta_decay_weight: of :func:`.terms.beta_decay`, at the end; it grows linearly, by weight / epochs in every epoch.
    anchor_weight: of :func:`.samplers.anchor_divergence`, for op weights that a Dirichlet distribution gives.
    """

    zero_one_weight: float = 0.0
    zero_one_start: float = 0.0
    zero_one_form: str = option("l2", choices=ZERO_ONE_FORMS)
    zero_one_over: str = option("row", choices=("row", "table"))
    ablation_weight: float = 0.0
    ablation_sign: str = option("bounded", choices=SIGN_RULES)
    ablation_delta: float = DELTA
    ablation_gradient: str = option("exact", choices=GRADIENTS)
    ablation_inactive: str = option("bypass", choices=INACTIVE)
    ablation_removal: str = option("all", choices=REMOVALS)
    ablation_every: int = 1
    ablation_memory: float | None = None
    op_entropy_weight: float = 0.0
    op_entropy_growth: str = option("const", choices=CONTINUATIONS)
    edge_entropy_weight: float = 0.0
    edge_entropy_growth: str = option("const", choices=CONTINUATIONS)
    edge_count_weight: float = 0.2
    entropy_growth: str = option("const", choices=CONTINUATIONS)
    beta_decay_weight: float = 0.0
    anchor_weight: float = 0.0

    def strengths(self, epoch: int, epochs: int, start: int) -> dict[str, float]:
        """The factors of the terms that there are, in epoch ``epoch`` (from 1); alphas move after ``start``."""
        common = continuation(self.entropy_growth, epoch, epochs, start)
        terms = {
            "op_entropy": (self.op_entropy_weight, self.op_entropy_growth),
            "edge_entropy": (self.edge_entropy_weight, self.edge_entropy_growth),
        }
        found = {
            name: weight * common * continuation(growth, epoch, epochs, start)
            for name, (weight, growth) in terms.items()
            if weight
        }
        if self.beta_decay_weight:
            found["beta_decay"] = self.beta_decay_weight * (epoch - 1) / epochs
        if self.anchor_weight:
            found["anchor"] = self.anchor_weight
        return found


@dataclass(frozen=True)
class Mixing:
    """What becomes of op weights before ops are mixed by them.

    sampler: draws them anew in every pass, see :mod:`.samplers`. temperature: of the draws, falling linearly from the
    first epoch to ``temperature_end`` in the last; constant where that is None.
    compute_unchosen: ops that were not drawn are computed where nothing needs them: on a CPU they are otherwise left
    out in the steps of the weights and in judging, by samplers that draw one op of every edge.
    auxiliary_skip: a skip connection beside the ops of every edge, of this weight in the first epoch, which falls
    linearly, by weight / epochs in every epoch (DARTS-, 2009.01027). It shares the layers of the op skip_connect.
    perturbation: in the steps of the weights alone, see :mod:`.perturbation`. perturbation_first,
    perturbation_radius: how far each weight may move, in the first epoch and (linearly) at the end.
    perturbation_steps: of the gradient, for ``adversarial``.
    partial_channels: k, of which ops see one part in k of the channels of a state while the others pass them by, see
    :mod:`ddarts_ext.nn.partial` (PC-DARTS, 1907.05737). edge_normalisation: the edges into a node are weighted by a
    softmax of betas, which move as alphas do.
    """

    sampler: str = option("none", choices=("none", *SAMPLERS))
    temperature: float = 1.0
    temperature_end: float | None = None
    compute_unchosen: bool = False
    auxiliary_skip: float = 0.0
    perturbation: str = option("none", choices=("none", *PERTURBATIONS))
    perturbation_first: float = 0.03
    perturbation_radius: float = 0.3
    perturbation_steps: int = 7
    partial_channels: int = 1
    edge_normalisation: bool = False

    @property
    def draws_one(self) -> bool:
        """Whether one op of every edge weighs 1, and all others 0."""
        return self.sampler in ("gumbel_hard", "reinmax")

    def scheduled(self, epoch: int, epochs: int) -> dict[str, float]:
        """What changes from epoch to epoch, as far as it is used, in epoch ``epoch`` (from 1)."""
        found: dict[str, float] = {}
        if self.sampler not in ("none", "dirichlet"):
            end = self.temperature if self.temperature_end is None else self.temperature_end
            found["temperature"] = self.temperature + (end - self.temperature) * (epoch - 1) / max(1, epochs - 1)
        if self.auxiliary_skip:
            found["auxiliary_skip"] = self.auxiliary_skip * (1 - (epoch - 1) / epochs)
        if self.perturbation != "none":
            growth = self.perturbation_radius - self.perturbation_first
            found["radius"] = self.perturbation_first + growth * (epoch - 1) / epochs
        return found


@dataclass(frozen=True)
class Architect:
    """How alphas move: Adam, with a cosine schedule per epoch down to ``alpha_lr_min`` (constant where that is None).

    order: 1 takes the gradient at the current weights, 2 at weights unrolled by one step, with the product ``hessian``.
    alpha_init: standard deviation of the start values. alpha_start: first epoch (from 0) in which alphas move;
    the weights of edges move from the start.
    alpha_optimizer: ``sgd`` is one with ``alpha_momentum``. alpha_every: alphas move in every so many steps.
    alpha_images: ``training`` moves alphas by the very batches that move the weights (a single level); the images that
    are held out then judge alone.
    reference_accumulate: leave gradients as the published code of D-DARTS does, which clears a cell's alphas after its
    own step alone, and the weights' never in between: cell i of N (from 0) moves by (i+1) G_i of this step, (N-1-i) G_i
    of the step before and the gradient of the training loss since, the weights also by N times that of the validation
    loss. For repeating published results.
    """

    order: int = 1
    hessian: str = option("fd", choices=HESSIANS)
    alpha_lr: float = 3e-4
    alpha_lr_min: float | None = None
    alpha_betas: tuple[float, float] = (0.5, 0.999)
    alpha_weight_decay: float = 1e-3
    alpha_init: float = 0.0
    alpha_start: int = 0
    alpha_optimizer: str = option("adam", choices=ALPHA_OPTIMIZERS)
    alpha_momentum: float = 0.9
    alpha_every: int = 1
    alpha_images: str = option("held_out", choices=ALPHA_IMAGES)
    reference_accumulate: bool = False


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
    result; ``darts``, which needs no threshold, stands in where none does.

    edges_per_node, edges_per_cell, ops_per_edge: the target configuration, which the rule ``configuration`` reads and
    edge weights are driven to; see :class:`.Configuration`. max_skips: the result has at most so many skip connections
    in each gene of normal cells: the weakest give way to the next best, one by one (P-DARTS).
    """

    rules: tuple[str, ...] = ("darts",)
    threshold: float = 0.85
    edges_per_node: tuple[int, ...] = ()
    edges_per_cell: int = 0
    ops_per_edge: int = 1
    max_skips: int | None = None

    @property
    def configuration(self) -> Configuration:
        return Configuration(self.edges_per_node, self.edges_per_cell, self.ops_per_edge)


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
    early_stop: bool = option(False, "Stop once the distance to the start has settled.", shown="dartopti only")
    stop_tolerance: float = 0.001
    stop_window: int = 4
    stop_after: int = 5
    distance_rule: str = option("auto", choices=("auto", *RULES))
    distance_scores: str = "median"


@dataclass(frozen=True)
class Curvature:
    """When the loss around the alphas is too curved to go on: settings of the part ``curvature``.

    curvature_stop: end the search where the mean dominant eigenvalue of ``curvature_window`` epochs,
    ``curvature_delay`` epochs ago, is below ``curvature_ratio`` of that of now, and return to the alphas of then
    (DARTS-ES). It is measured by ``curvature_steps`` power iterations, on one batch an epoch; they begin where those of
    the epoch before ended.
    """

    curvature_stop: bool = False
    curvature_window: int = 3
    curvature_delay: int = 5
    curvature_ratio: float = 0.75
    curvature_steps: int = 10


@dataclass(frozen=True)
class Text:
    """What a search on text has: of methods in a recurrent space.

    bptt: steps of a segment that gradients go back through; one in twenty has half as many. The rate of a step is
    ``weight_lr`` times its part of ``bptt``. dropout_*: rates, see :class:`ddarts_ext.nn.recurrent.Dropout`; masks are
    the same for all steps of a segment. slowness_penalty: of changes of the hidden state, activation_penalty: of its
    size, see :meth:`ddarts_ext.nn.recurrent.Output.loss`; both count for the weights alone.
    unrolled_clip: with ``order=2`` the look-ahead is clipped as ``clip`` says, and the second-order term is scaled by
    min(k, 1); ``reference`` scales it by k = clip / norm even where nothing was clipped, as the published code does.
    """

    bptt: int = 35
    dropout_output: float = 0.75
    dropout_hidden: float = 0.25
    dropout_inputs: float = 0.75
    dropout_embedding: float = 0.2
    dropout_words: float = 0.0
    slowness_penalty: float = 1e-3
    activation_penalty: float = 0.0
    unrolled_clip: str = option("bounded", choices=("bounded", "reference"))

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if name.startswith("dropout") and not value < 1:
                raise ValueError(f"search: {name} must be below 1, got {value}")

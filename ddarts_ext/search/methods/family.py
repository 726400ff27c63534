"""Methods of the family of DARTS: one part more, or another one, than DARTS has. docs/family.md has their equations."""

from __future__ import annotations

from dataclasses import replace

from ddarts_ext.search.methods.catalogue import IN_SPACE, get, register
from ddarts_ext.search.methods.choosing import OpStopping, Selection, Stages
from ddarts_ext.search.methods.method import Method
from ddarts_ext.search.methods.settings import Architect, Curvature, Discretisation, Mixing, Objectives, Weights

_DARTS = get("darts")


def _named(name: str, summary: str, source: str, **parts: object) -> Method:
    """DARTS with other parts, registered under a name of its own."""
    return register(replace(_DARTS, name=name, summary=summary, source=source, **parts))  # type: ignore[arg-type]


_named(
    "single-level",
    "DARTS whose alphas move by the batches of the weights; the held-out images judge alone",
    "DARTS, 1806.09055, alternative optimisation strategies",
    architect=Architect(alpha_init=1e-3, alpha_images="training"),
)
_BETA = _named(
    "beta-darts",
    "DARTS whose alphas are held back by ln sum exp a, the more the longer it searches",
    "beta-DARTS, 2203.01665, and its implementation (weight 0 to 50)",
    objectives=Objectives(beta_decay_weight=50.0),
)
_named(
    "darts-minus",
    "DARTS with a skip connection beside the ops of every edge, whose weight falls from 1 to 0",
    "DARTS-, 2009.01027, and its implementation (linear)",
    mixing=Mixing(auxiliary_skip=1.0),
)
_named(
    "darts-es",
    "DARTS that ends when the loss around its alphas becomes too curved, and returns to the alphas before that",
    "RobustDARTS, 1909.09656 (DARTS-ES), first order",
    curvature=Curvature(curvature_stop=True),
    parts=("curvature",),
)
_named(
    "sdarts-rs",
    "DARTS whose weights train with op weights drawn from a box around the current ones, which grows",
    "SmoothDARTS, 2002.05283 (SDARTS-RS), and its implementation (0.03 to 0.3)",
    mixing=Mixing(perturbation="random"),
)
_named(
    "sdarts-adv",
    "DARTS whose weights train with the worst op weights in a box around the current ones, which grows",
    "SmoothDARTS, 2002.05283 (SDARTS-ADV), and its implementation (0.03 to 0.3, 7 steps)",
    mixing=Mixing(perturbation="adversarial"),
)
_GDAS = _named(
    "gdas",
    "one op of every edge, drawn in every pass; Gumbel noise, gradient straight through",
    "GDAS, 1910.04465, and its implementation (temperature 10 to 0.1)",
    mixing=Mixing(sampler="gumbel_hard", temperature=10.0, temperature_end=0.1),
    weights=Weights(weight_decay=5e-4, nesterov=True),
    epochs=250,
    batch=256,
)
_named(
    "reinmax",
    "GDAS with another gradient: of second order, at temperature 1",
    "ReinMax, 2304.08612, algorithm 2; the rest as gdas",
    mixing=Mixing(sampler="reinmax"),
    weights=_GDAS.weights,
    epochs=_GDAS.epochs,
    batch=_GDAS.batch,
)
_named(
    "snas",
    "op weights are softmaxes with Gumbel noise, drawn in every pass; a single level",
    "SNAS, 1812.09926; its temperatures are not published, 1 to 0.1 are ours",
    mixing=Mixing(sampler="concrete", temperature=1.0, temperature_end=0.1),
    architect=Architect(alpha_init=1e-3, alpha_images="training"),
    epochs=150,
)
_DRNAS = _named(
    "drnas",
    "op weights drawn from Dirichlet(elu(a) + 1) in every pass",
    "DrNAS, 2006.10355, and its implementation, without its stages and partial channels",
    space="darts",
    mixing=Mixing(sampler="dirichlet"),
    architect=Architect(alpha_init=1e-3, alpha_lr=6e-4, alpha_start=10),
    weights=Weights(weight_lr=0.1, weight_lr_min=0.0),
)
_named(
    "oles",
    "DARTS whose ops stop training one by one, when they learn what the held-out images do not bear out",
    "OLES, Jiang et al., NeurIPS 2023, and its implementation (0.4 over 20 steps)",
    stopping=OpStopping(op_stop=True),
)
_PC = _named(
    "pcdarts",
    "DARTS whose ops see a quarter of the channels, with weighted edges; alphas rest for 15 epochs",
    "PC-DARTS, 1907.05737, section 4 and its implementation",
    mixing=Mixing(partial_channels=4, edge_normalisation=True),
    architect=Architect(alpha_init=1e-3, alpha_lr=6e-4, alpha_start=15),
    weights=Weights(weight_lr=0.1, weight_lr_min=0.0),
    batch=256,
)
_named(
    "pdarts",
    "DARTS in three stages, of more cells and fewer ops each; skip connections are dropped out, two may stay",
    "P-DARTS, 1904.12760, and its implementation (5, 11 and 17 cells; 8, 5 and 3 ops; dropout 0.1, 0.4 and 0.7)",
    stages=Stages(stage_cells=(0, 6, 12), stage_ops=(5, 3), skip_dropout=(0.1, 0.4, 0.7)),
    architect=Architect(alpha_init=1e-3, alpha_lr=6e-4, alpha_start=10),
    weights=Weights(weight_lr_min=0.0),
    discretisation=Discretisation(max_skips=2),
    parts=("stages",),
    epochs=75,
    cells=5,
    batch=96,
)
_PT = _named(
    "darts-pt",
    "DARTS whose result is chosen by what the trained supernet misses most, op by op, and tuned in between",
    "DARTS-PT, 2108.04392, and its implementation (10 epochs between decisions, nasbench201: 5; weights 0.0025)",
    space="darts",
    selection=Selection(selection="perturbation"),
)

IN_SPACE.update(
    {
        (method.name, "nasbench201"): replace(method, space="nasbench201", cells=15, **settings)
        for method, settings in (
            (_BETA, {"epochs": 100}),
            (_GDAS, {"batch": 64}),
            (_PT, {"epochs": 100, "selection": Selection(selection="perturbation", selection_every=5)}),
            (_DRNAS, {"epochs": 100, "architect": Architect(alpha_init=1e-3), "weights": Weights()}),
        )
    }
)

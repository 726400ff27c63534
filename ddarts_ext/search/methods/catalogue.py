"""The search methods by name, with their published settings."""

from __future__ import annotations

from dataclasses import replace

from ddarts_ext.search.methods.baseline import Baseline
from ddarts_ext.search.methods.method import Method
from ddarts_ext.search.methods.settings import Architect, Discretisation, Distance, Objectives, Text, Weights
from ddarts_ext.search.shrinking.steps import Shrinking

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


register(
    Method(
        name="random",
        summary="an architecture drawn uniformly from what the first rule (--set rules) gives, or the best of some",
        source="the baseline of every search",
        space="darts",
        relaxation="sigmoid",
        sharing="individual",
        discretisation=Discretisation(rules=("darts",)),
        epochs=1,
        random=True,
    )
)
register(
    Method(
        name="evolution",
        summary="regularised evolution: mutations of the best of a few, of architectures that die of age",
        source="Real et al., 1802.01548; evaluations, population and tournament as in NATS-Bench, 2009.00437",
        space="darts",
        relaxation="sigmoid",
        sharing="normal_reduction",
        discretisation=Discretisation(rules=("darts",)),
        baseline=Baseline(evaluations=200, population=10, tournament=3),
        epochs=1,
        random=True,
    )
)


register(
    Method(
        name="da2s",
        summary="DARTS whose ops and edges decide while it searches: entropies, and edge weights with a target",
        source="DA2S, 2007.03154, and its implementation; space darts, or nasbench201 with settings of its own",
        space="darts",
        relaxation="cubic_softmax",
        sharing="normal_reduction",
        edge_relaxation="clamped_softmax",
        objectives=Objectives(
            entropy_growth="linear",
            op_entropy_weight=0.1,
            op_entropy_growth="delayed_log",
            edge_entropy_weight=0.4,
        ),
        architect=Architect(alpha_init=1e-4, alpha_start=7),
        discretisation=Discretisation(rules=("configuration",)),
    )
)

IN_SPACE = {
    ("da2s", "nasbench201"): Method(
        name="da2s",
        summary="without edge weights, alphas on the training images",
        source="DA2S, 2007.03154, and its implementation",
        space="nasbench201",
        relaxation="softmax",
        sharing="normal_reduction",
        objectives=Objectives(op_entropy_weight=0.5, op_entropy_growth="late_linear"),
        architect=Architect(
            alpha_init=1e-3,
            alpha_optimizer="sgd",
            alpha_lr=3e-3,
            alpha_start=15,
            alpha_every=5,
            alpha_images="training",
        ),
        weights=Weights(weight_lr=0.05),
        cells=15,
        batch=256,
    )
}
"""Methods that are another composition in another space, by name and space."""
IN_SPACE["darts", "rnn"] = Method(
    name="darts",
    summary="softmax over activations, one recurrent cell, one edge per node",
    source="DARTS, 1806.09055, section 3.1 and its implementation",
    space="rnn",
    relaxation="softmax",
    sharing="normal_reduction",
    architect=Architect(alpha_init=1e-3, alpha_lr=3e-3, alpha_betas=(0.9, 0.999)),
    weights=Weights(weight_lr=20.0, weight_lr_min=20.0, momentum=0.0, weight_decay=5e-7, clip=0.25),
    text=Text(),
    cells=1,
    channels=300,
    batch=256,
)


SHRINKING_SPACES = {"nasbench201": "nasbench201", "darts": "isdarts", "isdarts": "isdarts"}
"""Spaces of methods that shrink, as they are asked for: IS-DARTS has a DARTS space of its own (biases, pools without
norm)."""


def variant(method: str | Method, space: str | None) -> Method:
    """The method in another space, with the settings that were published for it: of :data:`IN_SPACE`, or, where it
    shrinks, 4 steps in 30 epochs, or 7 in 50 with two ops per node. The network of NAS-Bench-201 has 15 cells,
    whatever the method."""
    method = get(method)
    known = method is METHODS.get(method.name)
    if space is not None and known and (method.name, space) in IN_SPACE:
        return IN_SPACE[method.name, space]
    if method.shrinking is None:
        cells = 15 if known and space == "nasbench201" else method.cells
        return method if space is None else replace(method, space=space, cells=cells)
    name = method.space if space is None else SHRINKING_SPACES.get(space)
    if name is None:
        raise ValueError(f"search: space must be nasbench201 or darts for method {method.name}, got {space!r}")
    if name == method.space:
        return method
    if name == "nasbench201":
        how = replace(method.shrinking, shrink_steps=4, shrink_interval=2, measure_samples=200)
        return replace(method, space=name, epochs=30, cells=15, shrinking=how)
    how = replace(method.shrinking, shrink_steps=7, shrink_interval=3, measure_samples=600)
    return replace(method, space=name, epochs=50, cells=8, shrinking=how)

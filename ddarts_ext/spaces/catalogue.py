"""The spaces of the papers."""

from dataclasses import replace
from functools import cache

from ddarts_ext.spaces.space import Space

ACTIVATIONS = ("tanh", "relu", "sigmoid", "identity")
"""The ops of recurrent cells."""
_FAIRDARTS = (
    "max_pool_3x3",
    "avg_pool_3x3",
    "skip_connect",
    "sep_conv_3x3",
    "sep_conv_5x5",
    "dil_conv_3x3",
    "dil_conv_5x5",
)

_SPACES = {
    space.name: space
    for space in (
        # FairDARTS and D-DARTS: DARTS without `none`.
        Space("darts", _FAIRDARTS),
        Space("darts_none", ("none", *_FAIRDARTS)),
        Space(
            "dartopti",
            (
                "conv_3x1_1x3",
                "conv_7x1_1x7",
                "max_pool_3x3",
                "avg_pool_3x3",
                "skip_connect",
                "simple_conv_1x1",
                "simple_conv_3x3",
                "sep_conv_3x3",
                "sep_conv_5x5",
                "dil_conv_3x3",
                "dil_conv_5x5",
                "bottleneck_1x3x1",
            ),
        ),
        Space(
            "isdarts",
            (
                "none",
                "skip_connect",
                "dua_sepc_3x3",
                "dua_sepc_5x5",
                "dil_sepc_3x3",
                "dil_sepc_5x5",
                "avg_pool_3x3",
                "max_pool_3x3",
            ),
            selection="two_ops",
            pool_norm=False,
            conv_bias=True,
            track_statistics=False,
            final_norm=True,
            evaluation_ops=(
                "none",
                "skip_connect",
                "sep_conv_3x3",
                "sep_conv_5x5",
                "dil_conv_3x3",
                "dil_conv_5x5",
                "avg_pool_3x3",
                "max_pool_3x3",
            ),
        ),
        Space(
            "nasbench201",
            ("none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3"),
            steps=3,
            multiplier=1,
            inputs=1,
            selection="every_edge",
            pool_norm=False,
            conv_bias=True,
            track_statistics=False,
            final_norm=True,
        ),
        # The cell of DARTS' language models: node 0 is made of the input and the hidden state before.
        Space(
            "rnn",
            ("none", *ACTIVATIONS),
            steps=8,
            multiplier=8,
            inputs=1,
            selection="one_edge",
        ),
    )
}

EXTRA_OPS = ("sep_conv_7x7",)
"""Ops that genotypes may name although no space above searches over them."""


_OWN_OPS: set[str] = set()


def register(space: Space) -> Space:
    """Make a space known by its name, to searches and genotypes; ``space`` itself, so that it can be kept at once.

    Its ops are those of this package or of :func:`ddarts_ext.nn.register_primitive`. Registering the same again changes
    nothing. Raises ValueError where another space has the name and for an op that nobody knows, TypeError for what is
    no :class:`Space`.
    """
    if not isinstance(space, Space):
        raise TypeError(f"spaces.register: space must be a Space, got {type(space).__name__}")
    for op in (*space.ops, *space.evaluation_ops):
        if op not in known_ops():
            raise ValueError(
                f"spaces.register: ops of {space.name} must be known, or made so by register_primitive before, "
                f"got {op!r}"
            )
    if _SPACES.get(space.name, space) != space:
        raise ValueError(f"spaces.register: name must be that of no other space, got {space.name!r}")
    _SPACES[space.name] = space
    known_ops.cache_clear()
    return space


def names() -> tuple[str, ...]:
    """The names `get` knows."""
    return tuple(_SPACES)


def get(name: str, steps: int | None = None, multiplier: int | None = None) -> Space:
    """The space of that name, with another number of steps or output nodes where told.

    With `steps` alone the multiplier of the space is kept as far as there are nodes for it: 4 of 6 nodes for the
    12-op space of a ResNet50 start.
    """
    if name not in _SPACES:
        raise ValueError(f"spaces.get: name must be one of {', '.join(_SPACES)}, got {name!r}")
    space = _SPACES[name]
    steps = space.steps if steps is None else steps
    multiplier = min(space.multiplier, steps) if multiplier is None else multiplier
    return replace(space, steps=steps, multiplier=multiplier)


def add_op(name: str) -> None:
    """Make an op known by its name; whoever builds it does so (:func:`ddarts_ext.nn.register_primitive`)."""
    _OWN_OPS.add(name)
    known_ops.cache_clear()


@cache
def known_ops() -> frozenset[str]:
    """Every op name that a genotype may hold."""
    named = frozenset(op for space in _SPACES.values() for op in (*space.ops, *space.evaluation_ops))
    return named | {*EXTRA_OPS, *_OWN_OPS}

"""What can be searched: spaces as data. See space.py for their shape and catalogue.py for the ones there are."""

from ddarts_ext.spaces.catalogue import ACTIVATIONS, EXTRA_OPS, add_op, get, known_ops, names, register
from ddarts_ext.spaces.space import Edge, Space, third_reductions

__all__ = [
    "ACTIVATIONS",
    "EXTRA_OPS",
    "Edge",
    "Space",
    "add_op",
    "get",
    "known_ops",
    "names",
    "register",
    "third_reductions",
]

"""Search methods: compositions of named parts, declared as data."""

from ddarts_ext.search.methods import family as _family  # noqa: F401  # it registers methods
from ddarts_ext.search.methods.baseline import Baseline
from ddarts_ext.search.methods.catalogue import IN_SPACE, METHODS, get, register, variant
from ddarts_ext.search.methods.choosing import OpStopping, Selection, Stages
from ddarts_ext.search.methods.method import Method, setting_names
from ddarts_ext.search.methods.settings import Architect, Discretisation, Distance, Mixing, Objectives, Text, Weights
from ddarts_ext.search.methods.small_data import preset

__all__ = [
    "IN_SPACE",
    "METHODS",
    "Architect",
    "Baseline",
    "Discretisation",
    "Distance",
    "Method",
    "Mixing",
    "Objectives",
    "OpStopping",
    "Selection",
    "Stages",
    "Text",
    "Weights",
    "get",
    "preset",
    "register",
    "setting_names",
    "variant",
]

"""Search methods: compositions of named parts, declared as data."""

from ddarts_ext.search.methods import family as _family  # noqa: F401  # it registers methods
from ddarts_ext.search.methods.catalogue import METHODS, get, register, variant
from ddarts_ext.search.methods.method import Method, setting_names
from ddarts_ext.search.methods.settings import Architect, Discretisation, Distance, Mixing, Objectives, Weights
from ddarts_ext.search.methods.small_data import preset

__all__ = [
    "METHODS",
    "Architect",
    "Discretisation",
    "Distance",
    "Method",
    "Mixing",
    "Objectives",
    "Weights",
    "get",
    "preset",
    "register",
    "setting_names",
    "variant",
]

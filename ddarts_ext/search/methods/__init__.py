"""Search methods: compositions of named parts, declared as data."""

from ddarts_ext.search.methods.catalogue import METHODS, get, preset, register, variant
from ddarts_ext.search.methods.method import Method, setting_names
from ddarts_ext.search.methods.settings import Architect, Discretisation, Distance, Objectives, Weights

__all__ = [
    "METHODS",
    "Architect",
    "Discretisation",
    "Distance",
    "Method",
    "Objectives",
    "Weights",
    "get",
    "preset",
    "register",
    "setting_names",
    "variant",
]

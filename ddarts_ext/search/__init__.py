"""Searching an architecture. ``Searcher`` is the loop; methods.py says what a method is made of."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ddarts_ext.genotype.start import Start
    from ddarts_ext.search.methods import Method, register
    from ddarts_ext.search.parts import Part
    from ddarts_ext.search.result import SearchResult
    from ddarts_ext.search.searcher import Searcher
    from ddarts_ext.search.seeds import SeedResults, search_seeds
    from ddarts_ext.search.shrinking.shrinker import Shrinker

_HOMES = {
    "Method": "ddarts_ext.search.methods",
    "Part": "ddarts_ext.search.parts",
    "SearchResult": "ddarts_ext.search.result",
    "Searcher": "ddarts_ext.search.searcher",
    "SeedResults": "ddarts_ext.search.seeds",
    "search_seeds": "ddarts_ext.search.seeds",
    "Shrinker": "ddarts_ext.search.shrinking.shrinker",
    "Start": "ddarts_ext.genotype.start",
    "register": "ddarts_ext.search.methods",
}
__all__ = ["Method", "Part", "SearchResult", "Searcher", "SeedResults", "Shrinker", "Start", "register", "search_seeds"]


def __getattr__(name: str) -> Any:
    # On first use: a part of the package that needs one file in here must not load the whole loop.
    from importlib import import_module

    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)

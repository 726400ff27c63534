"""Differentiable architecture search with a cell of its own at every depth (D-DARTS) and its relatives."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from ddarts_ext import ops

if TYPE_CHECKING:
    from ddarts_ext.acceleration import accelerate, restore
    from ddarts_ext.comparison import compare, optimise
    from ddarts_ext.distance import architecture_distance
    from ddarts_ext.genotype import Genotype, derive, discretize
    from ddarts_ext.nn import DiscreteNetwork, Supernet, create_model, list_models
    from ddarts_ext.reporting import report
    from ddarts_ext.search import Searcher, SearchResult, Shrinker, search_seeds
    from ddarts_ext.training import Trainer, load_network

    __version__: str

# Where each public name lives; imported when first asked for, so that one op costs no search.
_HOME = {
    "DiscreteNetwork": "nn",
    "Genotype": "genotype",
    "SearchResult": "search",
    "Searcher": "search",
    "Shrinker": "search",
    "Supernet": "nn",
    "Trainer": "training",
    "accelerate": "acceleration",
    "architecture_distance": "distance",
    "compare": "comparison",
    "create_model": "nn",
    "derive": "genotype",
    "discretize": "genotype",
    "list_models": "nn",
    "load_network": "training",
    "optimise": "comparison",
    "report": "reporting",
    "restore": "acceleration",
    "search_seeds": "search",
}

__all__ = [
    "DiscreteNetwork",
    "Genotype",
    "SearchResult",
    "Searcher",
    "Shrinker",
    "Supernet",
    "Trainer",
    "__version__",
    "accelerate",
    "architecture_distance",
    "compare",
    "create_model",
    "derive",
    "discretize",
    "list_models",
    "load_network",
    "ops",
    "optimise",
    "report",
    "restore",
    "search_seeds",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        value = import_module(f"{__name__}.info").version()
    elif name in _HOME:
        value = getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

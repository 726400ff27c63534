"""Methods against each other and against random architectures, trained and judged alike: ``compare``; a network that
exists against what a search makes of it: ``optimise``."""

from ddarts_ext.comparison.improvement import Optimised, optimise
from ddarts_ext.comparison.plan import Contender, Plan
from ddarts_ext.comparison.run import Comparison, compare

__all__ = ["Comparison", "Contender", "Optimised", "Plan", "compare", "optimise"]

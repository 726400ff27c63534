"""Methods against each other and against random architectures, trained and judged alike: ``compare``."""

from ddarts_ext.comparison.plan import Contender, Plan
from ddarts_ext.comparison.run import Comparison, compare

__all__ = ["Comparison", "Contender", "Plan", "compare"]

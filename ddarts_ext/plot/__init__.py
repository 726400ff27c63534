"""Pictures: of runs and of distances drawn by matplotlib, of cells also without it."""

from ddarts_ext.plot.cells import plot_genotype
from ddarts_ext.plot.run import plot_run

__all__ = ["plot_genotype", "plot_run"]

"""Pictures of runs and of distances, drawn by matplotlib."""

from ddarts_ext.plot.run import plot_run

__all__ = ["plot_run"]

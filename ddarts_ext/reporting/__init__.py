"""Reports: runs side by side in one HTML file that needs nothing else."""

from ddarts_ext.reporting.page import report

__all__ = ["report"]

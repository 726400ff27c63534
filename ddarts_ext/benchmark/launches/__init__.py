"""What the steps of a search dispatch, and how many launches that is on CUDA, counted without a GPU.

Ops of this package declare their launches (checked against their emulated launchers); for torch's there is a model.
"""

from ddarts_ext.benchmark.launches.counter import Counted, count
from ddarts_ext.benchmark.launches.report import LaunchRow, launch_rows, launch_table
from ddarts_ext.benchmark.launches.steps import STEPS, Sizes, counts

__all__ = ["STEPS", "Counted", "LaunchRow", "Sizes", "count", "counts", "launch_rows", "launch_table"]

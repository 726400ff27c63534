"""Benchmarks: cases that are proved equal before they are timed, in turn, in one run; see ``benchmarks/README.md``."""

from ddarts_ext.benchmark.case import LAYOUTS, SHAPES, Case, batches, place, runner
from ddarts_ext.benchmark.files import load_file, neighbour
from ddarts_ext.benchmark.measurement import measure
from ddarts_ext.benchmark.report import Failure, Report, Row, device_stamp
from ddarts_ext.benchmark.suite import load_cases, load_modules, run

__all__ = [
    "LAYOUTS",
    "SHAPES",
    "Case",
    "Failure",
    "Report",
    "Row",
    "batches",
    "device_stamp",
    "load_cases",
    "load_file",
    "load_modules",
    "measure",
    "neighbour",
    "place",
    "run",
    "runner",
]

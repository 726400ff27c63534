"""A table of all architectures of NAS-Bench-201 with accuracies that a test makes up."""

from __future__ import annotations

import csv
import itertools
from collections.abc import Callable, Sequence
from pathlib import Path

from ddarts_ext import spaces


def write_table(file: Path, columns: Sequence[str], values: Callable[[int, tuple[str, ...]], Sequence[float]]) -> Path:
    """values: of an index and the ops of its six edges, one a column."""
    with file.open("w", newline="") as out:
        writer = csv.writer(out)
        writer.writerow(["index", "arch", *columns])
        for index, ops in enumerate(itertools.product(spaces.get("nasbench201").genotype_ops, repeat=6)):
            a, b, c, d, e, f = ops
            writer.writerow([index, f"|{a}~0|+|{b}~0|{c}~1|+|{d}~0|{e}~1|{f}~2|", *values(index, ops)])
    return file

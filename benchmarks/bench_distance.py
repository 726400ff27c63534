"""All distances between 1,000 architectures of 8 cells, against the plain loop over cells, edges and ops.

    python benchmarks/bench_distance.py [architectures]

The loop takes the better part of an hour for all pairs: it is timed on a sample of them, on which the two must agree.
Exits with 1 when they do not, or when the speed-up is below 100.
"""

from __future__ import annotations

import random
import sys
import time

import numpy as np

from ddarts_ext import spaces
from ddarts_ext.distance import distance_matrix
from ddarts_ext.distance.op_scores import load_scores
from ddarts_ext.genotype import Cell, Genotype
from ddarts_ext.genotype.discretisation import Rule, discretize

CELLS, SAMPLE, TARGET = 8, 50, 100.0
SPACE = spaces.get("dartopti")


def architectures(count: int, rule: Rule, threshold: float) -> list[Genotype]:
    rng = np.random.default_rng(0)
    shape = (CELLS, len(SPACE.edges), len(SPACE.ops))
    return [discretize(rng.random(shape), SPACE, rule, threshold=threshold) for _ in range(count)]


def loop(a: Genotype, b: Genotype, scores: list[float]) -> float:
    """The definition: per cell the Hausdorff distance of the edges, each a row of zeros and ones."""

    def hamming(u: list[bool], v: list[bool]) -> float:
        return sum(weight for weight, x, y in zip(scores, u, v, strict=True) if x != y) / whole

    def directed(xs: list[list[bool]], ys: list[list[bool]]) -> float:
        return max(min(hamming(x, y) for y in ys) for x in xs)

    def rows(cell: Cell) -> list[list[bool]]:
        return SPACE.table(cell).tolist()

    whole = sum(scores)
    total = 0.0
    for x, y in zip(map(rows, a.cells), map(rows, b.cells), strict=True):
        total += max(directed(x, y), directed(y, x))
    return total / CELLS


def main(count: int) -> int:
    table = load_scores("median")
    scores = [table[op] for op in SPACE.ops]
    worst = float("inf")
    rules: tuple[tuple[Rule, float], ...] = (("sparse", 0.85), ("edge", 0.85), ("complete", 0.5))
    for rule, threshold in rules:
        several = architectures(count, rule, threshold)
        pairs = [tuple(random.Random(i).sample(range(count), 2)) for i in range(SAMPLE)]
        start = time.perf_counter()
        matrix = distance_matrix(several)
        fast = time.perf_counter() - start
        start = time.perf_counter()
        expected = [loop(several[i], several[j], scores) for i, j in pairs]
        slow = (time.perf_counter() - start) / SAMPLE * count * (count - 1) / 2
        error = max(abs(matrix[i, j] - value) for (i, j), value in zip(pairs, expected, strict=True))
        start = time.perf_counter()
        distance_matrix(several, positional=True)
        positional = time.perf_counter() - start
        print(
            f"{rule:8} {count} architectures: {fast:.2f} s (positional {positional:.2f} s), loop {slow:.0f} s, "
            f"{slow / fast:.0f}x, largest difference {error:.1e}"
        )
        worst = min(worst, slow / fast if error <= 1e-12 else 0.0)
    return 0 if worst >= TARGET else 1


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]) if len(sys.argv) > 1 else 1000))

"""The distance between architectures (D-DARTS, section 3.5): op by op, edge by edge, cell by cell.

An edge is the set of its ops, and two edges are the weighted Hamming distance apart,
d(u, v) = sum_k w_k [u_k != v_k] / sum_k w_k, with the op scores w. A cell is the set of its edges, empty ones included;
two cells are the symmetric Hausdorff distance apart. Two architectures: the mean over the cells at equal positions.
Where an edge sits plays no part, nor which nodes a cell joins, so that different architectures may be at distance 0.
`positional=True` is a metric of cells as sets of edges at their places:
two cells are the mean over the edge positions of d apart.

An edge is coded as an integer, one bit per op, so that d is a table over the exclusive or of two codes.
"""

import math
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from ddarts_ext.distance.op_scores import BUILT_IN, load_scores
from ddarts_ext.genotype import Cell, Gene, Genotype

Scores = Mapping[str, float] | str | os.PathLike[str]
Over = Literal["seq", "genes"]
Matrix = npt.NDArray[np.float64]
Codes = npt.NDArray[np.int64]

_BITS = 16  # ops per lookup table: 512 KiB, and 32 KiB for the 12 ops of the paper
_CODES = 4096  # distinct edges up to which all their distances are kept: 128 MiB, all that 12 ops can make
_CACHED = 1 << 14  # distances looked up at a time, so that the indices stay in the cache
_BLOCK = 256  # columns at a time: bounds the temporaries to 256 columns


def architecture_distance(
    a: Genotype,
    b: Genotype,
    *,
    scores: Scores = "median",
    over: Over = "seq",
    pad_with: float | None = None,
    positional: bool = False,
) -> float:
    """The distance of two architectures, from 0 to 1.

    scores: the op scores; `median` (the paper's table), `mean` (the table of its code), a mapping from op names or a
    score file. over: compare all cells (`seq`) or the distinct ones (`genes`, as the published code does). pad_with:
    architectures of different length are compared as far as the shorter goes, or with this distance for every cell
    that is missing. positional: the mean over edge positions instead of the Hausdorff distance, for architectures of
    equal length; shorter cells are padded with empty edges.

    Raises ValueError for ops without a score and for `positional` with different lengths.
    """
    return float(distance_matrix((a, b), scores=scores, over=over, pad_with=pad_with, positional=positional)[0, 1])


def cell_distance(
    a: Iterable[Gene],
    b: Iterable[Gene],
    *,
    steps: int = 4,
    inputs: int = 2,
    scores: Scores = "median",
    positional: bool = False,
) -> float:
    """The distance of two cells with `steps` intermediate nodes each."""
    concat = tuple(range(inputs, inputs + steps))
    one, two = (Genotype((tuple(cell),), concat=concat, inputs=inputs) for cell in (a, b))
    return architecture_distance(one, two, scores=scores, positional=positional)


def distance_matrix(
    genotypes: Sequence[Genotype],
    *,
    scores: Scores = "median",
    over: Over = "seq",
    pad_with: float | None = None,
    positional: bool = False,
) -> Matrix:
    """The distances of all pairs, float64 [n, n]; arguments as in `architecture_distance`.

    With `positional` all cells are padded to the largest one among `genotypes`: the mean is over the same number of
    positions for every pair, without which the triangle inequality would not hold. Memory is a few times the result.
    """
    if over not in get_args(Over):
        raise ValueError(f"distance: over must be one of {', '.join(get_args(Over))}, got {over!r}")
    if pad_with is not None and not 0 <= pad_with < math.inf:
        raise ValueError(f"distance: pad_with must be a distance, 0 or more and finite, got {pad_with:g}")
    for genotype in genotypes:
        if not isinstance(genotype, Genotype):
            raise TypeError(f"distance: architectures must be Genotypes, as Genotype.load gives, got {genotype!r:.100}")
        if genotype.recurrent and isinstance(scores, str) and scores in BUILT_IN:
            raise ValueError(
                f"distance: scores must be given for recurrent cells, whose activations none are published for, got "
                f"{scores!r}"
            )
    lists = [genotype.cells if over == "seq" else genotype.genes for genotype in genotypes]
    lengths = np.array([len(cells) for cells in lists], dtype=np.int64)
    if positional:
        _check_positional(genotypes, lengths)
    hamming = _Hamming(load_scores(scores))
    coded = [
        [hamming.encode(cell, genotype) for cell in cells] for cells, genotype in zip(lists, genotypes, strict=True)
    ]
    between_cells = hamming.positional if positional else _Hausdorff(hamming, coded)
    total = np.zeros((len(lists), len(lists)))
    for position in range(max(lengths, default=0)):
        present = np.flatnonzero(lengths > position)
        cells, which = _distinct([coded[i][position] for i in present.tolist()], positional)
        part = between_cells(cells)[which[:, None], which]
        if len(present) == len(lists):
            total += part
        else:
            total[np.ix_(present, present)] += part
    shorter = np.minimum(lengths[:, None], lengths)
    if pad_with is None:
        return total / shorter
    longer = np.maximum(lengths[:, None], lengths)
    return (total + pad_with * (longer - shorter)) / longer


def _check_positional(genotypes: Sequence[Genotype], lengths: Codes) -> None:
    different = sorted(set(lengths.tolist()))
    if len(different) > 1:
        raise ValueError(f"distance: positional needs architectures of equal length, got {different} cells")
    inputs = sorted({genotype.inputs for genotype in genotypes})
    if len(inputs) > 1:
        raise ValueError(f"distance: positional needs cells with equally many inputs, got {inputs}")


def _distinct(cells: Sequence[Codes], positional: bool) -> tuple[Codes, Codes]:
    """The distinct cells as rows of codes, and which row each cell is.

    Positional rows are padded with empty edges; others are sets, padded with a repeated member.
    """
    rows: dict[tuple[int, ...], int] = {}
    which = np.empty(len(cells), dtype=np.int64)
    for i, codes in enumerate(cells):
        key = tuple(codes.tolist() if positional else sorted(set(codes.tolist())))
        which[i] = rows.setdefault(key, len(rows))
    width = max(map(len, rows))
    return np.array([row + (0 if positional else row[0],) * (width - len(row)) for row in rows]), which


class _Hamming:
    """The weighted Hamming distance of edges, and the two distances of cells that it makes."""

    def __init__(self, scores: Mapping[str, float]) -> None:
        self.bit = {op: 1 << k for k, op in enumerate(scores)}
        if len(scores) > 3 * _BITS:
            raise ValueError(f"distance: scores must be of at most {3 * _BITS} ops, got {len(scores)}")
        self.weights: Matrix = np.array(list(scores.values())) / sum(scores.values())
        self.tables = [
            _subset_sums(self.weights[start : start + _BITS]) for start in range(0, len(self.weights), _BITS)
        ]
        self.encoded: dict[tuple[Cell, int, int], Codes] = {}

    def encode(self, cell: Cell, genotype: Genotype) -> Codes:
        """The codes of all edges of the cell, empty ones 0, in the order of the space."""
        key = (cell, genotype.steps, genotype.inputs)
        if key not in self.encoded:
            first, end = genotype.inputs, genotype.inputs + genotype.steps
            offsets = [sum(range(first, target)) for target in range(end + 1)]
            codes = [0] * offsets[end]
            for op, target, source in cell:
                if op in self.bit:
                    codes[offsets[target] + source] |= self.bit[op]
                elif op != "none":
                    raise ValueError(f"distance: scores must have all ops of the genotypes, got none for {op}")
            self.encoded[key] = np.array(codes, dtype=np.int64)
        return self.encoded[key]

    def __call__(self, a: Codes, b: Codes) -> Matrix:
        """d of all pairs, [len(a), len(b)]."""
        distances = np.empty((len(a), len(b)))
        rows = max(1, _CACHED // max(len(b), 1))
        for start in range(0, len(a), rows):
            differ = a[start : start + rows, None] ^ b
            part = distances[start : start + rows]
            np.take(self.tables[0], differ & ((1 << _BITS) - 1), out=part, mode="clip")
            for i, table in enumerate(self.tables[1:], start=1):
                part += table[(differ >> (i * _BITS)) & ((1 << _BITS) - 1)]
        return distances

    def positional(self, cells: Codes) -> Matrix:
        """The mean over positions of d, of all pairs of distinct rows of codes.

        sum_k w_k [u_k != v_k] = sum_k w_k (u_k + v_k - 2 u_k v_k): one matrix product.
        """
        bits = ((cells[:, :, None] >> np.arange(len(self.weights))) & 1).astype(np.float64)
        weighted = (bits * self.weights).reshape(len(cells), -1)
        sizes = weighted.sum(axis=1)
        total: Matrix = sizes[:, None] + sizes - 2 * (weighted @ bits.reshape(len(cells), -1).T)
        # Rounding must break neither d(x, x) = 0 nor symmetry.
        np.fill_diagonal(total, 0)
        total = np.maximum(total, total.T)
        total /= cells.shape[1]
        return total


class _Hausdorff:
    """The symmetric Hausdorff distance of cells made of the given codes.

    First the distance of every code in use to every cell, min_y d(x, y); then its maximum over the codes x of a cell:
    a few row copies instead of edges^2 lookups per pair.
    """

    def __init__(self, hamming: _Hamming, coded: Iterable[Iterable[Codes]]) -> None:
        self.hamming = hamming
        self.used = np.array(sorted({int(code) for cells in coded for codes in cells for code in set(codes.tolist())}))
        self.between = hamming(self.used, self.used) if len(self.used) <= _CODES else None

    def __call__(self, cells: Codes) -> Matrix:
        """The distances of all pairs of rows of codes."""
        index = np.searchsorted(self.used, cells)
        directed = np.empty((len(cells), len(cells)))
        for start in range(0, len(cells), _BLOCK):
            end = min(start + _BLOCK, len(cells))
            nearest = np.empty((len(self.used), end - start))
            for column in range(start, end):
                codes = cells[column]
                rows = self.hamming(codes, self.used) if self.between is None else self.between[index[column]]
                nearest[:, column - start] = rows.min(axis=0)
            farthest = nearest[index[:, 0]]
            for edge in range(1, cells.shape[1]):
                np.maximum(farthest, nearest[index[:, edge]], out=farthest)
            directed[:, start:end] = farthest
        symmetric: Matrix = np.maximum(directed, directed.T)
        return symmetric


def _subset_sums(weights: Matrix) -> Matrix:
    """[2^K]: for every code the sum of the weights of its bits."""
    sums = np.zeros(1)
    for weight in weights:
        sums = np.concatenate([sums, sums + weight])
    return sums

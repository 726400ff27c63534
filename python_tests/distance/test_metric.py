"""The distance between architectures: the published values, the definition by brute force, the metric's laws."""

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cache
from itertools import combinations, permutations, zip_longest
from pathlib import Path
from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ddarts_ext import spaces
from ddarts_ext.distance import architecture_distance, cell_distance, distance_matrix
from ddarts_ext.distance.op_scores import load_scores, save_scores
from ddarts_ext.distance.statistics import settled, spread, spread_of
from ddarts_ext.genotype import Cell, Gene, Genotype

SPACE = spaces.get("dartopti")

# Edge genotypes with mean scores by genes and by seq, with median scores by genes and by seq; then sparse ones.
PUBLISHED = {
    ("ResNet18", "ResNet50"): (0.08363, 0.08363, 0.08349, 0.08349, 0.08363, 0.08363, 0.08349, 0.08349),
    ("ResNet18", "ResNet18C10"): (0.16756, 0.16756, 0.16680, 0.16680, 0.08392, 0.08392, 0.08344, 0.08344),
    ("ResNet18", "ResNet18C100"): (0.16755, 0.16755, 0.16677, 0.16677, 0.08363, 0.08363, 0.08349, 0.08349),
    ("ResNet18", "ResNet50C10"): (0.16938, 0.16912, 0.16869, 0.16815, 0.08363, 0.08370, 0.08349, 0.08349),
    ("ResNet18", "ResNet50C100"): (0.16651, 0.16730, 0.16677, 0.16722, 0.08363, 0.08363, 0.08349, 0.08349),
    ("ResNet50", "ResNet18C10"): (0.16756, 0.16756, 0.16682, 0.16682, 0.08392, 0.08392, 0.08349, 0.08349),
    ("ResNet50", "ResNet18C100"): (0.16600, 0.16600, 0.16601, 0.16601, 0.08208, 0.08208, 0.08252, 0.08252),
    ("ResNet50", "ResNet50C10"): (0.16852, 0.16835, 0.16767, 0.16769, 0.08296, 0.08274, 0.08306, 0.08292),
    ("ResNet50", "ResNet50C100"): (0.16686, 0.16638, 0.16700, 0.16671, 0.08262, 0.08248, 0.08306, 0.08292),
    ("ResNet18C10", "ResNet18C100"): (0.25146, 0.25146, 0.25121, 0.25121, 0.08392, 0.08392, 0.08349, 0.08349),
    ("ResNet18C10", "ResNet50C10"): (0.16789, 0.16789, 0.16724, 0.16724, 0.08381, 0.08381, 0.08349, 0.08349),
    ("ResNet18C10", "ResNet50C100"): (0.16701, 0.16701, 0.16669, 0.16669, 0.08392, 0.08392, 0.08349, 0.08349),
    ("ResNet18C100", "ResNet50C10"): (0.29037, 0.29037, 0.29062, 0.29062, 0.04170, 0.04170, 0.04166, 0.04166),
    ("ResNet18C100", "ResNet50C100"): (0.16687, 0.16687, 0.16679, 0.16679, 0.04144, 0.04144, 0.04166, 0.04166),
    ("ResNet50C10", "ResNet50C100"): (0.14729, 0.14729, 0.14676, 0.14676, 0.04150, 0.04150, 0.04146, 0.04146),
}


def built_in(name: str, rule: str) -> Genotype:
    """A baseline, or the result of its search on CIFAR-10 or -100."""
    start, _, classes = name.partition("C")
    return Genotype.load(f"{start}_cifar{classes}_{rule}" if classes else start)


@pytest.mark.parametrize(("a", "b"), PUBLISHED)
def test_published_distances(a: str, b: str) -> None:
    found = [
        architecture_distance(built_in(a, rule), built_in(b, rule), scores=scores, over=over)
        for rule in ("edge", "sparse")
        for scores in ("mean", "median")
        for over in ("genes", "seq")
    ]
    assert [f"{value:.5f}" for value in found] == [f"{value:.5f}" for value in PUBLISHED[a, b]]


def test_distance_of_the_baselines_to_all_digits() -> None:
    a, b = Genotype.load("ResNet18"), Genotype.load("ResNet50")
    assert architecture_distance(a, b, scores="mean") == pytest.approx(0.08362997, abs=5e-9)
    assert architecture_distance(a, b) == pytest.approx(0.08349321, abs=5e-9)


# ---- the definition, term by term

Edge = frozenset[str]
Definition = Callable[[Genotype, Genotype], float]


@cache
def edges(cell: Cell, steps: int) -> list[Edge]:
    return [
        frozenset(op for op, to, origin in cell if (to, origin) == (target, source))
        for target in range(2, steps + 2)
        for source in range(target)
    ]


def definition(scores: Mapping[str, float], positional: bool = False) -> Definition:
    whole = sum(scores.values())

    @cache
    def hamming(u: Edge, v: Edge) -> float:
        return sum(weight for op, weight in scores.items() if (op in u) != (op in v)) / whole

    def directed(xs: list[Edge], ys: list[Edge]) -> float:
        return max(min(hamming(x, y) for y in ys) for x in xs)

    def cells(xs: list[Edge], ys: list[Edge]) -> float:
        if not positional:
            return max(directed(xs, ys), directed(ys, xs))
        return sum(hamming(x, y) for x, y in zip_longest(xs, ys, fillvalue=Edge())) / max(len(xs), len(ys))

    def architectures(a: Genotype, b: Genotype) -> float:
        pairs = [(edges(x, a.steps), edges(y, b.steps)) for x, y in zip(a.cells, b.cells, strict=False)]
        return sum(cells(x, y) for x, y in pairs) / len(pairs)

    return architectures


def random_architecture(rng: np.random.Generator, cells: int, steps: int) -> Genotype:
    """Ops with a probability of its own per architecture, so that near-empty and near-full cells occur."""
    space = spaces.get("dartopti", steps=steps)
    density = rng.random()
    genes = []
    for _ in range(cells):
        chosen = np.argwhere(rng.random((len(space.edges), 12)) < density).tolist()
        genes.append(tuple(Gene(space.ops[k], space.edges[e].target, space.edges[e].source) for e, k in chosen))
    return Genotype(tuple(genes), concat=space.concat)


@pytest.mark.parametrize("positional", [False, True])
def test_10000_random_pairs_agree_with_the_definition(positional: bool) -> None:
    rng = np.random.default_rng(0)
    count = 142  # 142 * 141 / 2 = 10,011 pairs
    several = [random_architecture(rng, 2 if positional else 1 + i % 3, 2) for i in range(count)]
    matrix = distance_matrix(several, positional=positional)
    expected = definition(load_scores("median"), positional)
    worst = max(abs(matrix[i, j] - expected(several[i], several[j])) for i in range(count) for j in range(i))
    assert worst <= 1e-12
    assert np.array_equal(matrix, matrix.T)
    assert not matrix.diagonal().any()


@pytest.mark.parametrize("positional", [False, True])
def test_large_cells_of_different_size_agree_with_the_definition(positional: bool) -> None:
    rng = np.random.default_rng(1)
    several = [random_architecture(rng, 2, 4 + 2 * (i % 2)) for i in range(12)]
    expected = definition(load_scores("mean"), positional)
    for a, b in combinations(several, 2):
        found = architecture_distance(a, b, scores="mean", positional=positional)
        assert found == pytest.approx(expected(a, b), abs=1e-12)


def test_more_ops_than_one_table_holds_agree_with_the_definition(tmp_path: Path) -> None:
    scores = {f"op_{k}": 80.0 + k for k in range(30)} | load_scores("median")
    save_scores(scores, tmp_path / "scores.json", about="40 ops")
    rng = np.random.default_rng(2)
    a, b = random_architecture(rng, 3, 4), random_architecture(rng, 3, 4)
    found = architecture_distance(a, b, scores=tmp_path / "scores.json")
    assert found == pytest.approx(definition(scores)(a, b), abs=1e-12)
    assert architecture_distance(a, b, scores=scores) == found


# ---- the laws

CELLS = st.lists(
    st.builds(
        lambda op, edge: Gene(op, edge.target, edge.source),
        st.sampled_from(SPACE.ops),
        st.sampled_from(SPACE.edges),
    ),
    max_size=30,
    unique=True,
).map(tuple)
ARCHITECTURES = st.lists(CELLS, min_size=2, max_size=2).map(lambda genes: Genotype(tuple(genes)))


@settings(max_examples=60, deadline=None)
@given(ARCHITECTURES, ARCHITECTURES, ARCHITECTURES, st.booleans())
def test_symmetry_and_triangle_inequality(a: Genotype, b: Genotype, c: Genotype, positional: bool) -> None:
    matrix = distance_matrix((a, b, c), positional=positional)
    assert np.array_equal(matrix, matrix.T)
    assert (matrix >= 0).all()
    assert (matrix <= 1 + 1e-12).all()
    for i, j, k in permutations(range(3)):
        assert matrix[i, k] <= matrix[i, j] + matrix[j, k] + 1e-12


@settings(max_examples=60, deadline=None)
@given(ARCHITECTURES, ARCHITECTURES, st.randoms(use_true_random=False))
def test_positional_distance_is_zero_for_the_same_ops_only(a: Genotype, b: Genotype, random: Random) -> None:
    same = [set(x) == set(y) for x, y in zip(a.cells, b.cells, strict=True)]
    assert (architecture_distance(a, b, positional=True) == 0) == all(same)
    shuffled = Genotype(tuple(tuple(random.sample(cell, len(cell))) for cell in a.cells))
    assert architecture_distance(a, shuffled, positional=True) == 0


@settings(max_examples=60, deadline=None)
@given(CELLS, st.permutations(range(len(SPACE.edges))))
def test_permuted_edges_are_at_distance_zero(cell: Cell, order: list[int]) -> None:
    moved = tuple(
        Gene(op, *reversed(SPACE.edges[order[SPACE.edge_index(target, source)]])) for op, target, source in cell
    )
    assert cell_distance(cell, moved) == 0


def test_one_op_more_costs_its_share_of_the_scores() -> None:
    cell = (Gene("skip_connect", 2, 0),)
    more = (*cell, Gene("sep_conv_5x5", 2, 0))
    scores = load_scores("median")
    share = scores["sep_conv_5x5"] / sum(scores.values())
    assert cell_distance(cell, more) == pytest.approx(share, abs=1e-15)
    assert cell_distance(cell, more, positional=True) == pytest.approx(share / 14, abs=1e-15)


def test_triangle_holds_positionally_between_cells_of_different_size() -> None:
    rng = np.random.default_rng(3)
    matrix = distance_matrix([random_architecture(rng, 2, 1 + i % 3) for i in range(12)], positional=True)
    through = (matrix[:, :, None] + matrix[None]).min(axis=1)
    assert (matrix <= through + 1e-12).all()


# ---- different lengths, wrong input


def test_different_lengths_are_truncated_or_padded() -> None:
    one, none = (Gene("skip_connect", 2, 0),), ()
    short, long = Genotype((one,)), Genotype((none, none, none))
    first = cell_distance(one, none)
    assert architecture_distance(short, long) == pytest.approx(first)
    assert architecture_distance(short, long, pad_with=1.0) == pytest.approx((first + 2) / 3)
    mixed = distance_matrix((short, long, long), pad_with=1.0)
    assert mixed[1, 2] == 0
    assert mixed[0, 2] == pytest.approx((first + 2) / 3)
    with pytest.raises(ValueError, match="positional needs architectures of equal length, got \\[1, 3\\]"):
        architecture_distance(short, long, positional=True)


def test_what_a_cell_joins_plays_no_part() -> None:
    """Own concats per cell, and nodes beyond the last one that is joined: the edges are those of all steps."""
    genotype = Genotype.load("D-DARTS_edge_cifar10")
    other = Genotype.load("D-DARTS_sparse_cifar10")
    concats = tuple(((5,), (2, 3), (4, 5))[i % 3] for i in range(8))
    short = tuple(((2,), (3, 2))[i % 2] for i in range(8))
    for positional in (False, True):
        expected = architecture_distance(genotype, other, positional=positional)
        for changed in (replace(genotype, concats=concats), replace(genotype, concats=short)):
            assert changed.steps == 4
            assert architecture_distance(changed, other, positional=positional) == expected
            assert architecture_distance(changed, genotype, positional=positional) == 0


def test_wrong_scores_are_named(tmp_path: Path) -> None:
    a = Genotype.load("ResNet18")
    bad = tmp_path / "bad.json"
    bad.write_text(json.dumps({"version": 1, "scores": {"skip_connect": -1}}))
    with pytest.raises(ValueError, match="scores: skip_connect must be a finite number > 0, got -1"):
        architecture_distance(a, a, scores=bad)
    with pytest.raises(ValueError, match="scores: must be one of median, mean or a file, got 'medium'"):
        architecture_distance(a, a, scores="medium")
    with pytest.raises(ValueError, match="scores must have all ops of the genotypes, got none for simple_conv_3x3"):
        architecture_distance(a, a, scores={"skip_connect": 1.0})
    with pytest.raises(ValueError, match="over must be one of seq, genes, got 'cells'"):
        architecture_distance(a, a, over="cells")  # type: ignore[arg-type]
    for score in (0, True, "80", None, 1e300, 10**400):
        with pytest.raises(ValueError, match="scores: skip_connect must be a finite number > 0"):
            load_scores({"skip_connect": score})  # type: ignore[dict-item]
    with pytest.raises(ValueError, match="scores: must be of at most 48 ops, got 49"):
        load_scores({f"op_{k}": 1.0 for k in range(49)})
    bad.write_text("{")
    with pytest.raises(ValueError, match=r"scores: .*bad.json is not JSON"):
        load_scores(bad)


# ---- statistics


def test_spread_of_runs() -> None:
    found = spread_of([0.1, 0.2, 0.3], [1.0, 2.0, 3.0])
    assert found.mean == pytest.approx(0.2)
    assert found.largest == 0.3
    assert found.correlation == pytest.approx(1.0)
    assert spread_of([0.1, 0.2]).correlation is None
    assert spread_of([0.1, 0.1, 0.1], [1, 2, 3]).correlation is None
    start, result = Genotype.load("ResNet18"), Genotype.load("ResNet18_cifar10_edge")
    assert spread([start], [result]).distances == (architecture_distance(start, result),)
    with pytest.raises(ValueError, match="gains must be one per run=2, got 1"):
        spread_of([0.1, 0.2], [1.0])


def test_settled_compares_the_newest_with_each_of_the_four_before() -> None:
    assert not settled([0.5] * 4)
    assert settled([0.5] * 5)
    assert settled([0.9, 0.5, 0.501, 0.502, 0.501, 0.501])
    assert not settled([0.499, 0.5, 0.5, 0.5, 0.5011])


def test_names_are_no_architectures() -> None:
    with pytest.raises(TypeError, match=r"architectures must be Genotypes, as Genotype.load gives, got 'ResNet18'"):
        architecture_distance("ResNet18", "ResNet50")  # type: ignore[arg-type]


def test_published_scores_are_none_of_recurrent_cells() -> None:
    pair = [Genotype.load(name) for name in ("DARTS_V1_RNN", "DARTS_V2_RNN")]
    with pytest.raises(ValueError, match=r"distance: scores must be given for recurrent cells.*got 'median'"):
        architecture_distance(*pair)
    assert 0 < architecture_distance(*pair, scores=dict.fromkeys(spaces.ACTIVATIONS, 1.0)) < 1

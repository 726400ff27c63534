"""From weights to genotypes: every rule, ties, order and sharing."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ddarts_ext import spaces
from ddarts_ext.genotype import Genotype
from ddarts_ext.genotype.discretisation import Rule, discretize

DARTS = spaces.get("darts")


def entries(genotype: Genotype, cell: int = 0) -> list[str]:
    return [str(entry) for entry in genotype.cells[cell]]


def worked_example() -> np.ndarray:
    weights = np.full((1, 14, 12), 0.05)
    weights[0, 0, 11], weights[0, 0, 6] = 0.90, 0.95
    weights[0, 5, 2] = 0.99
    weights[0, 13, 0] = 0.86
    return weights


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ("edge", [(11, 2, 0), (6, 2, 0), (2, 4, 0), (0, 5, 4)]),
        ("sparse", [(6, 2, 0), (2, 4, 0), (0, 5, 4)]),
        ("complete", [(6, 2, 0), (11, 2, 0), (2, 4, 0), (0, 5, 4)]),
    ],
)
def test_worked_example(rule: Rule, expected: list[tuple[int, int, int]]) -> None:
    space = spaces.get("dartopti")
    found = discretize(worked_example(), space, rule)
    assert entries(found) == [f"{space.ops[op]}:{target}<-{source}" for op, target, source in expected]


def test_darts_takes_two_edges_in_descending_order_and_never_none() -> None:
    space = spaces.get("darts_none")
    weights = np.full((1, 14, 8), 0.01)
    weights[0, :, 0] = 0.9  # `none` is the largest everywhere
    weights[0, space.edge_index(4, 1), 4] = 0.3
    weights[0, space.edge_index(4, 3), 5] = 0.4
    found = discretize(weights, space, "darts")
    assert entries(found)[4:6] == ["sep_conv_5x5:4<-3", "sep_conv_3x3:4<-1"]
    assert len(entries(found)) == 8
    assert "none" not in found.ops


def test_ties_go_to_the_lower_source_and_the_first_op() -> None:
    found = discretize(np.full((1, 14, 7), 0.9), DARTS, "darts")
    assert entries(found) == [f"max_pool_3x3:{node}<-{source}" for node in (2, 3, 4, 5) for source in (0, 1)]
    # An ascending stable sort ends with the later ops.
    assert entries(discretize(np.full((1, 14, 7), 0.9), DARTS, "edge"))[:2] == [
        "dil_conv_3x3:2<-0",
        "dil_conv_5x5:2<-0",
    ]


def test_thresholds_may_leave_nothing() -> None:
    found = discretize(np.full((2, 14, 7), 0.5), DARTS, "edge")
    assert found.cells == ((), ())
    assert discretize(np.full((2, 14, 7), 0.5), DARTS, "edge", threshold=0.5).cells[0]


def test_the_threshold_itself_counts() -> None:
    weights = np.zeros((1, 14, 7))
    weights[0, 3, 3] = 0.85
    for rule in ("edge", "sparse", "complete"):
        assert entries(discretize(weights, DARTS, rule)) == ["sep_conv_3x3:3<-1"]


def test_shared_rows_make_shared_genes() -> None:
    weights = np.random.default_rng(0).random((2, 14, 7))
    found = discretize(weights, DARTS, "darts", seq=(0, 0, 1, 0, 0, 1, 0, 0))
    assert len(found.genes) == 2
    assert found.layers == 8
    assert found.cells[2] == found.genes[1]
    assert found.with_layers(20).reduction_cells == (6, 13)
    assert discretize(weights, DARTS, "darts", reductions=(1,)).reduction_cells == (1,)


def test_isdarts_ops_get_their_evaluation_names() -> None:
    space = spaces.get("isdarts")
    weights = np.zeros((1, 14, 8))
    weights[0, :, 2] = 1
    assert discretize(weights, space, "darts").ops == {"sep_conv_3x3"}


def test_nasbench201_keeps_the_best_op_of_every_edge_none_included() -> None:
    space = spaces.get("nasbench201")
    weights = np.eye(5)[[3, 0, 1, 2, 4, 3]][None]
    text = "|nor_conv_3x3~0|+|none~0|skip_connect~1|+|nor_conv_1x1~0|avg_pool_3x3~1|nor_conv_3x3~2|"
    found = discretize(weights, space, "darts")
    assert found.to_nb201() == text
    assert found == Genotype.from_nb201(text)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_tensors_of_any_dtype(dtype: torch.dtype) -> None:
    weights = torch.zeros(1, 14, 7, dtype=dtype, requires_grad=True)
    assert discretize(weights + 0.9, DARTS, "edge") == discretize(np.full((1, 14, 7), 0.9), DARTS, "edge")


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from(["darts", "dartopti"]), st.integers(1, 5))
def test_rules_nest_and_bound(seed: int, name: str, steps: int) -> None:
    space = spaces.get(name, steps=steps)
    weights = np.random.default_rng(seed).random((2, len(space.edges), len(space.ops)))
    complete, edge, sparse, darts = (
        [set(cell) for cell in discretize(weights, space, rule, threshold=0.6).cells]
        for rule in ("complete", "edge", "sparse", "darts")
    )
    for i in range(2):
        assert sparse[i] <= edge[i] <= complete[i]
        assert sparse[i] <= darts[i]
        assert len(darts[i]) == 2 * steps
        table = space.table(list(complete[i]))
        assert np.array_equal(table, weights[i] >= 0.6)


def test_errors_name_the_argument() -> None:
    with pytest.raises(ValueError, match=r"weights must be \[rows, edges, ops\]=\[rows, 14, 7\], got \[14, 7\]"):
        discretize(np.zeros((14, 7)), DARTS)
    with pytest.raises(ValueError, match="weights must be finite, got NaN or infinity"):
        discretize(np.full((1, 14, 7), np.nan), DARTS)
    with pytest.raises(ValueError, match="one of darts, edge, sparse, complete, configuration, got 'best'"):
        discretize(np.zeros((1, 14, 7)), DARTS, "best")  # type: ignore[arg-type]

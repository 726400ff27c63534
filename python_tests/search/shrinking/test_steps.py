"""When a supernet shrinks and what goes: IS-DARTS, Algorithm 1 and the counts of its implementation."""

import pytest
import torch

from ddarts_ext import spaces
from ddarts_ext.search.shrinking.steps import finished, removals, shrink, shrink_epochs, subsets


@pytest.mark.parametrize(
    ("size", "keep", "steps", "expected"),
    [
        (16, 2, 7, (2, 2, 2, 2, 2, 2, 2)),
        (24, 2, 7, (4, 3, 3, 3, 3, 3, 3)),
        (32, 2, 7, (5, 5, 4, 4, 4, 4, 4)),
        (40, 2, 7, (6, 6, 6, 5, 5, 5, 5)),
        (16, 2, 4, (4, 4, 3, 3)),
        (24, 2, 4, (6, 6, 5, 5)),
        (32, 2, 4, (8, 8, 7, 7)),
        (40, 2, 4, (10, 10, 9, 9)),
        (16, 2, 2, (7, 7)),
        (24, 2, 2, (11, 11)),
        (32, 2, 2, (15, 15)),
        (40, 2, 2, (19, 19)),
        (16, 2, 1, (14,)),
        (24, 2, 1, (22,)),
        (32, 2, 1, (30,)),
        (40, 2, 1, (38,)),
        (5, 1, 4, (1, 1, 1, 1)),
        (5, 1, 1, (4,)),
    ],
)
def test_removals_per_step(size: int, keep: int, steps: int, expected: tuple[int, ...]) -> None:
    assert removals(size, keep, steps) == expected


@pytest.mark.parametrize(
    ("epochs", "steps", "interval", "expected"),
    [
        (30, 4, 2, (22, 24, 26, 28)),
        (50, 7, 3, (29, 32, 35, 38, 41, 44, 47)),
        (30, 1, 2, (28,)),
        (9, 4, 2, (1, 3, 5, 7)),
    ],
)
def test_epochs_of_the_steps(epochs: int, steps: int, interval: int, expected: tuple[int, ...]) -> None:
    assert shrink_epochs(epochs, steps, interval) == expected


def test_too_few_epochs_are_refused() -> None:
    with pytest.raises(
        ValueError, match=r"search: epochs must be more than shrink_steps \* shrink_interval = 8, got 8"
    ):
        shrink_epochs(8, 4, 2)


def test_subsets_are_edges_or_nodes() -> None:
    nasbench = spaces.get("nasbench201")
    assert subsets(nasbench) == tuple(tuple(range(5 * e, 5 * e + 5)) for e in range(6))
    assert [len(subset) for subset in subsets(spaces.get("isdarts"))] == [16, 24, 32, 40]
    assert sorted(c for subset in subsets(spaces.get("isdarts")) for c in subset) == list(range(14 * 8))


@pytest.mark.parametrize(("name", "steps"), [("nasbench201", 4), ("nasbench201", 1), ("isdarts", 7), ("isdarts", 1)])
def test_steps_remove_the_counted_worst(name: str, steps: int) -> None:
    """In every step the worst of each subset go, and what is left at the end are the best ones."""
    space = spaces.get(name)
    badness = torch.rand(2, len(space.edges), len(space.ops), dtype=torch.float64)
    mask = torch.ones_like(badness, dtype=torch.bool)
    keep = 1 if name == "nasbench201" else 2
    for step in range(steps):
        after = shrink(mask, badness, space, steps - step)
        assert not (after & ~mask).any()
        for subset in subsets(space):
            columns = list(subset)
            before, left = mask.flatten(1)[:, columns], after.flatten(1)[:, columns]
            count = removals(len(columns), keep, steps)[step]
            assert (before.sum(1) - left.sum(1)).tolist() == [count, count]
            for row in range(2):
                values = badness.flatten(1)[row, columns]
                assert values[before[row] & ~left[row]].min() > values[left[row]].max()
        mask = after
    assert finished(mask, space)


def test_ties_go_in_the_order_they_are_listed() -> None:
    """Edge by edge, op by op: the first listed of equal ones is removed first."""
    space = spaces.get("isdarts")
    mask = torch.ones(1, 14, 8, dtype=torch.bool)
    after = shrink(mask, torch.zeros(1, 14, 8), space, 7)
    gone = (~after[0]).nonzero().tolist()
    assert gone[:2] == [[0, 0], [0, 1]]
    assert gone[2:6] == [[2, 0], [2, 1], [2, 2], [2, 3]]


def test_two_kept_ops_may_share_an_edge() -> None:
    space = spaces.get("isdarts")
    badness = torch.ones(1, 14, 8)
    badness[0, 0, 2] = badness[0, 0, 4] = 0
    left = shrink(torch.ones(1, 14, 8, dtype=torch.bool), badness, space, 1)
    assert left[0, :2].nonzero().tolist() == [[0, 2], [0, 4]]


def test_nan_counts_as_the_worst() -> None:
    """A network that has diverged still gives an answer, and never one that it could not measure."""
    space = spaces.get("nasbench201")
    badness = torch.arange(30, dtype=torch.float64).view(1, 6, 5)
    badness[..., 1] = torch.nan
    left = shrink(torch.ones(1, 6, 5, dtype=torch.bool), badness, space, 4)
    assert (~left[0, :, 1]).all()

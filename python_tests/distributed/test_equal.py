"""k ranks with a batch of B images together are one process with a batch of B images."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from distributed.launch import WORKER, Started
from torch import Tensor

TIMES = ("seconds", "measure_seconds", "memory_mib")
BOTH = ("ddarts", "second_order_exact", "adversarial", "incomplete", "shrink", "train", "train_auxiliary", "train_dead",
        "taken_up")  # fmt: skip
TWO = ("ddarts_every_2", "darts", "second_order", "reference", "curvature", "selection", "oles", "train_ema",
       "unsynchronised", "train_unsynchronised")  # fmt: skip
SAME = [(name, 2) for name in (*BOTH, *TWO) if "unsynchronised" not in name and name != "taken_up"] + [
    (name, 3) for name in BOTH if name != "incomplete"
]
"""3 ranks take up what 2 have begun, and end as one process does."""


@pytest.fixture(scope="session")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what every rank came to in every scenario."""
    folder = tmp_path_factory.mktemp("ranks")
    for world, names in ((1, (*BOTH, *TWO)), (2, (*BOTH, *TWO)), (3, BOTH)):
        # What two ranks have begun, three take up.
        for code, _, said in Started(world, [WORKER, folder, *names], folder).wait(1500):
            assert code == 0, said
    return folder


def result(folder: Path, name: str, world: int, rank: int = 0) -> Mapping[str, Tensor]:
    found = torch.load(folder / f"{name}.{world}.{rank}.pt", weights_only=True)
    return dict(flat(found))


def flat(value: Any, path: str = "") -> Iterator[tuple[str, Tensor]]:
    if isinstance(value, Mapping):
        for key, item in value.items():
            if key not in TIMES:
                yield from flat(item, f"{path}.{key}")
    elif isinstance(value, Sequence) and not isinstance(value, str):
        for index, item in enumerate(value):
            yield from flat(item, f"{path}[{index}]")
    elif isinstance(value, (Tensor, int, float)):
        yield path, torch.as_tensor(value, dtype=torch.float64)


@pytest.mark.parametrize(("name", "world"), SAME)
def test_ranks_compute_what_one_process_does(results: Path, name: str, world: int) -> None:
    one, several = result(results, name, 1), result(results, name, world)
    assert one.keys() == several.keys()
    for key, value in one.items():
        torch.testing.assert_close(
            several[key], value, rtol=1e-10, atol=1e-10, equal_nan=True, msg=lambda m, k=key: f"{k}: {m}"
        )


@pytest.mark.parametrize(("name", "world"), [*((name, 2) for name in (*BOTH, *TWO)), *((name, 3) for name in BOTH)])
def test_all_ranks_come_to_the_same_bits(results: Path, name: str, world: int) -> None:
    first = result(results, name, world)
    for rank in range(1, world):
        other = result(results, name, world, rank)
        assert other.keys() == first.keys()
        for key, value in first.items():
            assert torch.equal(other[key].nan_to_num(), value.nan_to_num()), (rank, key)


@pytest.mark.parametrize("world", [1, 2, 3])
def test_the_auxiliary_head_is_trained(results: Path, world: int) -> None:
    """Under DistributedDataParallel too: what is compared above are not the weights that it began with."""
    found = result(results, "train_auxiliary", world)
    head = [key for key in found if key.startswith(".tensors.auxiliary") and "weight" in key]
    assert len(head) == 5
    for key in head:
        assert not torch.equal(found[key], found[key.replace(".tensors", ".began", 1)]), key


@pytest.mark.parametrize("name", ["unsynchronised", "train_unsynchronised"])
def test_norms_without_synchronisation_see_the_part_of_a_rank(results: Path, name: str) -> None:
    """Otherwise the tests above would compare nothing that depends on it."""
    one, several = result(results, name, 1), result(results, name, 2)
    loss = ".history[0].train.loss"
    assert (one[loss] - several[loss]).abs() > 1e-4
    torch.testing.assert_close(several[loss], one[loss], rtol=0.5, atol=0)


def test_a_last_batch_too_small_for_the_ranks_is_left_out(results: Path) -> None:
    """34 images move the weights, 6 at a time: the last 4 are 2 for each of 2 ranks, and too few for 3."""
    assert (
        result(results, "incomplete", 3)[".history[0].train.loss"]
        != result(results, "incomplete", 1)[".history[0].train.loss"]
    )

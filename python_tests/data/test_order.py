"""Images are counted by what they are, and divided by a stratified permutation: their order in a source is nothing."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ddarts_ext.data import MemorySplit
from ddarts_ext.data.order import canonical_order, digest, divided


def images(count: int, classes: int = 3) -> MemorySplit:
    generator = torch.Generator().manual_seed(count)
    pixels = torch.randint(0, 256, (count, 1, 3, 3), generator=generator, dtype=torch.uint8)
    return MemorySplit(pixels, torch.arange(count) % classes)


def test_the_order_of_a_source_says_nothing() -> None:
    split = images(50)
    shuffle = torch.randperm(50, generator=torch.Generator().manual_seed(3))
    other = MemorySplit(split.images[shuffle], split.labels[shuffle])
    ours, theirs = canonical_order(split), canonical_order(other)
    assert sorted(ours.tolist()) == list(range(50))
    assert torch.equal(split.images[ours], other.images[theirs])
    assert torch.equal(split.labels[ours], other.labels[theirs])
    for a, b in zip(divided(split.labels, ours, 0.4, 7), divided(other.labels, theirs, 0.4, 7), strict=True):
        assert torch.equal(split.images[a], other.images[b])
        assert digest(split, a) == digest(other, b)
    assert digest(split, ours[:20]) != digest(split, ours[1:21])


def test_a_label_belongs_to_an_image() -> None:
    split = images(4)
    relabelled = MemorySplit(split.images, (split.labels + 1) % 3)
    assert not set(split.keys()) & set(relabelled.keys())


@settings(max_examples=60, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 30), min_size=1, max_size=6),
    fraction=st.floats(0.05, 0.95),
    seed=st.integers(0, 2**63 - 1),
)
def test_parts_are_disjoint_whole_and_stratified(sizes: list[int], fraction: float, seed: int) -> None:
    labels = torch.cat([torch.full((size,), label) for label, size in enumerate(sizes)])
    order = torch.arange(len(labels))
    if len(labels) < 2:
        with pytest.raises(ValueError, match="2 or more images"):
            divided(labels, order, fraction, seed)
        return
    first, second = divided(labels, order, fraction, seed)
    assert sorted([*first.tolist(), *second.tolist()]) == order.tolist()
    assert len(first) == min(max(int(fraction * len(labels)), 1), len(labels) - 1)
    again = divided(labels, order, fraction, seed)
    assert torch.equal(first, again[0])
    if min(sizes) > 1 and min(len(first), len(second)) >= len(sizes):
        share = len(first) / len(labels)
        counts = torch.bincount(labels[first], minlength=len(sizes))
        assert all(abs(int(count) - share * size) <= 1 for count, size in zip(counts, sizes, strict=True))


def test_the_seed_decides() -> None:
    labels = torch.arange(100) % 10
    parts = [divided(labels, torch.arange(100), 0.5, seed)[0].tolist() for seed in (0, 1)]
    assert parts[0] != parts[1]
    with pytest.raises(ValueError, match="fraction between 0 and 1, got 100 and 1"):
        divided(labels, torch.arange(100), 1.0, 0)


def test_a_digest_asks_for_the_keys_once() -> None:
    """Once an image would take hours for those of CIFAR-10."""

    class Counted(MemorySplit):
        calls = 0

        def keys(self) -> list[bytes]:
            type(self).calls += 1
            return super().keys()

    split = Counted(torch.randint(0, 256, (50, 1, 4, 4), dtype=torch.uint8), torch.arange(50) % 3)
    digest(split, torch.arange(40))
    assert Counted.calls == 1
    assert split.keys() is split.keys()  # computed once
    assert split.to(torch.device("cpu")) is split

"""Tensors, arrays and data sets of torch as images of a run."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils.data import TensorDataset

from ddarts_ext.data import MemorySplit, load
from ddarts_ext.data.order import canonical_order, divided


def images(count: int = 20, channels: int = 3) -> torch.Tensor:
    return torch.randint(0, 256, (count, channels, 6, 5), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)


def labels(count: int = 20) -> torch.Tensor:
    return torch.arange(count) % 2


class Pets(torch.utils.data.Dataset[Any]):
    """As those of torchvision are: items of a picture and a number, and names."""

    classes = ("cat", "dog")

    def __init__(self, kind: str, start: int = 0) -> None:
        self.kind, self.start = kind, start

    def __len__(self) -> int:
        return 20

    def __getitem__(self, index: int) -> tuple[Any, int]:
        if index >= len(self):
            raise IndexError
        pixels, label = images(40)[index + self.start], index % 2
        if self.kind == "float":
            return pixels / 255, label
        if self.kind == "picture":
            image = pytest.importorskip("PIL.Image")
            return image.fromarray(pixels.permute(1, 2, 0).numpy()), label
        return pixels, label


def test_one_pair_is_divided() -> None:
    x, y = images(), labels()
    found = load((x, y))
    assert (len(found.train), len(found.test), found.classes) == (16, 4, ("0", "1"))
    assert (found.size, found.channels) == ((6, 5), 3)
    both = [next(iter(split.batches(torch.arange(len(split))[None])))[0] for split in (found.train, found.test)]
    held_out = torch.tensor([8, 9, 18, 19])  # every fifth of each class
    assert torch.equal(both[1], x[held_out])
    assert torch.equal(both[0], x[[i for i in range(20) if i not in held_out]])
    assert "every fifth image" in found.note


@pytest.mark.parametrize("layout", ["tensor", "float", "array", "channels-last"])
def test_layouts_are_one(layout: str) -> None:
    x, y = images(), labels()
    given: Any = {
        "tensor": (x, y),
        "float": (x / 255, y),
        "array": (x.permute(0, 2, 3, 1).numpy(), y.numpy()),
        "channels-last": (x.contiguous(memory_format=torch.channels_last), y.int()),
    }[layout]
    expected, found = load((x, y)), load(given)
    assert torch.equal(found.train.images, expected.train.images)  # type: ignore[attr-defined]
    assert torch.equal(found.train.labels, expected.train.labels)
    assert (found.mean, found.std) == (expected.mean, expected.std)


def test_two_pairs_are_training_and_held_out() -> None:
    found = load(((images(20, 1)[:, 0], labels()), (images(8, 1)[:, 0].numpy(), labels(8).numpy())))
    assert (len(found.train), len(found.test), found.channels, found.note) == (20, 8, 1, "")


@pytest.mark.parametrize("kind", ["uint8", "float", "picture"])
def test_data_sets_of_torch(kind: str) -> None:
    found = load((Pets(kind), Pets(kind, 20)))
    assert found.classes == ("cat", "dog")
    assert torch.equal(found.train.images, images(40)[:20])  # type: ignore[attr-defined]
    assert torch.equal(found.test.images, images(40)[20:])  # type: ignore[attr-defined]
    alone = load(Pets(kind))
    assert (len(alone.train), len(alone.test)) == (16, 4)
    assert len(load(TensorDataset(images(), labels())).train) == 16


def test_names_of_classes_that_do_not_occur_are_left_out() -> None:
    class Birds(Pets):
        classes = ("cat", "dog", "bird")  # type: ignore[assignment]

        def __getitem__(self, index: int) -> tuple[Any, int]:
            pixels, label = super().__getitem__(index)
            return pixels, 2 * label

    found = load(Birds("uint8"))
    assert found.classes == ("cat", "bird")
    assert sorted(set(found.train.labels.tolist())) == [0, 1]


def test_a_search_and_a_training_take_them() -> None:
    from ddarts_ext import Searcher, Trainer

    x = torch.randint(0, 256, (40, 1, 8, 8), generator=torch.Generator().manual_seed(2), dtype=torch.uint8)
    data = (x, labels(40))
    result = Searcher(data, "darts", epochs=1, cells=3, channels=2, batch=8).search()
    trained = Trainer(result.genotype, data, epochs=1, channels=2, batch=16, cutout=0).train()
    assert 0 <= trained.accuracy <= 1


class Uneven(TensorDataset):
    def __getitem__(self, index: int) -> Any:
        return super().__getitem__(index)[0], [0.5] * (index + 1)


@pytest.mark.parametrize("kind", ["floats", "rows", "truth values", "whole numbers", "data set"])
def test_labels_that_are_numbers(kind: str) -> None:
    """float32 [N, K], whatever they came as; every fifth image is held out, as there are no classes."""
    x, rows = images(), torch.arange(40).view(20, 2) % 3 % 2
    y: Any = {"floats": torch.arange(20) / 7, "truth values": rows.bool().numpy(), "whole numbers": rows}.get(kind)
    found = load(TensorDataset(x, rows.double()) if kind == "data set" else (x, rows / 1 if y is None else y))
    expected = (torch.arange(20)[:, None] / 7 if kind == "floats" else rows).float()
    held_out = torch.tensor([4, 9, 14, 19])
    assert found.numbers
    assert found.classes == (("0",) if kind == "floats" else ("0", "1"))
    assert torch.equal(found.test.labels, expected[held_out])
    assert torch.equal(found.train.labels, expected[[i for i in range(20) if i not in held_out]])
    assert found.note == "every fifth image is held out"


def test_names_of_numbers_and_their_division() -> None:
    class Many(Pets):
        def __getitem__(self, index: int) -> tuple[Any, Any]:
            return super().__getitem__(index)[0], torch.tensor([index % 2, index % 3])

    found = load((Many("uint8"), Many("uint8", 20)))
    assert (found.classes, found.numbers) == (("cat", "dog"), True)
    order = canonical_order(found.train)
    first, second = divided(found.train.labels, order, 0.5, 3)
    assert sorted([*first.tolist(), *second.tolist()]) == list(range(20))
    assert torch.equal(divided(found.train.labels, order, 0.5, 3)[0], first)
    assert not torch.equal(divided(found.train.labels, order, 0.5, 4)[0], first)
    keys = found.train.keys()  # type: ignore[attr-defined]
    other = MemorySplit(found.train.images, 1 - found.train.labels).keys()  # type: ignore[attr-defined]
    assert not set(keys) & set(other)


class Turned(TensorDataset):
    def __getitem__(self, index: int) -> tuple[int, Tensor]:
        image, label = super().__getitem__(index)
        return int(label), image


def test_labels_may_be_a_list() -> None:
    listed, whole = load((images(), labels().tolist())), load((images(), labels()))
    assert torch.equal(listed.train.labels, whole.train.labels)
    assert listed.classes == whole.classes


@pytest.mark.parametrize(
    ("data", "error", "said"),
    [
        ((images() / 255 - 0.5, labels()), ValueError, "floats of images must lie from 0 to 1, got -0.5"),
        ((images().int(), labels()), TypeError, "must be uint8, or floats from 0 to 1, got torch.int32"),
        ((images(), labels(19)), ValueError, "must be 20 whole numbers from 0"),
        ((images(), labels(19) / 2), ValueError, "must be 20 numbers, or rows of as many each, got float32"),
        ((images(), labels() / 0), ValueError, "must be finite numbers, got nan"),
        (((images(), labels() / 2), (images(4), labels(4))), ValueError, "must be 20 whole numbers from 0"),
        (
            ((images(), torch.rand(20, 3)), (images(4), torch.rand(4, 2))),
            ValueError,
            "as many numbers each in both parts, got 3 and 2",
        ),
        ([(images()[0], 0), (images()[0], [1, 2])], TypeError, "data must be a name"),
        (Uneven(images(2), labels(2)), TypeError, "label of item 1 of the train part must be a number"),
        ((images()[0, 0], labels()), ValueError, r"must be \[N, C, H, W\]"),
        (((images(), labels()), (images(4)[:, :, :3], labels(4))), ValueError, "must have one shape"),
        (((images(), labels()), 3), TypeError, "must be .images, labels. or a data set of torch, got int"),
        (TensorDataset(images()), TypeError, "must be .image, label., got tuple"),
        (np.zeros(3), TypeError, "must be .image, label."),
        ((images(), ["a"] * 20), ValueError, "must be 20 whole numbers from 0"),
        (Turned(images(), labels()), TypeError, "item 0 of the train part must begin with an image, .* got .0. first"),
        (3, TypeError, "data must be a name"),
    ],
)
def test_what_is_none(data: Any, error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said):
        load(data)

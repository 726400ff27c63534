"""Data sets are read as they are written, refused with a reason, and augmented by one generator."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ddarts_ext.data import Augmentation, MemorySplit, augment, load, normalise
from ddarts_ext.data.augment import _policies
from ddarts_ext.data.batches import in_order, permuted, redrawn, skipping, steps_in


def test_digits_are_all_there_and_held_out_by_class() -> None:
    data = load("digits")
    assert (data.size, data.channels, len(data.classes)) == ((8, 8), 1, 10)
    assert len(data.train) + len(data.test) == 1797
    assert isinstance(data.test, MemorySplit)
    assert data.test.labels.bincount().min() >= 34
    assert data.augmentation == Augmentation(crop_padding=1)
    values = data.normalise(data.train.images)  # type: ignore[attr-defined]
    assert abs(values.mean().item()) < 1e-4
    assert values.std().item() == pytest.approx(1.0, abs=1e-3)


@pytest.mark.parametrize(("name", "label_bytes"), [("cifar10", 1), ("cifar100", 2)])
def test_cifar_binary_layout(tmp_path: Path, name: str, label_bytes: int) -> None:
    random = np.random.RandomState(1)
    rows = random.randint(0, 10, (2, label_bytes + 3072)).astype(np.uint8)
    files = [f"data_batch_{i}.bin" for i in range(1, 6)] + ["test_batch.bin"]
    for file in files if name == "cifar10" else ["train.bin", "test.bin"]:
        rows.tofile(tmp_path / file)
    data = load(f"{name}:{tmp_path}")
    assert len(data.train) == (10 if name == "cifar10" else 2)
    assert data.augmentation.cutout == 16
    ((images, labels),) = data.test.batches(torch.tensor([[1]]))
    assert images.flatten().tolist() == rows[1, label_bytes:].tolist()
    assert labels.item() == rows[1, label_bytes - 1]
    (tmp_path / ("data_batch_3.bin" if name == "cifar10" else "train.bin")).write_bytes(b"short")
    with pytest.raises(ValueError, match=f"records of {label_bytes + 3072} bytes"):
        load(name, root=tmp_path)


def test_pickled_cifar_is_not_opened(tmp_path: Path) -> None:
    (tmp_path / "data_batch_1").write_bytes(b"cos\nsystem\n")
    with pytest.raises(FileNotFoundError, match=r"binary layout .* pickled Python layout, which is not read"):
        load("cifar10", root=tmp_path)
    with pytest.raises(FileNotFoundError, match="must be a folder with the binary layout"):
        load("cifar10")


@pytest.mark.parametrize(
    ("data", "error"), [("nothing-here", FileNotFoundError), (3, TypeError), (__file__, ValueError)]
)
def test_what_is_no_data_is_refused(data: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match="data: "):
        load(data)
    with pytest.raises(TypeError, match="augmentation has"):
        load("digits", mirror=True)


def test_crop_and_flip_take_windows_of_the_padded_image() -> None:
    generator = torch.Generator().manual_seed(0)
    images = torch.arange(1, 17, dtype=torch.uint8).view(1, 1, 4, 4).expand(64, 1, 4, 4)
    out = augment(images, Augmentation(crop_padding=1, flip=True), (0.0,), (1.0,), generator=generator) * 255
    padded = torch.nn.functional.pad(images[0, 0].float(), (1, 1, 1, 1))
    windows = [padded[r : r + 4, c : c + 4] for r in range(3) for c in range(3)]
    windows += [window.flip(1) for window in windows]
    seen = {next(i for i, w in enumerate(windows) if torch.allclose(w, o, atol=1e-3)) for o in out[:, 0]}
    assert len(seen) > 10


def test_cutout_sets_a_square_to_zero() -> None:
    generator = torch.Generator().manual_seed(0)
    images = torch.full((32, 2, 12, 12), 255, dtype=torch.uint8)
    out = augment(images, Augmentation(cutout=4), (0.0, 0.0), (1.0, 1.0), generator=generator)
    holes = (out == 0).all(1).sum((1, 2))
    assert holes.max() == 16
    assert holes.min() >= 4
    assert torch.equal(out[:, 0], out[:, 1])


def test_the_generator_alone_decides() -> None:
    images = torch.randint(0, 256, (4, 3, 8, 8), dtype=torch.uint8)
    how = Augmentation(crop_padding=2, flip=True, cutout=3)
    first, second = (
        augment(images, how, (0.5,) * 3, (0.2,) * 3, generator=torch.Generator().manual_seed(1)) for _ in range(2)
    )
    assert torch.equal(first, second)
    torch.testing.assert_close(normalise(images, (0.5,) * 3, (0.2,) * 3), (images.float() / 255 - 0.5) / 0.2)


def test_orders() -> None:
    generator = torch.Generator().manual_seed(0)
    weight, alpha = torch.arange(5), torch.arange(5, 11)
    rows = permuted(alpha, 4, generator)
    assert [part.shape for part in rows] == [(1, 4), (1, 2)]
    assert {index for part in rows for index in part.flatten().tolist()} == set(alpha.tolist())
    # A last batch of one image has no variance: it is left out.
    assert [part.shape for part in permuted(weight, 4, generator)] == [(1, 4)]
    assert [steps_in(count, 4) for count in (3, 4, 5, 6, 9)] == [1, 1, 1, 2, 2]
    many = permuted(torch.arange(11), 4, generator)
    assert [row.tolist() for part in skipping(many, 1) for row in part] == [many[0][1].tolist(), many[1][0].tolist()]
    assert not list(skipping(many, 3))
    fresh = redrawn(alpha, 4, 3, generator)
    assert fresh.shape == (3, 4)
    assert all(len(set(row.tolist())) == 4 and min(row) >= 5 for row in fresh)
    assert [part.tolist() for part in in_order(weight, 3)] == [[[0, 1, 2]], [[3, 4]]]
    assert [part.shape for part in permuted(weight, 64, generator)] == [(1, 5)]


def test_autoaugment_says_what_it_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="autoaugment must be one of"):
        Augmentation(autoaugment="mine")
    monkeypatch.setitem(sys.modules, "kornia.augmentation", None)
    _policies.cache_clear()
    images = torch.zeros(1, 3, 8, 8, dtype=torch.uint8)
    with pytest.raises(ValueError, match="needs the package kornia"):
        augment(images, Augmentation(autoaugment="cifar10"), (0.5,) * 3, (0.5,) * 3, generator=torch.Generator())


def autoaugmented(images: torch.Tensor, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return augment(images, Augmentation(autoaugment="cifar10"), (0.0,) * 3, (1.0,) * 3, generator=generator)


@pytest.mark.parametrize("seed", range(4))
def test_autoaugment_draws_for_every_image(seed: int) -> None:
    """Of 64 copies of one image some are left as they are, as a sub-policy's ops have a probability each; one draw for
    all would leave as few as 3 that differ."""
    pytest.importorskip("kornia")
    generator = torch.Generator().manual_seed(100)
    image = torch.randint(0, 256, (1, 3, 16, 16), generator=generator, dtype=torch.uint8)
    out = autoaugmented(image.repeat(64, 1, 1, 1), seed)
    assert out.shape == (64, 3, 16, 16)
    assert len(torch.unique(out.flatten(1), dim=0)) >= 20
    assert torch.equal(out, autoaugmented(image.repeat(64, 1, 1, 1), seed))
    assert not torch.equal(out, autoaugmented(image.repeat(64, 1, 1, 1), seed + 1))


def test_every_image_has_a_sub_policy_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sub-policies that stamp their number on an image: each image bears one, and all of them come up."""
    stamps = tuple((lambda x, n=n: torch.full_like(x, n / 255)) for n in range(25))
    monkeypatch.setattr(sys.modules["ddarts_ext.data.augment"], "_policies", lambda _: stamps)
    out = autoaugmented(torch.zeros(512, 3, 4, 4, dtype=torch.uint8), 0).mul(255).round().long()
    numbers = out[:, 0, 0, 0]
    assert torch.equal(out, numbers[:, None, None, None].expand_as(out))
    assert torch.bincount(numbers, minlength=25).min() >= 5


def test_autoaugment_leaves_the_global_generator_alone() -> None:
    pytest.importorskip("kornia")
    before = torch.get_rng_state()
    autoaugmented(torch.zeros(4, 3, 8, 8, dtype=torch.uint8), 0)
    assert torch.equal(before, torch.get_rng_state())


def test_a_name_goes_before_a_folder_of_that_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert "folder" not in load("digits").note
    (tmp_path / "digits").mkdir()
    for data in ("digits", Path("digits")):
        assert len(load(data).train) == 1797 - len(load(data).test)
        assert "digits is the data set of that name, and not the file or folder digits here" in load(data).note
    with pytest.raises(FileNotFoundError, match="image folder digits must hold"):
        load("./digits")


def test_image_size_is_one_of_folders() -> None:
    assert load("digits", image_size=8).size == (8, 8)
    with pytest.raises(ValueError, match="must be given for image folders and shards alone, got 32 for digits"):
        load("digits", image_size=32)
    with pytest.raises(ValueError, match="got 32 for digits"):
        load(load("digits"), image_size=32)

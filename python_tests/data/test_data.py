"""Data sets are read as they are written, refused with a reason, and augmented by one generator."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ddarts_ext.data import Augmentation, MemorySplit, augment, load, normalise
from ddarts_ext.data.batches import in_order, permuted, redrawn


def write_npz(path: Path, **changes: Any) -> Path:
    random = np.random.RandomState(0)
    arrays: dict[str, Any] = {
        "x_train": random.randint(0, 256, (6, 5, 7, 3), dtype=np.uint8),
        "y_train": np.arange(6) % 3,
        "x_test": random.randint(0, 256, (3, 5, 7, 3), dtype=np.uint8),
        "y_test": np.arange(3),
    }
    arrays.update(changes)
    np.savez(path, **{name: array for name, array in arrays.items() if array is not None})
    return path


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


def test_npz_keeps_pixels_and_labels(tmp_path: Path) -> None:
    path = write_npz(tmp_path / "small.npz")
    data = load(path)
    assert (data.name, data.size, data.channels, len(data.classes)) == ("small", (5, 7), 3, 3)
    with np.load(path) as arrays:
        ((images, labels),) = data.train.batches(torch.tensor([[4, 0]]))
        assert np.array_equal(images.permute(0, 2, 3, 1).numpy(), arrays["x_train"][[4, 0]])
        assert labels.tolist() == [1, 0]
    grey = write_npz(tmp_path / "grey.npz", x_train=np.zeros((6, 4, 4), np.uint8), x_test=np.zeros((3, 4, 4), np.uint8))
    assert load(grey).channels == 1
    assert not load(grey).augmentation.flip
    assert load(grey, flip=True).augmentation.flip


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"y_test": None}, "lacks y_test"),
        ({"x_train": np.zeros((6, 5, 7, 3))}, r"x_train in .* must be uint8 \[N, H, W\]"),
        ({"x_train": np.zeros((6, 3, 32, 32), np.uint8)}, "must have channels last"),
        ({"y_train": np.arange(4)}, "y_train in .* must be 6 whole numbers"),
        ({"x_test": np.zeros((3, 4, 4, 3), np.uint8)}, "images of one size"),
        ({"x_train": np.array([{}], dtype=object)}, "plain arrays"),
        ({"y_train": np.zeros(6, int), "y_test": np.zeros(3, int)}, "at least 2 classes, got 1"),
    ],
)
def test_npz_errors(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load(write_npz(tmp_path / "bad.npz", **changes))


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


def write_images(root: Path, splits: tuple[str, ...] = ("train", "test"), classes: str = "ab", count: int = 5) -> Path:
    image = pytest.importorskip("PIL.Image")
    for split in splits:
        for value, name in enumerate(classes):
            folder = root / split / name
            folder.mkdir(parents=True)
            for i in range(count):
                image.new("RGB", (10, 8), (100 * value, i, 7)).save(folder / f"{i}.png")
    return root


def test_image_folder(tmp_path: Path) -> None:
    data = load(write_images(tmp_path / "pets"))
    assert (data.name, data.classes, data.size, data.channels) == ("pets", ("a", "b"), (8, 10), 3)
    ((images, labels),) = data.train.batches(torch.tensor([[7]]))
    assert labels.item() == 1
    assert images[0, :, 0, 0].tolist() == [100, 2, 7]
    assert load(tmp_path / "pets").size == (8, 10)


def test_image_folder_without_test_holds_out_a_fifth(tmp_path: Path) -> None:
    data = load(write_images(tmp_path, ("train",)))
    assert (len(data.train), len(data.test)) == (8, 2)
    assert "held out" in data.note


def test_large_folders_stream_the_same_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from ddarts_ext.data import folder

    root = write_images(tmp_path)
    rows = torch.tensor([[3, 8]])
    ((expected, labels),) = load(root).train.batches(rows)
    monkeypatch.setattr(folder, "IN_MEMORY_BYTES", 0)
    data = load(root)
    assert isinstance(data.train, folder.StreamSplit)
    ((images, streamed),) = data.to("cpu").train.batches(rows)
    assert torch.equal(images, expected)
    assert torch.equal(streamed, labels)


def test_image_folder_errors(tmp_path: Path) -> None:
    pytest.importorskip("PIL")
    with pytest.raises(FileNotFoundError, match="must hold train/<class>/<images>"):
        load(tmp_path)
    with pytest.raises(ValueError, match="2 or more classes, got 1"):
        load(write_images(tmp_path / "one", classes="a"))
    root = write_images(tmp_path / "two")
    (root / "test" / "c").mkdir()
    with pytest.raises(ValueError, match="has the class 'c'"):
        load(root)
    broken = write_images(tmp_path / "broken")
    (broken / "train" / "a" / "3.png").write_bytes(b"no image")
    with pytest.raises(ValueError, match=r"3\.png is not an image"):
        load(broken)


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
    assert rows.shape == (1, 4)
    assert len(set(rows.flatten().tolist())) == 4
    fresh = redrawn(alpha, 4, 3, generator)
    assert fresh.shape == (3, 4)
    assert all(len(set(row.tolist())) == 4 and min(row) >= 5 for row in fresh)
    assert [part.tolist() for part in in_order(weight, 3)] == [[[0, 1, 2]], [[3, 4]]]
    assert permuted(weight, 64, generator).shape == (1, 5)


def test_autoaugment_says_what_it_needs() -> None:
    with pytest.raises(ValueError, match="autoaugment must be one of"):
        Augmentation(autoaugment="mine")
    try:
        import kornia  # noqa: F401
    except ImportError:
        images = torch.zeros(1, 3, 8, 8, dtype=torch.uint8)
        with pytest.raises(ValueError, match="needs the package kornia"):
            augment(images, Augmentation(autoaugment="cifar10"), (0.5,) * 3, (0.5,) * 3, generator=torch.Generator())

"""Crops, colours and erasing have the distributions of their formulas: seeds are fixed, so that nothing can flake."""

from __future__ import annotations

import colorsys
import math
import sys
from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from ddarts_ext.data import Augmentation, augment
from ddarts_ext.data.transform_colours import jittered, lighting_shift
from ddarts_ext.data.transform_crops import crop_boxes, erased, resized
from ddarts_ext.data.transforms import Transforms, transformed

COUNT = 20_000


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def distance(ours: np.ndarray, theirs: np.ndarray) -> float:
    """Kolmogorov-Smirnov statistic of two samples."""
    at = np.concatenate([ours, theirs])
    below = [np.searchsorted(np.sort(sample), at, side="right") / len(sample) for sample in (ours, theirs)]
    return float(np.abs(below[0] - below[1]).max())


def from_uniform(sample: Tensor, low: float, high: float) -> float:
    """Kolmogorov-Smirnov statistic of a sample against a uniform distribution."""
    found = ((sample.double().sort().values - low) / (high - low)).numpy()
    steps = np.arange(len(found))
    return float(max(np.abs(found - steps / len(found)).max(), np.abs(found - (steps + 1) / len(found)).max()))


# One in a thousand samples of the same distribution is further away; half the bound is where most are.
BOUND_ONE, BOUND_TWO = 1.95 / math.sqrt(COUNT), 1.95 * math.sqrt(2 / COUNT)


def published_crops(height: int, width: int, least: float) -> np.ndarray:
    """RandomResizedCrop as torchvision draws it, image by image: top, left, height, width."""
    random = np.random.default_rng(1)
    found = []
    for _ in range(COUNT):
        for _ in range(10):
            area = height * width * random.uniform(least, 1.0)
            ratio = math.exp(random.uniform(math.log(3 / 4), math.log(4 / 3)))
            w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
            if 0 < w <= width and 0 < h <= height:
                found.append((random.integers(0, height - h + 1), random.integers(0, width - w + 1), h, w))
                break
        else:
            ratio = width / height
            w, h = (width, round(width / 0.75)) if ratio < 0.75 else (round(height * 4 / 3), height)
            w, h = (w, h) if ratio < 0.75 or ratio > 4 / 3 else (width, height)
            found.append(((height - h) // 2, (width - w) // 2, h, w))
    return np.array(found, dtype=np.float64)


@pytest.mark.parametrize(("height", "width"), [(224, 224), (32, 32), (64, 200)])
def test_resized_crops_are_drawn_as_published(height: int, width: int) -> None:
    ours = crop_boxes(COUNT, (height, width), 0.08, seeded()).double().numpy()
    theirs = published_crops(height, width, 0.08)
    for column in range(4):
        assert distance(ours[:, column], theirs[:, column]) < BOUND_TWO
    assert distance(ours[:, 2] * ours[:, 3], theirs[:, 2] * theirs[:, 3]) < BOUND_TWO
    assert (ours == ours.round()).all()
    assert (ours[:, :2] >= 0).all()
    assert (ours[:, 0] + ours[:, 2] <= height).all()
    assert (ours[:, 1] + ours[:, 3] <= width).all()


def test_a_crop_is_scaled_as_torch_scales_it() -> None:
    images = torch.rand(5, 3, 12, 10, generator=seeded())
    boxes = torch.tensor([[0.0, 0, 12, 10], [2, 3, 5, 4], [11, 9, 1, 1], [0, 4, 12, 3], [6, 0, 6, 10]])
    out = resized(images, boxes)
    for image, box, found in zip(images, boxes.int().tolist(), out, strict=True):
        top, left, height, width = box
        part = image[None, :, top : top + height, left : left + width]
        expected = F.interpolate(part, size=(12, 10), mode="bilinear", align_corners=False)[0]
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def test_pad_and_crop_take_every_place_equally_often() -> None:
    """81 windows, each mirrored or not: an image of one bright pixel in the middle says which one was taken."""
    image = torch.zeros(1, 1, 32, 32, dtype=torch.uint8)
    image[0, 0, 15, 12] = 255
    how = Augmentation(crop_padding=4, flip=True)
    out = augment(image.expand(COUNT, 1, 32, 32), how, (0.0,), (1.0,), generator=seeded())
    places = out.flatten(1).argmax(1)
    rows, cols = places // 32, places % 32
    # Moved by -4 to 4; column 12 mirrors to 19, so that the two ranges of columns lie apart but for one.
    assert set(rows.tolist()) == set(range(11, 20))
    assert set(cols.tolist()) == set(range(8, 24))
    counts = torch.bincount(rows, minlength=32)[11:20].double() / COUNT
    assert (counts - 1 / 9).abs().max() < 5 * math.sqrt(1 / 9 * 8 / 9 / COUNT)
    share = torch.bincount(cols, minlength=32)[8:24].double() / COUNT
    expected = torch.full((16,), 1 / 18, dtype=torch.float64)
    expected[7:9] = 1 / 18
    overlap = torch.tensor([(8 <= c <= 16) + (15 <= c <= 23) for c in range(8, 24)], dtype=torch.float64) / 18
    assert (share - overlap).abs().max() < 5 * math.sqrt(1 / 9 / COUNT)


def test_cutout_covers_every_pixel_as_often_as_published() -> None:
    images = torch.full((COUNT, 1, 32, 32), 255, dtype=torch.uint8)
    out = augment(images, Augmentation(cutout=16), (0.0,), (1.0,), generator=seeded())
    found = (out == 0).double().mean(0)[0]
    # Centre y uniform over 0..31; rows y - 8 to y + 7 go.
    rows = torch.tensor([sum(y - 8 <= r < y + 8 for y in range(32)) / 32 for r in range(32)], dtype=torch.float64)
    assert (found - rows[:, None] * rows[None, :]).abs().max() < 5 * 0.5 / math.sqrt(COUNT)


def flat(*colour: float, count: int = COUNT) -> Tensor:
    return torch.tensor(colour)[None, :, None, None].expand(count, 3, 1, 1).contiguous()


def test_brightness_contrast_and_saturation_are_uniform_factors() -> None:
    pytest.importorskip("kornia")
    brightness = jittered(flat(0.5, 0.5, 0.5), (0.4, 0.0, 0.0, 0.0), seeded())[:, 0, 0, 0] / 0.5
    assert from_uniform(brightness, 0.6, 1.4) < BOUND_ONE
    levels = torch.cat([flat(0.3, 0.3, 0.3), flat(0.7, 0.7, 0.7)], 3)
    contrast = jittered(levels, (0.0, 0.4, 0.0, 0.0), seeded())
    assert from_uniform((contrast[:, 0, 0, 1] - contrast[:, 0, 0, 0]) / 0.4, 0.6, 1.4) < BOUND_ONE
    assert (contrast.mean((1, 2, 3)) - 0.5).abs().max() < 1e-5
    saturation = jittered(flat(0.6, 0.5, 0.4), (0.0, 0.0, 0.4, 0.0), seeded())[:, :, 0, 0]
    assert from_uniform((saturation[:, 0] - saturation[:, 2]) / 0.2, 0.6, 1.4) < BOUND_ONE
    grey = torch.tensor([0.299, 0.587, 0.114])
    assert ((saturation * grey).sum(1) - (torch.tensor([0.6, 0.5, 0.4]) * grey).sum()).abs().max() < 1e-3


def test_hue_turns_by_up_to_a_fifth() -> None:
    pytest.importorskip("kornia")
    out = jittered(flat(0.2, 0.6, 0.4, count=4000), (0.0, 0.0, 0.0, 0.2), seeded())[:, :, 0, 0]
    start = colorsys.rgb_to_hsv(0.2, 0.6, 0.4)
    found = [colorsys.rgb_to_hsv(*row) for row in out.tolist()]
    turns = torch.tensor([(hue - start[0] + 0.5) % 1 - 0.5 for hue, _, _ in found])
    assert from_uniform(turns, -0.2, 0.2) < 1.95 / math.sqrt(4000)
    assert max(abs(s - start[1]) + abs(v - start[2]) for _, s, v in found) < 1e-4


def test_jitter_is_in_any_order_and_off_without_change(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[int, ...]] = []

    def named(kind: int) -> Callable[[Tensor, Tensor], Tensor]:
        # Each adds its digit behind those that are there.
        return lambda images, factor: images * 0.1 + (kind + 1) * 0.1

    module = sys.modules["ddarts_ext.data.transform_colours"]
    monkeypatch.setattr(module, "_adjustments", lambda: tuple(named(kind) for kind in range(4)))
    out = jittered(torch.zeros(COUNT, 3, 1, 1), (0.1, 0.1, 0.1, 0.1), seeded())[:, 0, 0, 0]
    seen = [tuple(map(int, f"{value:.4f}"[2:])) for value in out.tolist()]
    orders = {order: seen.count(order) / COUNT for order in set(seen)}
    assert len(orders) == 24
    assert max(abs(share - 1 / 24) for share in orders.values()) < 5 * math.sqrt(1 / 24 / COUNT)
    images = torch.rand(4, 3, 5, 5, generator=seeded())
    assert torch.equal(jittered(images, (0.0, 0.0, 0.0, 0.0), seeded()), images)


def test_lighting_has_the_covariance_of_its_components() -> None:
    found = lighting_shift(COUNT, 0.1, seeded()).double()
    values = torch.tensor([0.2175, 0.0188, 0.0045], dtype=torch.float64)
    vectors = torch.tensor(
        [[-0.5675, 0.7192, 0.4009], [-0.5808, -0.0045, -0.8140], [-0.5836, -0.6948, 0.4203]], dtype=torch.float64
    )
    expected = vectors @ torch.diag((0.1 * values) ** 2) @ vectors.T
    scale = expected.diagonal().sqrt()
    assert (found.mean(0) / scale).abs().max() < 5 / math.sqrt(COUNT)
    assert ((found.T.cov() - expected) / (scale[:, None] * scale)).abs().max() < 5 * math.sqrt(2 / COUNT)
    # In an image, pixel values from 0 to 1 are what it is added to.
    out = transformed(torch.full((64, 3, 2, 2), 128, dtype=torch.uint8), Transforms(lighting=0.1), seeded())
    assert 1 < out.float()[:, 0, 0, 0].std() < 8


def test_erasing_takes_a_rectangle_of_the_published_sizes_from_as_many_images() -> None:
    out = erased(torch.ones(COUNT, 1, 24, 24), 0.1, seeded())
    areas = (out == 0).sum((1, 2, 3)).double()
    hit = areas > 0
    assert abs(float(hit.double().mean()) - 0.1) < 5 * math.sqrt(0.1 * 0.9 / COUNT)
    random, reference = np.random.default_rng(2), []
    while len(reference) < COUNT:
        area = 576 * random.uniform(0.02, 0.33)
        ratio = math.exp(random.uniform(math.log(0.3), math.log(3.3)))
        h, w = round(math.sqrt(area / ratio)), round(math.sqrt(area * ratio))
        if h < 24 and w < 24:
            reference.append(h * w)
    every = (erased(torch.ones(COUNT, 1, 24, 24), 1.0, seeded(3)) == 0).sum((1, 2, 3)).double().numpy()
    assert distance(every, np.array(reference, dtype=np.float64)) < BOUND_TWO
    part = (out[hit][0, 0] == 0).nonzero()
    sides = part.max(0).values - part.min(0).values + 1
    assert int(sides.prod()) == len(part)


def randaugmented(images: Tensor, seed: int) -> Tensor:
    return transformed(images, Transforms(randaugment=2), seeded(seed))


def test_randaugment_draws_for_every_image_and_from_its_generator_alone() -> None:
    pytest.importorskip("kornia")
    image = torch.randint(0, 256, (1, 3, 16, 16), generator=seeded(100), dtype=torch.uint8)
    before = torch.get_rng_state()
    out = randaugmented(image.repeat(64, 1, 1, 1), 0)
    assert torch.equal(before, torch.get_rng_state())
    assert len(torch.unique(out.flatten(1), dim=0)) >= 40
    assert torch.equal(out, randaugmented(image.repeat(64, 1, 1, 1), 0))
    assert not torch.equal(out, randaugmented(image.repeat(64, 1, 1, 1), 1))


def test_randaugment_takes_every_op_equally_often_and_none_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ops that write the number of their turn into a place of their own."""

    def op(number: int) -> Callable[[Tensor], Tensor]:
        def write(x: Tensor) -> Tensor:
            out = x.clone()
            out[:, 0, 0, number] += 0.25
            return out

        return write

    ops = tuple(op(number) for number in range(15))
    monkeypatch.setattr(sys.modules["ddarts_ext.data.transform_colours"], "_policy", lambda _: ops)
    out = randaugmented(torch.zeros(COUNT, 3, 1, 15, dtype=torch.uint8), 0)[:, 0, 0]
    assert ((out == 64).sum(1) == 2).all()
    share = (out == 64).double().mean(0)
    assert (share - 2 / 15).abs().max() < 5 * math.sqrt(2 / 15 * 13 / 15 / COUNT)


@pytest.mark.parametrize(
    "how",
    [Transforms(resized_crop=0.08), Transforms(jitter=(0.4, 0.4, 0.4, 0.2)), Transforms(lighting=0.1)],
    ids=["crop", "jitter", "lighting"],
)
def test_the_generator_alone_decides(how: Transforms) -> None:
    if how.jitter:
        pytest.importorskip("kornia")
    images = torch.randint(0, 256, (8, 3, 16, 16), generator=seeded(5), dtype=torch.uint8)
    first, second, other = (transformed(images, how, seeded(seed)) for seed in (1, 1, 2))
    assert first.dtype == torch.uint8
    assert torch.equal(first, second)
    assert not torch.equal(first, other)
    assert transformed(images, Transforms(), seeded()) is images

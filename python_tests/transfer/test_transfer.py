"""Detectors and segmentation networks on networks of this package: losses fall, weights come along and load again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ddarts_ext import Genotype, Trainer, create_model
from ddarts_ext.transfer import DETECTORS, HEADS, detector, segmenter
from ddarts_ext.transfer.body import torchvision_part

SMALL = {"min_size": 64, "max_size": 64}


@pytest.fixture(autouse=True)
def _torchvision() -> None:
    try:
        torchvision_part("test", "models.detection")
        torchvision_part("test", "models.segmentation")
    except ImportError as error:
        pytest.skip(str(error))


def shapes(count: int, seed: int = 0) -> tuple[Tensor, list[dict[str, Tensor]], Tensor]:
    """Noise [N, 3, 64, 64], each with a bright square (class 1) or a dark one (2); targets, classes [N, 64, 64]."""
    draw = torch.Generator().manual_seed(seed)
    images = 0.4 + 0.2 * torch.rand(count, 3, 64, 64, generator=draw)
    targets, classes = [], torch.zeros(count, 64, 64, dtype=torch.long)
    for index in range(count):
        side = int(torch.randint(16, 33, (), generator=draw))
        x, y = torch.randint(0, 64 - side, (2,), generator=draw).tolist()
        kind = index % 2 + 1
        images[index, :, y : y + side, x : x + side] = 0.95 if kind == 1 else 0.05
        classes[index, y : y + side, x : x + side] = kind
        box = torch.tensor([[x, y, x + side, y + side]], dtype=torch.float32)
        masks = (classes[index] > 0)[None].to(torch.uint8)
        targets.append({"boxes": box, "labels": torch.tensor([kind]), "masks": masks})
    return images, targets, classes


def small(**options: Any) -> dict[str, Any]:
    return {"num_classes": 3, "channels": 4, "cells": 5, "stem": "cifar", **options}


@pytest.mark.parametrize("kind", DETECTORS)
def test_a_detector_learns(kind: str) -> None:
    torch.manual_seed(0)
    net = detector("DARTS_V2", kind, pyramid_channels=16, model=SMALL, **small()).train()
    images, targets, _ = shapes(4)
    optimizer = torch.optim.Adam(net.parameters(), 2e-3)
    losses = []
    for _ in range(12):
        found = net(list(images), targets)
        loss = sum(found.values())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert sum(losses[-3:]) < 0.8 * sum(losses[:3])
    every = {name for name, parameter in net.named_parameters() if parameter.grad is None}
    assert not every
    net.eval()
    with torch.no_grad():
        found = net(list(images[:2]))
    assert {"boxes", "labels", "scores"} <= set(found[0])
    assert ("masks" in found[0]) == (kind == "mask_rcnn")


@pytest.mark.parametrize("head", HEADS)
def test_segmentation_learns(head: str) -> None:
    torch.manual_seed(0)
    net = segmenter("DARTS_V2", head, auxiliary=True, **small(channels=8)).train()
    images, _, classes = shapes(4)
    optimizer = torch.optim.Adam(net.parameters(), 5e-3)
    losses = []
    for _ in range(25):
        found = net(images)
        assert found["out"].shape == found["aux"].shape == (4, 3, 64, 64)
        loss = nn.functional.cross_entropy(found["out"], classes) + 0.4 * nn.functional.cross_entropy(
            found["aux"], classes
        )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.7 * losses[0]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("transfer") / "run"
    genotype = Genotype.load("DARTS_V2", layers=5)
    Trainer(genotype, "digits", out=folder, epochs=1, channels=4, recipe="quick", device="cpu").train()
    return folder


def test_weights_and_statistics_of_a_training_come_along(run: Path) -> None:
    from ddarts_ext import load_network

    trained = load_network(run)
    net = detector(run, num_classes=3, pyramid_channels=16, model=SMALL)
    network = net.backbone.body.features.network
    there = network.state_dict()
    expected = {name: value for name, value in trained.network.state_dict().items() if name in there}
    assert len(expected) > 20
    assert all(torch.equal(there[name], value) for name, value in expected.items())
    assert not [name for name in there if name.startswith(("classifier", "auxiliary"))]
    assert net.transform.image_mean == list(trained.description.mean)
    x = trained.prepare(torch.zeros(2, *reversed((*trained.description.size, trained.description.in_channels))).byte())
    names = [str(index) for index in range(len(net.backbone.body.names))]
    with torch.no_grad():
        found = net.eval().backbone.body(x)
        assert torch.allclose(found[names[-1]], trained.eval().network.forward_features(x))
    # In training they stand still, but learn.
    before = {name: value.clone() for name, value in network.named_buffers()}
    images, targets, _ = shapes(2)
    sum(net.train()(list(images.mean(1, keepdim=True)), targets).values()).backward()
    assert all(torch.equal(value, before[name]) for name, value in network.named_buffers())
    assert all(parameter.grad is not None for parameter in network.parameters())
    assert net.training
    assert not network.training


def test_checkpoints_load(tmp_path: Path) -> None:
    torch.manual_seed(0)
    images = shapes(2)[0]
    for build in (
        lambda: detector("DARTS_V1", "faster_rcnn", pyramid_channels=8, model=SMALL, **small()),
        lambda: segmenter("DARTS_V1", **small(channels=8)),
    ):
        one, other = build().eval(), build().eval()
        torch.save(one.state_dict(), tmp_path / "weights.pt")
        other.load_state_dict(torch.load(tmp_path / "weights.pt", weights_only=True))
        given = images if hasattr(one, "classifier") else list(images)
        with torch.no_grad():
            a, b = one(given), other(given)
        for left, right in zip(*((x.values() if isinstance(x, dict) else x[0].values()) for x in (a, b)), strict=True):
            torch.testing.assert_close(left, right)


def test_resolutions_are_chosen() -> None:
    net = detector("DARTS_V2", out_indices=(0, -1), pyramid_channels=8, num_classes=2, channels=4, cells=5)
    assert net.backbone.body.info.reduction() == [
        create_model("DARTS_V2", stem="imagenet").feature_info.reduction()[0],
        32,
    ]
    assert len(net.anchor_generator.sizes) == 4
    assert [sizes[0] for sizes in net.anchor_generator.sizes][1:] == [128, 256, 512]


def test_a_network_that_exists_is_taken_as_it_is() -> None:
    network = create_model("DARTS_V2", channels=4, cells=5, auxiliary=True)
    net = segmenter(network, num_classes=2)
    assert net.backbone.features.network is network
    assert network.num_classes == 0
    assert not [name for name, _ in net.named_parameters() if "auxiliary" in name]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: detector("DARTS_V2", "yolo", num_classes=3), "kind must be one of retinanet"),
        (lambda: detector("DARTS_V2", num_classes=1), "num_classes must be a whole number >= 2, background included"),
        (
            lambda: detector(3, num_classes=3),
            "source must be the folder of a training, a network or a gen",
        ),
        (lambda: detector(nn.Linear(1, 1), num_classes=3), "source must be a network of ddarts_ext.nn, got Linear"),
        (lambda: detector("DARTS_V2", num_classes=3, out_indices=[9]), "out_indices must be in 0"),
        (lambda: segmenter("DARTS_V2", "unet", num_classes=3), "head must be one of fcn, deeplabv3"),
        (lambda: segmenter("DARTS_V2", num_classes=3, out_index=8), "out_index must be in 0"),
        (lambda: segmenter("DARTS_V2", num_classes=3, out_index=0, auxiliary=True), "auxiliary must be False with the"),
        (
            lambda: segmenter(create_model("DARTS_V2"), num_classes=3, channels=4),
            "channels must be left out with a network that exists",
        ),
    ],
)
def test_what_is_wrong_is_named(call: Any, message: str) -> None:
    with pytest.raises((ValueError, TypeError), match=message):
        call()

"""Networks by name, as backbones, with heads of other sizes, here and in timm."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch

import ddarts_ext
from ddarts_ext import create_model, list_models
from ddarts_ext.genotype import Genotype
from ddarts_ext.nn import DiscreteNetwork, NASBench201Network
from ddarts_ext.nn.features import FeatureNetwork

NB201 = Genotype.from_nb201("|nor_conv_3x3~0|+|nor_conv_1x1~0|avg_pool_3x3~1|+|skip_connect~0|nor_conv_3x3~1|none~2|")
WITHOUT_NETWORK = "Xception_cifar100_edge"
"""Its last cell joins no node: there is no network of it, in its authors' code either."""


def few_cells(name: str) -> int | None:
    """So many cells, of those architectures that may have another number."""
    try:
        Genotype.load(name).with_layers(6)
    except ValueError:
        return None
    return 6


@pytest.mark.parametrize("name", list_models())
def test_every_published_architecture(name: str) -> None:
    if name == WITHOUT_NETWORK:
        with pytest.raises(ValueError, match="must have a node in every cell, got none in cell 12"):
            create_model(name, channels=4)
        return
    torch.manual_seed(0)
    network: Any = create_model(name, num_classes=7, in_chans=2, channels=4, cells=few_cells(name)).eval()
    side = 2 * network.divisor
    x = torch.randn(2, 2, side, side)
    features = network.forward_features(x)
    logits = network(x)
    assert features.shape == (2, network.num_features, 2, 2)
    assert logits.shape == (2, 7) == (len(x), network.num_classes)
    assert torch.equal(network.forward_head(features), logits)
    assert network.forward_head(features, pre_logits=True).shape == (2, network.num_features)
    backbone = FeatureNetwork(network)
    outputs = backbone(x)
    told = backbone.feature_info
    assert told.reduction() == [1 << i for i in range(len(told))]
    found = [(out.shape[1], side // out.shape[2], side // out.shape[3]) for out in outputs]
    assert found == [(c, r, r) for c, r in zip(told.channels(), told.reduction(), strict=True)]
    assert torch.equal(outputs[-1], features)
    # Each is the output of the module that it names, and the last of its size.
    modules = dict(network.named_modules())
    seen: dict[str, torch.Tensor] = {}
    for place in told.module_name():
        modules[place].register_forward_hook(lambda m, i, out, place=place: seen.update({place: out}))
    network(x)
    for place, out in zip(told.module_name(), outputs, strict=True):
        assert torch.equal(seen[place][-1] if isinstance(seen[place], tuple) else seen[place], out)


@pytest.mark.parametrize("stem", ["imagenet", "imagenet_stride4"])
def test_stems_that_reduce_have_levels_of_their_own(stem: str) -> None:
    network: Any = create_model("DARTS_V2", channels=4, cells=3, stem=stem, features_only=True).eval()
    first = 4 if stem == "imagenet" else 2
    assert network.feature_info.reduction() == [first, 2 * first, 4 * first, 8 * first]
    for out, reduction in zip(network(torch.randn(1, 3, 64, 96)), network.feature_info.reduction(), strict=True):
        assert out.shape[2:] == (64 // reduction, 96 // reduction)


def test_some_levels_alone() -> None:
    whole: Any = create_model("ResNet18", channels=4, features_only=True).eval()
    some = FeatureNetwork(whole.network, (1, -1))
    x = torch.randn(1, 3, 16, 16)
    for found, expected in zip(some(x), (whole(x)[1], whole(x)[-1]), strict=True):
        assert torch.equal(found, expected)
    early = FeatureNetwork(whole.network, (0,))
    ran = []
    whole.network.cells[-1].register_forward_hook(lambda *_: ran.append(1))
    early(x)
    assert not ran  # what comes after the last level that is asked for is not computed
    with pytest.raises(ValueError, match=r"out_indices must be in 0\.\.3, got 4"):
        FeatureNetwork(whole.network, (4,))


def test_nas_bench_201() -> None:
    network: Any = create_model(NB201, channels=4, num_classes=3).eval()
    assert isinstance(network, NASBench201Network)
    x = torch.randn(2, 3, 8, 8)
    backbone = FeatureNetwork(network)
    assert backbone.feature_info.channels() == [4, 8, 16]
    assert [tuple(out.shape[2:]) for out in backbone(x)] == [(8, 8), (4, 4), (2, 2)]
    assert torch.equal(network.forward_head(backbone(x)[-1]), network(x))


@pytest.mark.parametrize("genotype", [Genotype.load("ResNet18"), NB201], ids=["cells", "nasbench201"])
def test_another_head(genotype: Genotype) -> None:
    network: Any = create_model(genotype, channels=4, auxiliary=genotype.inputs == 2).eval()
    before = copy.deepcopy(network)
    x = torch.randn(2, 3, 16, 16)
    network.reset_classifier(3)
    assert network(x).shape == (2, 3)
    assert torch.equal(network.forward_features(x), before.forward_features(x))
    if genotype.inputs == 2:
        assert network.forward_auxiliary(x)[1].shape == (2, 3)
    assert torch.allclose(network.plain()(x), network(x), atol=1e-6)
    network.reset_classifier(0)
    assert (network(x).shape, network.num_classes) == ((2, network.num_features), 0)
    assert torch.allclose(network.plain()(x), network(x), atol=1e-6)
    network.reset_classifier(4)  # and back
    network(x).sum().backward()
    assert network.get_classifier().weight.grad is not None
    for wrong, error in ((-1, ValueError), (True, TypeError), (2.0, TypeError)):
        with pytest.raises(error, match="num_classes must be"):
            network.reset_classifier(wrong)


def test_of_a_file_and_of_nothing(tmp_path: Path) -> None:
    Genotype.load("ResNet18").save(tmp_path / "mine.json")
    network = create_model(tmp_path / "mine.json", channels=4, num_classes=0)
    assert isinstance(network, DiscreteNetwork)
    assert network(torch.randn(1, 3, 16, 16)).shape == (1, network.num_features)
    with pytest.raises(ValueError, match="ResNet18"):  # did you mean
        create_model("ResNet19")
    with pytest.raises(ValueError, match="features_only must be True with out_indices"):
        create_model("ResNet18", out_indices=(0,))
    assert {"create_model", "list_models"} <= set(dir(ddarts_ext))


def test_in_timm() -> None:
    timm = pytest.importorskip("timm", reason="timm is not installed")
    from ddarts_ext.timm_models import timm_name

    assert {timm_name(name) for name in list_models()} <= set(timm.list_models("ddarts_*"))
    network = timm.create_model("ddarts_resnet18", num_classes=5, in_chans=1, channels=4)
    assert network(torch.randn(2, 1, 16, 16)).shape == (2, 5)
    backbone = timm.create_model("ddarts_darts_v2", features_only=True, out_indices=(0, 2), channels=4, cells=3)
    assert backbone.feature_info.channels() == [out.shape[1] for out in backbone(torch.randn(1, 3, 16, 16))]
    with pytest.raises(ValueError, match="pretrained must be False"):
        timm.create_model("ddarts_resnet18", pretrained=True)

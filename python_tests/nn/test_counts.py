"""Published sizes: parameters and multiply-adds of evaluation networks and supernets, all on the meta device."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from nn.published_counts import ROWS, Row

from ddarts_ext import spaces
from ddarts_ext.genotype import Genotype
from ddarts_ext.genotype.derivation import derive
from ddarts_ext.nn import (
    DiscreteNetwork,
    NASBench201Network,
    NASBench201Supernet,
    Supernet,
    count_multiply_adds,
    count_parameters,
    primitive,
)
from ddarts_ext.nn.cell import Normed
from ddarts_ext.nn.count import _PRODUCTS
from ddarts_ext.nn.network import DiscreteCell
from ddarts_ext.nn.primitives import EVALUATION, SEARCH


def network(genotype: Genotype, channels: int, classes: int = 10, **options: object) -> DiscreteNetwork:
    with torch.device("meta"):
        return DiscreteNetwork(genotype, channels, classes, **options)  # type: ignore[arg-type]


def uniform(cells: int, edges: int, ops: int) -> torch.Tensor:
    return torch.full((cells, edges, ops), 1 / ops)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row[0]}-{row[2]}-{'-'.join(map(str, row[3]))}-{row[4]}")
def test_published_rows(row: Row) -> None:
    name, channels, layers, reductions, cycle, bare10, full10, bare100, full100, products, with_norms = row
    genotype = Genotype.load(name)
    if genotype.layers != layers:
        rule = "thirds" if reductions == spaces.third_reductions(layers) else "from_file"
        genotype = derive(genotype.with_reductions(reductions if rule == "from_file" else None), layers,
                          "cycle" if cycle else "reference", rule)  # fmt: skip
    genotype = genotype.with_reductions(reductions)
    if name == "Xception_cifar100_edge":
        # In its last gene everything hangs on a node that does not exist.
        with pytest.raises(ValueError, match="got none in cell 12"):
            network(genotype, channels)
        return
    net = network(genotype, channels, auxiliary=True)
    assert net.auxiliary is not None
    more, more_auxiliary = (90 * (head.in_features + 1) for head in (net.classifier, net.auxiliary.classifier))
    bare, full = (count_parameters(net, auxiliary=auxiliary) for auxiliary in (False, True))
    assert (bare, full, bare + more, full + more + more_auxiliary) == (bare10, full10, bare100, full100)
    if products is not None:
        assert count_multiply_adds(net) == (products, with_norms)


@pytest.mark.parametrize(
    ("name", "layers", "channels", "classes", "stem", "bare", "products"),
    [
        ("DARTS_V2", 20, 36, 10, "cifar", 3349342, 528359040),
        ("DARTS_V1", 20, 36, 10, "cifar", 3169414, 500987520),
        ("DARTS_V2", 14, 48, 1000, "imagenet", 4718752, 529911552),
        ("FairDARTS_a", 20, 36, 10, "cifar", 2360782, None),
        ("FairDARTS_b", 20, 36, 10, "cifar", 3407878, None),
        ("ISDARTS", 20, 36, 10, "cifar", 4716190, 746114688),
        ("ISDARTS", 14, 48, 1000, "imagenet", 6434848, 724280832),
    ],
)
def test_pairs_of_cells(
    name: str, layers: int, channels: int, classes: int, stem: str, bare: int, products: int | None
) -> None:
    net = network(Genotype.load(name, layers=layers), channels, classes, stem=stem)
    assert count_parameters(net) == bare
    if products is not None:
        image = (3, 32, 32) if stem == "cifar" else (3, 224, 224)
        assert count_multiply_adds(net, image).convolutions == products


@pytest.mark.parametrize(
    ("name", "layers", "stem", "channels", "classes", "norm", "full"),
    [
        ("DARTS_V2", 14, "imagenet", 48, 1000, None, 5979528),
        ("DARTS_V2", 14, "imagenet", 48, 1000, True, 5981064),
        ("FairDARTS_a", 20, "cifar", 36, 10, None, 2837208),
        ("FairDARTS_b", 20, "cifar", 36, 10, None, 3884304),
        ("ISDARTS", 14, "imagenet", 48, 1000, True, 7697160),
    ],
)
def test_auxiliary_heads(
    name: str, layers: int, stem: str, channels: int, classes: int, norm: bool | None, full: int
) -> None:
    genotype = Genotype.load(name, layers=layers)
    net = network(genotype, channels, classes, stem=stem, auxiliary=True, auxiliary_norm=norm)
    assert count_parameters(net) == full


def test_imagenet_norm_convention() -> None:
    """DARTS on ImageNet: 538 190 592 with two per element that leaves a norm."""
    net = network(Genotype.load("DARTS_V2", layers=14), 48, 1000, stem="imagenet")
    assert count_multiply_adds(net, (3, 224, 224)).with_norms == 538190592


@pytest.mark.parametrize(
    ("name", "classes", "bare", "with_norms"),
    [
        ("ResNet18", 1000, None, 2720132096),
        ("ResNet50", 1000, None, 4715119616),
        ("ResNet18_cifar100_sparse", 1000, 53384072, 8619424768),
        ("ResNet50_cifar100_sparse", 1000, 73227400, 10029139968),
    ],
)
def test_imagenet_with_three_reductions(name: str, classes: int, bare: int | None, with_norms: int) -> None:
    net = network(Genotype.load(name), 64, classes, stem="imagenet_stride4")
    assert bare is None or count_parameters(net) == bare
    assert count_multiply_adds(net, (3, 224, 224)).with_norms == with_norms


def test_ddarts_on_imagenet() -> None:
    """DD-4: 617 M multiply-adds with norms, 5.74 M parameters."""
    genotype = derive(Genotype.load("D-DARTS_sparse_abl0.5_fair7_cifar100"), 14)
    net = network(genotype, 48, 1000, stem="imagenet")
    assert round(count_multiply_adds(net, (3, 224, 224)).with_norms / 1e5) == 6178
    assert round(count_parameters(net) / 1e4) == 574


@pytest.mark.parametrize(
    ("name", "classes", "count"),
    [("ResNet18", 100, 14166564), ("ResNet50", 10, 24360522), ("ResNet18_cifar100_sparse", 100, 51521828)],
)
def test_encoded_baselines(name: str, classes: int, count: int) -> None:
    assert count_parameters(network(Genotype.load(name), 64, classes)) == count


@pytest.mark.parametrize(
    ("space", "channels", "count"),
    [
        ("darts", 16, 1930618),
        ("darts_none", 16, 1930618),
        ("darts", 32, 6800618),
        ("darts", 36, 8477398),
        ("isdarts", 16, 1959418),
    ],
)
def test_supernets_of_eight_cells(space: str, channels: int, count: int) -> None:
    with torch.device("meta"):
        net = Supernet(spaces.get(space), 8, channels)
    assert count_parameters(net) == count
    if channels == 16:
        weights = uniform(8, 14, len(net.space.ops))
        assert count_multiply_adds(net, (3, 32, 32), weights).convolutions == 300255744


@pytest.mark.parametrize(
    ("name", "counts"),
    [
        ("ResNet18", (17038394, 67455082, 268423370)),
        ("ResNet50", (32718170, 129537706, 515480906)),
        ("Xception", (93449274, 370894954, 1477775562)),
    ],
)
def test_dartopti_supernets(name: str, counts: Sequence[int]) -> None:
    start = Genotype.load(name)
    for channels, count in zip((16, 32, 64), counts, strict=True):
        with torch.device("meta"):
            space = spaces.get("dartopti", steps=start.steps)
            net = Supernet(space, start.layers, channels, reductions=start.reduction_cells)
        assert count_parameters(net) == count


def test_nasbench201() -> None:
    with torch.device("meta"):
        net = NASBench201Supernet()
        infer = NASBench201Network(
            Genotype.from_nb201("|nor_conv_3x3~0|+|nor_conv_3x3~0|nor_conv_3x3~1|"
                                "+|nor_conv_3x3~0|nor_conv_3x3~1|nor_conv_3x3~2|")
        )  # fmt: skip
    assert count_parameters(net) == 1692826
    assert [count_parameters(cell) for cell in (net.cells[0], net.cells[5])] == [15552, 61824]
    assert count_parameters(net.blocks[0]) == 14464
    assert count_multiply_adds(net, (3, 32, 32), uniform(15, 6, 5)).convolutions == 243712640
    assert count_parameters(infer) == 1531546
    assert count_multiply_adds(infer).convolutions == 220119680


@pytest.mark.parametrize(
    ("name", "stride", "search", "evaluation"),
    [
        ("conv_3x1_1x3", 1, 1536, 1568),
        ("conv_7x1_1x7", 1, 3584, 3616),
        ("simple_conv_1x1", 1, 256, 288),
        ("simple_conv_3x3", 1, 2304, 2336),
        ("bottleneck_1x3x1", 1, 4608, 4832),
        ("sep_conv_3x3", 1, 800, 864),
        ("sep_conv_5x5", 1, 1312, 1376),
        ("dil_conv_3x3", 1, 400, 432),
        ("dil_conv_5x5", 1, 656, 688),
        ("skip_connect", 2, 256, 288),
        ("skip_connect", 1, 0, 0),
        ("max_pool_3x3", 1, 0, 0),
        ("avg_pool_3x3", 2, 0, 0),
    ],
)
def test_parameters_of_ops(name: str, stride: int, search: int, evaluation: int) -> None:
    for style, count in ((SEARCH, search), (EVALUATION, evaluation)):
        op = primitive(name, 16, stride, style)
        assert op is not None
        assert count_parameters(Normed(op, 16, style)) == count


def test_counting_changes_nothing() -> None:
    net = DiscreteNetwork(Genotype.load("DARTS_V2", layers=3), 4, auxiliary=True).train()
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    count_multiply_adds(net)
    assert net.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())
    assert isinstance(net.cells[0], DiscreteCell)


def test_every_op_with_weights_is_counted() -> None:
    """An op of the package that multiplies by weights without being counted would make networks look cheap."""
    weighted = set()
    for name in torch._C._dispatch_get_all_op_names():
        if name.startswith("ddarts_ext::") and "backward" not in name:
            arguments = torch._C._get_schema(name, "").arguments
            if any(a.name in ("weights", "pointwise") and str(a.type) == "List[Tensor]" for a in arguments):
                weighted.add(name.split("::")[1])
    assert {"relu_depthwise_conv2d", "relu_separable_conv2d", "relu_pointwise_conv2d", "mixed_edges"} <= weighted
    assert weighted <= set(_PRODUCTS)

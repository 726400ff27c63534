"""The network of torch's own layers computes what ours does: outputs, gradients, statistics, for every op and space."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ddarts_ext import spaces
from ddarts_ext.genotype import Genotype
from ddarts_ext.genotype.files import image_architectures
from ddarts_ext.nn import DiscreteNetwork, NASBench201Network, build_network
from ddarts_ext.nn.plain import PlainNetwork, folded

NB201 = (
    "|nor_conv_3x3~0|+|nor_conv_1x1~0|avg_pool_3x3~1|+|skip_connect~0|nor_conv_3x3~1|none~2|",
    "|none~0|+|nor_conv_3x3~0|none~1|+|nor_conv_1x1~0|skip_connect~1|avg_pool_3x3~2|",
)
TOLERANCE = {torch.float32: 1e-6, torch.float64: 1e-10}


def stirred(network: nn.Module) -> Any:
    """With norms that are not as they were made."""
    with torch.no_grad():
        for name, tensor in network.state_dict().items():
            if "norm" in name and tensor.is_floating_point():
                tensor.copy_(torch.rand_like(tensor) + 0.5 if "bias" not in name else torch.randn_like(tensor) * 0.1)
    return network


def close(found: Tensor, expected: Tensor, tolerance: float) -> bool:
    """Up to the tolerance, of the largest value."""
    found, expected = found.detach(), expected.detach()
    return bool((found - expected).abs().max() <= tolerance * max(1.0, float(expected.abs().max())))


def check(network: Any, x: Tensor, *, auxiliary: bool = False, tolerance: float | None = None) -> None:
    plain = network.plain()
    tolerance = TOLERANCE[x.dtype] if tolerance is None else tolerance
    assert {type(module).__module__.split(".")[0] for module in plain.modules()} <= {"torch", "ddarts_ext"}
    assert not any("ddarts_ext.ops" in type(m).__module__ for m in plain.modules())
    names = network.plain_names()
    for training in (True, False):
        results = []
        for one in (network.train(training), plain.train(training)):
            one.zero_grad(set_to_none=True)
            image = x.clone().requires_grad_()
            outputs = one.forward_auxiliary(image) if auxiliary else (one(image),)
            loss = sum((out * torch.linspace(-1, 1, out.numel(), dtype=x.dtype).view_as(out)).sum() for out in outputs)
            loss.backward()
            results.append((outputs, image.grad))
        (ours, our_grad), (theirs, their_grad) = results
        assert all(close(a, b, tolerance) for a, b in zip(theirs, ours, strict=True))
        scale = max(1.0, *(float(p.grad.abs().max()) for p in network.parameters() if p.grad is not None))
        assert close(their_grad, our_grad, 10 * tolerance * scale)
        parameters = dict(plain.named_parameters())
        for name, parameter in network.named_parameters():
            other = parameters[names[name]].grad
            assert (other is None) == (parameter.grad is None), name
            assert other is None or close(other / scale, parameter.grad / scale, 10 * tolerance), name
        buffers = dict(plain.named_buffers())
        for name, buffer in network.named_buffers():
            assert close(buffers[names[name]], buffer, 10 * tolerance), name


def cell_of(op: str) -> Genotype:
    """A normal and a reduction cell in which the op stands at both strides, from inputs and from a node."""
    cell = ((op, 2, 0), (op, 2, 1), (op, 3, 2), ("skip_connect", 3, 0))
    return Genotype((cell, cell), seq=(0, 1, 0), concat=(2, 3), reductions=(1,))  # type: ignore[arg-type]


@pytest.mark.parametrize("op", sorted(spaces.known_ops() - {"none", *spaces.ACTIVATIONS}))
@pytest.mark.parametrize("size", [8, 9])
def test_every_op(op: str, size: int) -> None:
    """Of all spaces; odd sides as well."""
    for dtype in (torch.float32, torch.float64):
        network = stirred(DiscreteNetwork(cell_of(op), channels=4, classes=3).to(dtype))
        check(network, torch.randn(3, 3, size, size, dtype=dtype))


@pytest.mark.parametrize("name", image_architectures())
def test_every_published_architecture(name: str) -> None:
    genotype = Genotype.load(name, layers=6) if name in ("DARTS_V1", "DARTS_V2") else Genotype.load(name)
    if not all(genotype.joined(i) for i in range(genotype.layers)):
        pytest.skip("a cell has no nodes, so that there is no network of it")
    network = stirred(build_network(genotype, 4, 5, auxiliary=True).double())
    # At least 4x4 pixels in the last cells: norms over a few values alone magnify rounding.
    side = 4 << len(genotype.reduction_cells)
    # In training, torch's own layers differ from themselves by up to 1.3e-10 in these when the images are in another
    # order (ours by 1.6e-11).
    tolerance = 1e-9 if name.startswith("Xception_") else None
    check(network, torch.randn(2, 3, side, side, dtype=torch.float64), auxiliary=True, tolerance=tolerance)


@pytest.mark.parametrize("stem", ["imagenet", "imagenet_stride4"])
@pytest.mark.parametrize("norm", [True, False])
def test_stems_and_auxiliary_heads(stem: str, norm: bool) -> None:
    genotype = Genotype.load("DARTS_V2", layers=5)
    network = stirred(DiscreteNetwork(genotype, 4, 5, 3, True, stem, auxiliary_norm=norm).double())
    check(network, torch.randn(2, 3, 64, 48, dtype=torch.float64), auxiliary=True)
    # Where the head pools as published: 8x8 (CIFAR) and 7x7 (ImageNet).
    side = {"imagenet": 224, "imagenet_stride4": 112}[stem]
    check(network, torch.randn(2, 3, side, side, dtype=torch.float64), auxiliary=True)


@pytest.mark.parametrize("text", NB201)
def test_nas_bench_201(text: str) -> None:
    network = stirred(NASBench201Network(Genotype.from_nb201(text), 4, 2, 5).double())
    check(network, torch.randn(3, 3, 9, 8, dtype=torch.float64))


def networks() -> list[Any]:
    two = stirred(DiscreteNetwork(Genotype.load("ResNet18"), 4, 5, auxiliary=True))
    deep = stirred(DiscreteNetwork(Genotype.load("DARTS_V2", layers=4), 4, 5, stem="imagenet", auxiliary=True))
    return [two, deep, stirred(NASBench201Network(Genotype.from_nb201(NB201[0]), 4, 1, 5))]


@pytest.mark.parametrize("network", networks(), ids=["cifar", "imagenet", "nasbench201"])
def test_weights_go_both_ways(network: Any) -> None:
    plain = network.plain()
    other = stirred(type(plain)(**network.plain_arguments()))
    assert set(other.state_dict()) == set(plain.state_dict()) == set(network.plain_state_dict())
    network.load_plain_state_dict(other.state_dict())
    x = torch.randn(2, 3, 64, 64)
    assert torch.allclose(network.eval()(x), other.eval()(x), atol=1e-5)
    # What was taken once is not shared.
    assert not torch.equal(plain.eval()(x), other(x))
    state = other.state_dict()
    state["extra"] = state.pop("classifier.weight")
    with pytest.raises(ValueError, match=r"classifier\.weight must be there"):
        network.load_plain_state_dict(state)


@pytest.mark.parametrize("network", networks(), ids=["cifar", "imagenet", "nasbench201"])
def test_tracing_and_folding(network: Any) -> None:
    plain, x = network.plain().eval(), torch.randn(2, 3, 64, 64)
    expected = network.eval()(x)
    traced = torch.jit.trace(plain, x)
    assert torch.allclose(traced(torch.cat((x, x))), torch.cat((expected, expected)), atol=1e-5)
    whole = folded(plain.double())
    assert close(whole(x.double()), plain(x.double()), 1e-10)
    assert sum(isinstance(m, nn.BatchNorm2d) for m in whole.modules()) == isinstance(network, NASBench201Network)


def test_mode_device_and_what_is_trained_are_kept() -> None:
    network = DiscreteNetwork(cell_of("sep_conv_3x3"), channels=4, classes=3).double().eval()
    network.stem.requires_grad_(False)
    plain = network.plain()
    assert isinstance(plain, PlainNetwork)
    assert not plain.training
    assert {p.dtype for p in plain.parameters()} == {torch.float64}
    assert not any(p.requires_grad for p in plain.stem.parameters())
    assert all(p.requires_grad for p in plain.cells.parameters())


@pytest.mark.parametrize("on", ["op", "node"])
def test_drop_path(on: Any) -> None:
    """Whole samples are dropped with the probability, and the others scaled; a pure skip never is."""
    genotype = cell_of("max_pool_3x3")
    network = DiscreteNetwork(genotype, 4, 3, drop_path=0.5, drop_path_on=on).plain()
    assert isinstance(network, PlainNetwork)
    x = torch.ones(2000, 4, 2, 2)
    cell = network.cells[0]
    kept = cell._dropped(x, 0.5)[:, 0, 0, 0]  # type: ignore[operator]
    assert set(kept.tolist()) == {0.0, 2.0}
    assert kept.mean() == pytest.approx(1, abs=0.1)
    states = cell.states((x, x), 0.5)  # type: ignore[operator]
    share = float((states[2][:, 0, 0, 0] == 0).float().mean())
    assert share == pytest.approx(0.5 if on == "node" else 0.25, abs=0.05)
    assert torch.equal(cell.eval().states((x, x), 0.5)[2], 2 * x)  # type: ignore[operator]

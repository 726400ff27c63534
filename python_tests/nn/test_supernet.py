"""Supernets of any shape: sizes, layouts, groups, pruning, errors."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from ddarts_ext import spaces
from ddarts_ext.nn import Cell, GroupedNorm, NASBench201Supernet, NodeKey, Pass, SearchGraph, Supernet
from ddarts_ext.nn.norm import RunningStatistics

DARTS = spaces.get("darts")
SMALL = spaces.get("darts_none", steps=2)


def images(batch: int = 2, channels: int = 3, height: int = 8, width: int = 8) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(batch, channels, height, width, dtype=torch.float64, generator=generator)


def weights_for(net: Supernet, groups: int | None = None) -> Tensor:
    shape = (len(net.cells), len(net.space.edges), len(net.space.ops))
    generator = torch.Generator().manual_seed(1)
    return torch.rand(shape if groups is None else (groups, *shape), dtype=torch.float64, generator=generator)


def small(**options: object) -> Supernet:
    torch.manual_seed(0)
    settings: dict[str, object] = {"cells": 3, "channels": 4, "classes": 5} | options
    return Supernet(settings.pop("space", SMALL), **settings).double()  # type: ignore[arg-type]


@pytest.mark.parametrize(("height", "width"), [(8, 8), (9, 9), (7, 12), (4, 5)])
@pytest.mark.parametrize("in_channels", [1, 3])
def test_any_image(height: int, width: int, in_channels: int) -> None:
    net = small(in_channels=in_channels)
    x = images(2, in_channels, height, width)
    logits = net(x, weights_for(net).requires_grad_())
    logits.sum().backward()
    assert logits.shape == (2, 5)
    assert all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters())


@pytest.mark.parametrize(("stem", "side"), [("imagenet", 40), ("imagenet_stride4", 19)])
def test_imagenet_stems(stem: str, side: int) -> None:
    net = small(stem=stem)
    s0, s1 = net.stem_states(images(2, 3, side, side), Pass())
    expected = (-(-side // 4), -(-side // 8)) if stem == "imagenet" else (-(-side // 2), -(-side // 4))
    assert (s0.shape[-1], s1.shape[-1]) == expected
    assert net(images(2, 3, side, side), weights_for(net)).shape == (2, 5)


@pytest.mark.parametrize("options", [
    {"cells": 1}, {"cells": 2, "reductions": ()}, {"cells": 4, "reductions": (0, 3)}, {"space": DARTS, "cells": 3},
    {"space": spaces.get("dartopti", steps=2), "cells": 2}, {"space": spaces.get("isdarts"), "cells": 3},
    {"space": spaces.get("darts", steps=3, multiplier=2)},
])  # fmt: skip
def test_any_shape_of_network(options: dict[str, object]) -> None:
    net = small(**options)
    assert net(images(), weights_for(net)).shape == (2, 5)
    assert net.eval()(images(), weights_for(net)).shape == (2, 5)


def test_channels_double_at_reductions_and_states_are_channels_last() -> None:
    net = small(cells=6)
    p = Pass()
    states = list(net.stem_states(images(), p))
    for cell, row in zip(net.cells, weights_for(net), strict=True):
        states.append(cell(states[-2], states[-1], row, p))
    assert net.reductions == (2, 4)
    assert [s.shape[1] for s in states[2:]] == [8, 8, 16, 16, 32, 32]
    assert [s.shape[2] for s in states[2:]] == [8, 8, 4, 4, 2, 2]
    assert all(s.is_contiguous(memory_format=torch.channels_last) for s in states)


def test_layout_of_the_input_does_not_matter() -> None:
    net = small()
    x, w = images(4), weights_for(net)
    expected = net(x, w)
    torch.testing.assert_close(net(x.contiguous(memory_format=torch.channels_last), w), expected)
    torch.testing.assert_close(net(x.repeat_interleave(2, 3)[..., ::2], w), expected)


def test_cells_take_contiguous_states() -> None:
    cell = Cell(SMALL, 6, 6, 4, reduction=True).double()
    s, w, p = images(2, 6), torch.rand(len(SMALL.edges), 8, dtype=torch.float64), Pass()
    last = s.contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(cell(s, s, w, p), cell(last, last, w, p))


def test_groups_equal_separate_passes() -> None:
    net = small()
    x, p = images(6), Pass(groups=3, statistics="batch")
    w = weights_for(net, 3).requires_grad_()
    together = net(x, w, p)
    apart = torch.cat([net(x[2 * g : 2 * g + 2], w[g], Pass(statistics="batch")) for g in range(3)])
    torch.testing.assert_close(together, apart, rtol=1e-9, atol=1e-11)
    grad = torch.randn_like(together)
    found, expected = (torch.autograd.grad(out, w, grad)[0] for out in (together, apart))
    torch.testing.assert_close(found, expected, rtol=1e-8, atol=1e-10)
    shared = net(x, w[0], p)
    torch.testing.assert_close(shared[2:4], net(x[2:4], w[0], Pass(statistics="batch")), rtol=1e-9, atol=1e-11)


def test_training_moves_running_statistics_and_evaluation_uses_them() -> None:
    net = small()
    x, w = images(4), weights_for(net)
    norms = [m for m in net.modules() if isinstance(m, RunningStatistics)]
    before = [copy.deepcopy(m.running_mean) for m in norms]
    net(x, w, Pass(statistics="batch"))
    assert all(torch.equal(m.running_mean, b) for m, b in zip(norms, before, strict=True))
    for norm in norms:
        norm.momentum = 1.0
    out = net(x, w)
    assert not any(torch.equal(m.running_mean, b) for m, b in zip(norms, before, strict=True))
    # Only the unbiased variance of the running buffers sets the two apart.
    assert (net.eval()(x, w) - out).abs().max() < 0.2 * out.abs().max()


def test_pruned_equals_masked() -> None:
    net = small(cells=3)
    x, w = images(4), weights_for(net)
    mask = torch.rand(w.shape[1:], generator=torch.Generator().manual_seed(4)) < 0.4
    mask[0, 3] = True
    masked = net(x, w * mask, Pass(statistics="batch"))
    running = net(x, w * mask, Pass(statistics="running"))
    count = sum(p.numel() for p in net.parameters())
    for cell in net.cells:
        cell.prune(mask)
        assert torch.equal(cell.present(), mask & (torch.arange(8) > 0))
    w.requires_grad_()
    pruned = net(x, w, Pass(statistics="batch"))
    torch.testing.assert_close(pruned, masked)
    torch.testing.assert_close(net(x, w, Pass(statistics="running")), running)
    assert sum(p.numel() for p in net.parameters()) < count
    pruned.sum().backward()
    assert w.grad is not None
    assert not w.grad[:, ~mask].any()
    loaded = small(cells=3)
    for cell in loaded.cells:
        cell.prune(mask)
    loaded.load_state_dict(net.state_dict())
    torch.testing.assert_close(loaded(x, w, Pass(statistics="batch")), pruned)


def test_a_node_may_lose_all_its_branches() -> None:
    net = small(cells=3)
    mask = torch.zeros(len(SMALL.edges), 8, dtype=torch.bool)
    mask[2:, 3] = True
    mask[2, 5] = True
    x, w = images(4), weights_for(net)
    masked = net(x, w * mask)
    for cell in net.cells:
        cell.prune(mask)
    torch.testing.assert_close(net(x, w), masked)
    for cell in net.cells:
        cell.prune(torch.zeros_like(mask))
    assert net(x, w).shape == (4, 5)


@pytest.mark.parametrize("reduction", [False, True])
def test_what_stands_in_for_a_removed_cell(reduction: bool) -> None:
    """multiplier copies of the second preprocessed input, subsampled in a reduction; no op takes part."""
    cell = Cell(SMALL, 6, 6, 4, reduction=reduction).double()
    s = images(2, 6, 7, 6)
    out = cell.removed(s, Pass())
    inner = cell.preprocess1(s, Pass(statistics="batch"))
    inner = inner[:, :, ::2, ::2] if reduction else inner
    torch.testing.assert_close(out, torch.cat([inner] * SMALL.multiplier, 1))
    assert out.shape == cell(s, s, torch.rand(len(SMALL.edges), 8), Pass()).shape


def test_an_observer_sees_every_branch_with_its_statistics() -> None:
    net, seen = small(cells=2), {}

    def observe(
        key: NodeKey, branches: Sequence[Tensor], mean: Tensor, rstd: Tensor, normalize: Sequence[bool]
    ) -> None:
        assert len(branches) == len(key.columns) == len(normalize) == mean.shape[1] == rstd.shape[1]
        seen[key] = [branch.shape for branch in branches]

    net(images(), weights_for(net), Pass(observe=observe))
    assert [(key.cell, key.node) for key in seen] == [(0, 2), (0, 3), (1, 2), (1, 3)]
    columns = [column for key in seen for column in key.columns if key.cell == 0]
    assert columns == [e * 8 + k for e in range(5) for k in range(1, 8)]


def test_state_dict_makes_a_copy() -> None:
    net = small()
    other = Supernet(SMALL, 3, 4, 5).double()
    other.load_state_dict(net.state_dict())
    x, w = images(), weights_for(net)
    torch.testing.assert_close(other(x, w), net(x, w))
    torch.testing.assert_close(copy.deepcopy(net)(x, w), net(x, w))


def test_biases_of_autodl_convolutions() -> None:
    """IS-DARTS: convolutions of search cells have biases, pools no norm, norms no running statistics."""
    net = Supernet(spaces.get("isdarts"), 3, 4)
    names = [name for name, _ in net.named_parameters()]
    assert any(name.startswith("cells.0.edges.0.dua_sepc_3x3") and name.endswith("bias") for name in names)
    assert not [name for name, _ in net.cells.named_buffers() if "running" in name]
    assert isinstance(net.norm, GroupedNorm)


def test_nasbench201_pruned_and_odd() -> None:
    net = NASBench201Supernet(4, 1).double()
    x, w = images(2, 3, 9, 7), torch.full((3, 6, 5), 0.2, dtype=torch.float64)
    mask = torch.rand(6, 5, generator=torch.Generator().manual_seed(0)) < 0.5
    expected = net(x, w * mask)
    for cell in net.cells:
        assert isinstance(cell, SearchGraph)
        cell.prune(mask)
    torch.testing.assert_close(net(x, w), expected)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: small(channels=5), "channels must be even and >= 2, got 5"),
        (lambda: small(cells=0), "cells must be >= 1, got 0"),
        (lambda: small(classes=0), "classes must be >= 1, got 0"),
        (lambda: small(reductions=(3,)), r"reductions must be in 0\.\.2, got 3"),
        (lambda: small(stem="mnist"), "stem: must be one of cifar, imagenet, imagenet_stride4, got 'mnist'"),
        (lambda: small()(images(2, 1), torch.rand(3, 5, 8)), r"images must be \[N,3,H,W\], got \[2, 1, 8, 8\]"),
        (lambda: small()(images(2, 3, 3, 8), torch.rand(3, 5, 8)), "images must be at least 4x4"),
        (lambda: small(stem="imagenet")(images(), torch.rand(3, 5, 8)), "images must be at least 32x32"),
        (lambda: small()(images(), torch.rand(2, 5, 8)), "with 3 cells"),
        (lambda: small()(images(), torch.rand(3, 5, 7)), r"weights must be \[E,O\]=\[5, 8\]"),
        (lambda: small()(images(), torch.rand(2, 3, 5, 8)), "weights must be for 1 groups, got 2"),
        (lambda: small().cells[0].prune([[True]]), r"mask must be \[E,O\]=\[5, 8\], got \[1, 1\]"),
        (lambda: Supernet(spaces.get("nasbench201")), "space must have two inputs"),
    ],
)
def test_errors(call: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()  # type: ignore[operator]
